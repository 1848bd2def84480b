"""The committed pipeline of mnist with tiny budgets, through the back end for one machine in the built images."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from graftline.engines.backend import LOG, Backend, State
from graftline.engines.containers import USER, Machine, built_images, placed, seen_store
from graftline.engines.local import task_digest
from graftline.environment import ROOT
from graftline.pipelines.compile import component_params
from graftline.pipelines.pods import KEYS
from graftline.runs import Attempt, attempts
from graftline.signing.mounting import keys_for_mounting
from graftline.store.opening import open_store
from graftline.task_data import WORK_TREE

TASK = "mnist"
SMALL = {
    "pretrain.epochs": 0.3, "finetune.epochs": 1, "finetune.min_steps": 10, "finetune.labels_per_class": 10,
    "evaluate.lift_labels": [5], "evaluate.lift_seeds": 2, "evaluate.lift_epochs": 1, "evaluate.lift_test_rows": 200,
    "evaluate.bootstrap_resamples": 1000, "evaluate.gate": {"max_champion_loss": None},
}  # fmt: skip
"""Budgets that take half a minute."""


def committed() -> dict[str, Any]:
    """Return the IR in pipelines/compiled."""
    documents = list(yaml.load_all((ROOT / f"pipelines/compiled/{TASK}.yaml").read_text(), Loader=yaml.CSafeLoader))
    return {name: documents[1]["spec"][name] for name in ("pipelineSpec", "platformSpec")}


class Cluster:
    """Runs of one store; what they make and cache lies in `root`."""

    def __init__(self, root: Path, store_url: str) -> None:
        self.root, self.store_url, self.store = root, store_url, open_store(store_url)
        self._digest = task_digest(TASK)

    def run(self, *, plan: dict[str, Any] | None = None, **changes: Any) -> Run:
        """Start a run and wait for its end.

        Args:
            plan: options of `placed`.
            changes: parameters of the task (`pretrain__epochs`).
        """
        run = self.start(plan=plan, **changes)
        run.thread.join()
        return run

    def start(self, *, plan: dict[str, Any] | None = None, given: dict[str, str] | None = None, **changes: Any) -> Run:
        """Start a run; `given` are parameters of the pipeline."""
        overrides = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
        parameters = component_params(TASK, overrides) | {
            "repository": "/repository",
            "revision": WORK_TREE,
            "data_digest": self._digest,
            "store": seen_store(self.store_url),
            "reason": '{"kind": "person"}',
        }
        return Run(self, plan, parameters | (given or {}))


class Run:
    """A run at work, or ended."""

    def __init__(self, cluster: Cluster, plan: dict[str, Any] | None, parameters: dict[str, str]) -> None:
        self._cluster = cluster
        self._spec = placed(committed(), built_images(), **(plan or {}))
        self.state: State | None = None
        self.codes: dict[str, list[int | None]] = {}
        """What each step's containers ended with."""
        self._ready = threading.Event()
        self.thread = threading.Thread(target=self._work, args=(parameters,))
        self.thread.start()
        self._ready.wait(60)

    def _work(self, parameters: dict[str, str]) -> None:
        keys = self._cluster.root / f".keys-{threading.get_ident()}"
        owner = USER if os.getuid() == 0 else None
        with keys_for_mounting(keys, KEYS, user=owner) as named:
            self.machine = Machine(TASK, self._cluster.store_url, keys, named)
            self.backend = Backend(self._spec, self._cluster.root, self._start)
            self._ready.set()
            try:
                self.state = self.backend.run(parameters)
            finally:
                self.machine.close(self.backend.id)

    def _start(self, pod: Any) -> int | None:
        code = self.machine.start(pod)
        self.codes.setdefault(pod.step, []).append(code)
        return code

    def cancel(self) -> None:
        """As `:terminate` does: what runs is signalled, nothing more is started but the exit handler."""
        self.backend.cancelled.set()
        self.machine.cancel(self.backend.id)

    @property
    def cached(self) -> list[str]:
        return [name for name, one in self.backend.executions.items() if one.state == "CACHED"]

    def said(self, step: str = "") -> list[Attempt]:
        """Return what the steps, or one, said in the store."""
        return attempts(self._cluster.store, self.backend.id, step)

    def output(self, step: str, name: str) -> Path:
        """Return where an output lies."""
        return self.backend.path(self.backend.executions[step].artifacts[name]["uri"])

    def log(self, step: str) -> str:
        """Return what a step has said so far, the latest start last."""
        folder = self._cluster.root / f"artifacts/retrain-{TASK}/{self.backend.id}/{step}"
        logs = sorted(folder.glob(f"*/{LOG}"), key=lambda path: path.stat().st_mtime)
        return "".join(path.read_text(errors="replace") for path in logs)

    def wait_for(self, step: str, text: str) -> str:
        """Wait until a step has said so; return what it has said."""
        until = time.monotonic() + 300
        while text not in (said := self.log(step)):
            assert self.thread.is_alive() and time.monotonic() < until, said
            time.sleep(0.1)
        return said


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Have a run end with the block, whatever becomes of the test."""
    try:
        yield run
    finally:
        with suppress(Exception):
            run.cancel()
        run.thread.join()
