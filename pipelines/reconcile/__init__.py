"""Schedules and runs that follow git: start what a commit declares, once, and record how it ended.

    schedules.py    pipelines/schedules.yaml and its cron arithmetic
    repository.py   what a commit says of each task
    desired.py      what should have been started by now: runs of changes and of due slots
    agenda.py       the same with what was done before: since when each schedule's slots count
    claims.py       who may do the work of a run: one holder a key, in the store
    planning.py     what to do next, from desired and actual; no effects
    reconcile.py    observe, plan, apply, until nothing is left to do
    drift.py        desired against actual as a table
    kubeflow.py, local.py   the two backends; cluster.py: what Kubernetes knows of Kubeflow's runs
    serve.py        the process that calls reconcile when a slot or a commit comes, one at a time (store/lease.py)

docs/decisions/reconcile.md says what is promised, by what, and what is not.
"""
