"""What one commit says: the schedules, and for each what it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from graftline.digests import sha256_bytes
from graftline.engines.local import task_digest
from graftline.environment import ROOT
from graftline.errors import GraftlineError, InputError
from graftline.git import git
from graftline.images import load_images
from graftline.pipelines.reconcile.schedules import Schedule, load_schedules
from graftline.pipelines.reconcile.shift import Shift, measure_shift
from graftline.pipelines.runkey import Work, work_of
from graftline.profiles import TRAINING
from graftline.store import MissingError
from graftline.store.opening import open_store
from graftline.task_data import data_revision

_VERSION = re.compile(r"^kind: PipelineVersion\nmetadata:\n(?:  .*\n)*?  name: (\S+)$", re.MULTILINE)
"""A version in a compiled manifest: YAML of half a megabyte takes seconds to read."""


@dataclass(frozen=True)
class Changed:
    """The last commit that changed what a schedule watches."""

    commit: str
    what: tuple[str, ...]
    """Which of the watched kinds it changed, sorted."""


class Repository(Protocol):
    """What desired.py asks of a commit; the tests have one in memory."""

    @property
    def commit(self) -> str:
        """The commit that is looked at, 40 hex characters."""
        ...

    @property
    def schedules(self) -> Mapping[str, Schedule]:
        """By name."""
        ...

    @property
    def manifests(self) -> frozenset[str]:
        """The versions that it holds compiled, for whoever applies what git says."""
        ...

    def work(self, name: str) -> Work:
        """Return what the schedule of that name runs."""
        ...

    def changed(self, name: str) -> Changed | None:
        """Return the last commit that changed what the schedule watches; None if it watches no commits."""
        ...

    def shift(self, name: str) -> Shift | None:
        """Return the shift of the data that the schedule's task has now; None if nothing was released yet."""
        ...


class GitRepository:
    """A checkout; it must hold the whole history, since the commit that changed something is part of a run's key."""

    def __init__(self, root: Path = ROOT, *, local: bool = False, store_url: str = "") -> None:
        """Look at the commit that is checked out.

        Args:
            root: the checkout.
            local: for the local backend, where the code is the checkout itself and not images.
            store_url: where releases live, and the digests and shifts of data that was read once. The runs are told it.

        Raises:
            InputError: no git repository, a shallow one, what is checked out differs from the commit, or a store that
                runs on a cluster cannot reach.
        """
        if not local and not store_url.startswith("s3://"):
            raise InputError(
                "--store",
                f"'{store_url}' is a folder of this machine, and the runs are on a cluster",
                expected="s3://BUCKET/PREFIX",
                fix="leave it out to use `store` of pipelines/settings.yaml",
            )
        self.root, self._local, self._store_url = root, local, store_url
        self._works: dict[str, Work] = {}
        self._not_measured: dict[str, GraftlineError] = {}
        self.commit = git(self.root, "rev-parse", "--verify", "HEAD")
        if git(self.root, "rev-parse", "--is-shallow-repository") == "true":
            raise InputError(
                root,
                "a shallow clone: which commit changed something cannot be told",
                fix="fetch the whole history: `git fetch --unshallow`",
            )
        watched = ["data", "pipelines", "images.lock", ".dvc/config"]
        if self._local:
            watched += ["components", "src", "dvc.yaml"]
        if changed := git(self.root, "status", "--porcelain", "--untracked-files=no", "--", *watched):
            raise InputError(
                root,
                f"{changed.splitlines()[0].strip()} is not committed",
                expected="a clean checkout: runs follow commits",
                fix="commit it, or `git stash`",
            )

    @cached_property
    def schedules(self) -> Mapping[str, Schedule]:
        return load_schedules(self.root / "pipelines/schedules.yaml")

    @property
    def manifests(self) -> frozenset[str]:
        texts = [path.read_text(encoding="utf-8") for path in (self.root / "pipelines/compiled").glob("*.yaml")]
        return frozenset(name for text in texts for name in _VERSION.findall(text))

    def work(self, name: str) -> Work:
        if name not in self._works:  # compiling takes a second
            schedule = self.schedules[name]
            make = self._local_work if self._local else self._compiled_work
            self._works[name] = make(name, schedule)
        return self._works[name]

    def changed(self, name: str) -> Changed | None:
        schedule = self.schedules[name]
        watched = sorted(schedule.on_change - {"shift"})
        if not watched:
            return None
        commit = self._last_commit(path for kind in watched for path in self._paths(kind, schedule.task))
        what = [kind for kind in watched if self._last_commit(self._paths(kind, schedule.task)) == commit]
        return Changed(commit, tuple(what)) if commit else None

    def shift(self, name: str) -> Shift | None:
        if name in self._not_measured:
            raise self._not_measured[name]
        try:
            return measure_shift(self.schedules[name].task, self.work(name).data_digest, self._store_url, self.root)
        except GraftlineError as error:
            self._not_measured[name] = error  # reading the data again would take as long, and fail alike
            raise

    def _paths(self, kind: str, task: str) -> tuple[str, ...]:
        """Return what a kind of change looks at, relative to the checkout."""
        if kind == "data":
            return f"data/{task}/raw.dvc", f"data/{task}/expectations.yaml"
        if kind == "parameters":
            return (f"data/{task}/params.yaml",)
        if self._local:
            return "components", "src/graftline", "dvc.yaml", "requirements.lock"
        return "images.lock", "pipelines/retrain.py"  # the compiled file changes with the parameters as well

    def _last_commit(self, paths: Iterable[str]) -> str:
        # --first-parent: a merge counts where it arrives on this branch, whatever the dates of its commits.
        order = ["--first-parent", "--diff-merges=first-parent", "--no-patch"]
        return git(self.root, "log", "-1", *order, "--format=%H", "--", *paths)

    def _compiled_work(self, name: str, schedule: Schedule) -> Work:
        from graftline.pipelines.compile import compiled

        pipeline = compiled(schedule.task, profiles=profiles_of(schedule), overrides=schedule.set)
        pipeline = replace(pipeline, parameters=pipeline.parameters | {"store": self._store_url})
        return work_of(
            pipeline,
            load_images(self.root / "images.lock"),
            data_digest=self._data_digest(schedule.task),
            revision=data_revision(schedule.task, self.root),
        )

    def _local_work(self, name: str, schedule: Schedule) -> Work:
        """Return what DVC would run: it decides itself what the code and the parameters mean for each stage."""
        if schedule.set:
            raise InputError(
                f"schedule {name}: set",
                "the local backend runs the checkout as it is",
                fix=f"write the values into data/{schedule.task}/params.yaml, or into a task of their own",
            )
        params = self.root / "data" / schedule.task / "params.yaml"
        code = self._last_commit(self._paths("code", schedule.task))
        return Work(
            task=schedule.task,
            pipeline="dvc.yaml",
            version=f"checkout-{code[:12]}",
            parameters={"params": params.read_text(encoding="utf-8")},
            images={},
            data_digest=self._pointer_digest(schedule.task),
            revision=data_revision(schedule.task, self.root),
        )

    def _data_digest(self, task: str) -> str:
        """Return the digest of raw data and contract; raw data is fetched and read once for each pointer."""
        store = open_store(self._store_url)
        key = f"runs/data/{task}/{self._pointer_digest(task)}"
        try:
            return store.get(key).data.decode()
        except MissingError:
            digest = task_digest(task)
        store.put_if_absent(key, digest.encode())
        return digest

    def _pointer_digest(self, task: str) -> str:
        """Return the digest of what names the data, without the data: DVC compares that itself."""
        files = [self.root / path for path in self._paths("data", task)]
        return sha256_bytes(
            json.dumps([path.read_text(encoding="utf-8") if path.exists() else None for path in files]).encode()
        )


def profiles_of(schedule: Schedule) -> dict[str, str] | None:
    """Return the pool of each stage that the schedule says one for; None for the defaults."""
    if isinstance(schedule.profile, str):
        return dict.fromkeys(TRAINING, schedule.profile)
    return schedule.profile
