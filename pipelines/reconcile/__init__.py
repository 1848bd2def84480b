"""Schedules and runs that follow git: make a backend match what a commit declares.

    schedules.py    pipelines/schedules.yaml and its cron arithmetic
    repository.py   what a commit says of each task
    desired.py      what should be there: recurring runs, and runs of changes and due slots
    claims.py       who may do the work of a run: one holder a key, in the store
    planning.py     what to do next, from desired and actual; no effects
    reconcile.py    observe, plan, apply, until nothing is left to do
    drift.py        desired against actual as a table
    kubeflow.py, local.py   the two backends

docs/decisions/reconcile.md says what is promised, by what, and what is not.
"""
