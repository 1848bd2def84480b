"""The local engine: DVC decides in this process what has changed; each component is a process of its own.

DVC is called as a library: started as a command it costs another second, and its exit code (always 255) hides
the component's.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.environment import ROOT
from graftline.errors import EXIT_INPUT, EXIT_PREEMPTED, EXIT_REFUSED, BusyError, GraftlineError, InputError
from graftline.records import read_execution
from graftline.tasks.parameters import COMPONENTS

if TYPE_CHECKING:
    from types import FrameType

OUTPUTS = ROOT / "outputs"
INTERRUPTED = (130, -2)
"""How a component that was stopped by Ctrl-C ends: by its own code, or by the signal."""
GRACE_SECONDS = 25.0
"""How long a component may take to end after SIGTERM: less than the 30 s after which Kubernetes kills."""


class StageError(GraftlineError):
    """A component failed. It has printed its own line already, so this one is not shown again."""

    def __init__(self, stage: str, status: int) -> None:
        super().__init__(f"{stage} ended with exit code {status}")
        self.exit_code = status if status in (EXIT_INPUT, EXIT_REFUSED, EXIT_PREEMPTED) else 1


@dataclass(frozen=True)
class StageRun:
    """What became of one stage in one run."""

    name: str
    state: str
    """`ran`, `skipped` (nothing had changed), `restored` (DVC had an earlier run's output) or `refused`."""
    seconds: float | None
    """The component's own work, if it ran to its end."""


def output_folder(task: str, stage: str) -> Path:
    """Return the folder that `stage` writes."""
    component = import_module(f"graftline.components.{stage}").COMPONENT
    return OUTPUTS / task / str(component.output)


def pull_raw(task: str) -> bool:
    """Bring a task's raw data to the version that its pointer names; return whether another one was there.

    Raises:
        InputError: there is no data and no pointer, no remote holds the version, or the data was changed
            by hand: DVC has no copy of it, so it is not replaced.
    """
    pointer = ROOT / "data" / task / "raw.dvc"
    raw = pointer.with_suffix("")
    if not pointer.exists():
        if raw.exists():
            return False
        raise InputError(
            pointer, "the task has neither raw data nor a pointer to it",
            fix=f"put its files into {raw} and run `dvc add {raw.relative_to(ROOT)}`",
        )  # fmt: skip
    with _repository() as repo:
        (out,) = repo.stage.load_one(str(pointer)).outs
        there = bool(out.exists)
        if there and not out.changed_checksum():
            return False
        if there and not _is_stored(repo, out):
            raise InputError(
                raw.relative_to(ROOT), "differs from raw.dvc",
                fix=f"`dvc add {raw.relative_to(ROOT)}` to make it the task's data, or "
                f"`dvc checkout --force {pointer.relative_to(ROOT)}` to drop the change",
            )  # fmt: skip
        _check_out(repo, pointer, out)
    return there


def _is_stored(repo: Any, out: Any) -> bool:
    """Return whether DVC's cache or default remote holds just what lies at `out` now, as a version of it."""
    from dvc.config import NoRemoteError
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.tree import Tree

    _, _, now = build(out.cache, out.fs_path, out.fs, out.hash_name, ignore=out.dvcignore, dry_run=True)
    wanted = {now.oid} | ({file.value for _, _, file in now} if isinstance(now, Tree) else set())
    missing = [oid for oid in wanted if not out.cache.exists(oid)]
    if not missing:
        return True
    try:
        remote = repo.cloud.get_remote_odb()
    except NoRemoteError:
        return False
    return all(remote.exists(oid) for oid in missing)


def _check_out(repo: Any, pointer: Path, out: Any) -> None:
    """Fetch what `pointer` names, then put it into place: a version that is nowhere leaves all as it was."""
    from dvc.exceptions import CheckoutError, DownloadError

    target = str(pointer.relative_to(ROOT))
    with suppress(DownloadError):
        repo.fetch(targets=[target])
    try:
        if out.changed_cache():
            raise CheckoutError([target], {})
        repo.checkout(targets=[target], force=True)
    except CheckoutError:
        raise InputError(
            pointer, "the default DVC remote does not hold the raw data",
            fix=f"fetch it from one that does: `dvc pull -r REMOTE {target}`",
        ) from None  # fmt: skip


def reproduce(
    task: str,
    *,
    store_url: str,
    force: bool = False,
    only: tuple[str, ...] = (),
    on_event: Callable[[str, str], None],
) -> None:
    """Run the stages of `task` whose inputs, parameters or code have changed, in order.

    Args:
        store_url: where releases live, for the components that use it.
        force: run them even if nothing has changed.
        only: run these stages and no other, in this order.
        on_event: called with a stage's name, and `ran` when it starts or `restored` when DVC has its output.

    Raises:
        StageError: a component failed; it says so itself.
        InputError: another DVC process is at work, or an input is missing.
        KeyboardInterrupt: the user stopped a component.
    """
    targets = [f"{stage}@{task}" for stage in only or COMPONENTS[-1:]]
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "GRAFTLINE_ENGINE": "dvc",
        "GRAFTLINE_STORE": store_url,
    }
    with _environ(environment), _children_end_with_us(), _repository(on_event) as repo:
        repo.reproduce(targets=targets, force=force, single_item=bool(only), repro_fn=_reproduce_stage)


def _reproduce_stage(stage: Any, **how: Any) -> Any:
    """Do what DVC does for a stage, but pass over pointers (.dvc files): DVC would make them name whatever
    lies there now. `pull_raw` has compared them."""
    if stage.is_data_source:
        return None
    done = stage.reproduce(**how)
    if done:
        done.dump(update_pipeline=False)
    return done


def outcome(task: str, events: dict[str, str]) -> list[StageRun]:
    """Return what became of each stage, given the last event of each that had one."""
    return [
        _stage_outcome(name, output_folder(task, name), events.get(name, "skipped")) for name in COMPONENTS
    ]


def _stage_outcome(name: str, folder: Path, state: str) -> StageRun:
    seconds = read_execution(folder).get("seconds") if state == "ran" and folder.exists() else None
    return StageRun(name, state, seconds)


@contextmanager
def _repository(on_event: Callable[[str, str], None] = lambda stage, event: None) -> Iterator[Any]:
    """Open the DVC repository with its chatter off; turn its errors into ours."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    with chdir(ROOT), _quiet(on_event):
        try:
            with Repo(str(ROOT)) as repo:
                yield repo
        except DvcException as error:
            causes = _causes(error)
            if any(isinstance(cause, LockError) for cause in causes):
                raise BusyError(
                    ROOT / ".dvc",
                    "another DVC process is at work here",
                    fix="wait for it to end, then run again",
                ) from None
            raise _from_dvc(causes) from None


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    return chain


def _from_dvc(causes: list[BaseException]) -> BaseException:
    from dvc.stage.exceptions import StageCmdFailedError

    for cause in causes:
        if isinstance(cause, StageCmdFailedError):  # it keeps the command and the status in its text only
            stage = re.search(r"-m graftline\.components\.(\w+)", str(cause))
            status = re.search(r"exited with (-?\d+)$", str(cause))
            code = int(status[1]) if status else 1
            if code in INTERRUPTED:
                return KeyboardInterrupt()
            return StageError(stage[1] if stage else "a stage", code)
    if isinstance(causes[-1], GraftlineError):
        return causes[-1]
    text = " ".join(str(causes[-1]).split()) or type(causes[-1]).__name__
    return InputError("dvc", text[:300], fix="`dvc status` in the repository says more")


# What DVC says of a stage, and our word for it.
_EVENTS = (
    (re.compile(r"Running stage '(?:.*:)?(\w+)@"), "ran"),
    (re.compile(r"Stage '(?:.*:)?(\w+)@.*' is cached"), "restored"),
)


class _Events(logging.Handler):
    """Pass DVC's messages about stages on, as events."""

    def __init__(self, on_event: Callable[[str, str], None]) -> None:
        super().__init__(logging.INFO)
        self._on_event = on_event

    def emit(self, record: logging.LogRecord) -> None:
        for pattern, event in _EVENTS:
            if found := pattern.match(record.getMessage()):
                self._on_event(found[1], event)


@contextmanager
def _quiet(on_event: Callable[[str, str], None]) -> Iterator[None]:
    """Silence DVC's messages and progress bars; what they say of stages goes to `on_event`."""
    import dvc.stage  # noqa: F401  (importing it sets the loggers up, so that what is set here stays)

    loggers = [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects", "dvc.stage")]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    stages, handler = loggers[-1], _Events(on_event)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    stages.setLevel(logging.INFO)
    stages.propagate = False
    stages.addHandler(handler)
    try:
        yield
    finally:
        stages.removeHandler(handler)
        for logger, level, propagate in before:
            logger.setLevel(level)
            logger.propagate = propagate


@contextmanager
def _environ(changes: dict[str, str]) -> Iterator[None]:
    """Set variables for the components; DVC hands its own environment on to them."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _children_end_with_us() -> Iterator[None]:
    """On SIGTERM end the running component too, and wait for its checkpoint: it would go on alone, under our feet."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        import psutil

        signal.signal(number, signal.SIG_IGN)
        children = psutil.Process().children(recursive=True)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        psutil.wait_procs(children, timeout=GRACE_SECONDS)
        raise SystemExit(EXIT_PREEMPTED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
