"""Training on several machines, or on machines that may be taken away: a Kubeflow TrainJob, started and followed.

__main__.py   what the pipeline's step runs: hands the inputs over, starts the job, fetches the output
manifest.py   the TrainJob as a dictionary
follow.py     starts it, follows it, streams its log, starts it again as often as its budgets say
cluster.py    the Kubernetes API, with its faults ridden out
pod.py        what each pod of the job runs: fetches the inputs, torchrun, hands the output over
handover.py   folders between the step and the job, by way of the store
"""
