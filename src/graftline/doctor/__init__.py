"""Is the cluster as Graftline needs it? `graftline doctor` asks one point after the other.

points.py      what is said of a point, and which make the cluster wrong
cluster.py     how the cluster is asked
platform.py    what Graftline stands on: Kubernetes, Kubeflow Pipelines, Argo Workflows, Trainer, Kueue
namespace.py   the runs' namespace: labels, rights, secrets, network
capacity.py    whether a pod of each profile finds a place: nodes, quotas, queues
reach.py       the store from here; store, git and images from a pod, which runs probe.py
"""
