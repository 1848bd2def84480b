"""The local engine: DVC decides in this process what has changed; each component is a process of its own.

DVC is called as a library: started as a command it costs another second, and its exit code (always 255) hides
the component's.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.engines.stages import narrow
from graftline.environment import ROOT
from graftline.errors import EXIT_INPUT, EXIT_PREEMPTED, EXIT_REFUSED, BusyError, GraftlineError, InputError
from graftline.processes import importing
from graftline.records.folder import read_execution
from graftline.task_data import data_digest
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
            pointer,
            "the task has neither raw data nor a pointer to it",
            fix=f"put its files into {raw} and run `dvc add {raw.relative_to(ROOT)}`",
        )
    with _repository() as repo:
        (out,) = repo.stage.load_one(str(pointer)).outs
        there = bool(out.exists)
        if there and not out.changed_checksum():
            return False
        if there and not _is_stored(repo, out):
            raise InputError(
                raw.relative_to(ROOT),
                "differs from raw.dvc",
                fix=f"`dvc add {raw.relative_to(ROOT)}` to make it the task's data, or "
                f"`dvc checkout --force {pointer.relative_to(ROOT)}` to drop the change",
            )
        _check_out(repo, pointer, out)
    return there


def track(raw: Path, *, linked: bool) -> None:
    """Give raw data to DVC: a copy goes to its cache, `raw.dvc` and `.gitignore` appear beside it.

    `linked`: the files become links to that copy, which nobody may write to, so that there is no second one.
    """
    with _repository({"cache": {"type": ["reflink", "hardlink", "copy"]}} if linked else None) as repo:
        repo.add([str(raw)])


def task_digest(task: str) -> str:
    """Return the digest of the task's data in this work tree; raw data comes from DVC's remote if need be.

    Raises as `pull_raw` does.
    """
    pull_raw(task)
    return data_digest(ROOT / "data" / task / "raw", ROOT / "data" / task / "expectations.yaml")


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
            pointer,
            "the default DVC remote does not hold the raw data",
            fix=f"fetch it from one that does: `dvc pull -r REMOTE {target}`",
        ) from None


def reproduce(
    task: str,
    *,
    store_url: str,
    force: bool = False,
    only: tuple[str, ...] = (),
    before: Callable[[str], None] = lambda stage: None,
    on_event: Callable[[str, str], None],
) -> None:
    """Run the stages of `task` whose inputs, parameters or code have changed, in order.

    Args:
        store_url: where releases live, for the components that use it.
        force: run them even if nothing has changed.
        only: run these stages and no other, in this order.
        before: called with a stage's name when those before it are done; what it raises ends the run.
        on_event: called with a stage's name, and `ran` when it starts or `restored` when DVC has its output.

    Raises:
        StageError: a component failed; it says so itself.
        InputError: another DVC process is at work, or an input is missing.
        KeyboardInterrupt: the user stopped a component.
    """
    targets = [f"{stage}@{task}" for stage in only or COMPONENTS[-1:]]
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUTF8": "1",  # of what a component's libraries read and write
        "GRAFTLINE_ENGINE": "dvc",
        "GRAFTLINE_STORE": store_url,
    }

    def reproduce_stage(stage: Any, **how: Any) -> Any:
        """Do what DVC does for a stage, but pass over pointers (.dvc files): DVC would make them name whatever
        lies there now. `pull_raw` has compared them."""
        if stage.is_data_source:
            return None
        before(_component(stage))
        done = stage.reproduce(**how)
        if done:
            done.dump(update_pipeline=False)
        return done

    with (
        _environ(environment),
        _children_end_with_us(),
        _repository() as repo,
        _locked(repo),
        _own_commands(repo, on_event),
    ):
        narrow(repo, task, OUTPUTS)
        repo.reproduce(targets=targets, force=force, single_item=bool(only), repro_fn=reproduce_stage)


def outcome(task: str, events: dict[str, str]) -> list[StageRun]:
    """Return what became of each stage, given the last event of each that had one."""
    return [_stage_outcome(name, output_folder(task, name), events.get(name, "skipped")) for name in COMPONENTS]


def _stage_outcome(name: str, folder: Path, state: str) -> StageRun:
    seconds = read_execution(folder).get("seconds") if state == "ran" and folder.exists() else None
    return StageRun(name, state, seconds)


@contextmanager
def _repository(config: dict[str, Any] | None = None) -> Iterator[Any]:
    """Open the DVC repository with its chatter off, `config` before its own; turn its errors into ours."""
    with importing():
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
        from dvc.repo import Repo

    with chdir(ROOT), _quiet():
        try:
            with Repo(str(ROOT), config=config) as repo:
                yield repo
        except DvcException as error:
            causes = _causes(error)
            if any(isinstance(cause, LockError) for cause in causes):
                raise BusyError(
                    ROOT / ".dvc", "another DVC process is at work here", fix="wait for it to end, then run again"
                ) from None
            raise _from_dvc(causes) from None


def _locked(repo: Any) -> Any:
    """Hold DVC's lock; when it takes and releases it, it forgets what it knows of stages."""
    from dvc.repo import lock_repo

    return lock_repo(repo)


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    return chain


def _from_dvc(causes: list[BaseException]) -> BaseException:
    if own := [cause for cause in causes if isinstance(cause, GraftlineError)]:
        return own[-1]  # a library's error may lie behind it
    text = " ".join(str(causes[-1]).split()) or type(causes[-1]).__name__
    return InputError("dvc", text[:300], fix="`dvc status` in the repository says more")


@contextmanager
def _own_commands(repo: Any, on_event: Callable[[str, str], None]) -> Iterator[None]:
    """Run stages' commands ourselves, and hear of outputs that DVC has: its exceptions keep the exit code in their
    text only, its log tells of both in words."""
    from dvc.stage import run as of_dvc

    restore = repo.stage_cache.restore

    def restored(stage: Any, **how: Any) -> None:
        restore(stage, **how)  # raises if there is none
        on_event(_component(stage), "restored")

    def start(stage: Any, dry: bool = False, run_env: dict[str, str] | None = None) -> None:
        on_event(_component(stage), "ran")
        command = [of_dvc.get_executable(), "-c", stage.cmd]
        process = subprocess.Popen(command, **of_dvc.prepare_kwargs(stage, run_env))
        heeding = _ignore_interrupts()  # it is the component's: it ends in its own time, and says so
        try:
            code = process.wait()
        finally:
            heeding()
        if code in INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise StageError(_component(stage), code)

    before = of_dvc.cmd_run
    repo.stage_cache.restore, of_dvc.cmd_run = restored, start
    try:
        yield
    finally:
        of_dvc.cmd_run = before


def _component(stage: Any) -> str:
    """Return the component of a stage of dvc.yaml, whose name is `<component>@<task>`."""
    return str(stage.name).partition("@")[0]


def _ignore_interrupts() -> Callable[[], object]:
    """Ignore Ctrl-C; return what undoes that."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    return lambda: signal.signal(signal.SIGINT, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence DVC's messages and progress bars."""
    import dvc.stage  # noqa: F401  (importing it sets the loggers up, so that what is set here stays)

    before = [(logger, logger.level) for logger in map(logging.getLogger, ("dvc", "dvc_data", "dvc_objects"))]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


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
