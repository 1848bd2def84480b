"""The entry point that all components share: arguments, verified inputs, one atomic output, record last.

    python -m graftline.components.finetune --params FILE_OR_JSON --in-dataset DIR --in-trunk DIR --out-model DIR

Both engines start components this way. Exit codes: 0 done, 2 bad input, 3 a gate refused, 75 pre-empted by SIGTERM,
1 anything else. torchrun may start a component that trains, as several processes: the first one makes the output.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from graftline.digests import digest_files, list_files, sha256_file
from graftline.durable import exclusive, output_directory
from graftline.errors import GraftlineError, InputError, PreemptedError
from graftline.learning.distributed import world
from graftline.learning.preemption import ends_at_once, outlive_readers
from graftline.processes import importing
from graftline.records.model import CODE, Dependency, Record
from graftline.signing.keyring import load_keyring
from graftline.store.opening import open_store

if TYPE_CHECKING:
    from graftline.records.folder import Draft
    from graftline.store import Store
    from graftline.tasks.parameters import Model


@dataclass(frozen=True)
class Component:
    """What the entry point and the two pipeline files need to know about a component."""

    name: str
    summary: str
    output: str
    load: Callable[[], Callable[[Context], None]]
    """Return the function that does the work; its imports are heavy, so `--help` does not call it."""
    sources: tuple[str, ...] = ()
    """Inputs from outside (raw data, the contract): a path without a record."""
    inputs: tuple[str, ...] = ()
    """Inputs that components made: a folder with a record, verified before anything is parsed."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Such inputs that may be left out: the name of each, and the name of the output that it is."""
    uses_store: bool = False
    distributed: bool = False
    """Whether torchrun may start it as several processes."""


@dataclass
class Context:
    """One run of a component: what it reads, where it writes, what goes into its record."""

    component: Component
    task: str
    document: dict[str, Any]
    where: str
    """The parameter document's name for errors."""
    paths: dict[str, Path]
    """Each source and input by name."""
    records: dict[str, Record]
    """Each input's verified record by name."""
    out: Path
    """The folder to fill; it becomes the output when the run succeeds."""
    work: Path
    """A folder that outlives a killed run, for checkpoints; removed when the run succeeds."""
    threads: int
    checkpoint_seconds: float
    store_url: str
    draft: Draft
    shard: bool = False
    """Whether several processes each keep only a part of the weights and of the optimiser's state."""
    observed: dict[str, Any] = field(default_factory=dict)
    """What this run saw that is no part of its output, such as drift against the present champion; goes into
    execution.json."""
    when_whole: list[Callable[[], None]] = field(default_factory=list)
    """Called when the output is whole: what only a run that goes on would need can go."""

    def section(self, name: str, model: type[Model]) -> Model:
        """Return a parameter section with defaults, and record it. Raises InputError."""
        from graftline.tasks.parameters import section

        values = section(self.document, self.where, name, model)
        self.draft.parameters[name] = values.model_dump(mode="json")
        return values

    def store(self) -> Store:
        """Open the store of releases."""
        return open_store(self.store_url)


def main(component: Component, argv: list[str] | None = None) -> None:
    """Run `component` with command-line arguments and exit with its code."""
    outlive_readers()
    arguments = _parser(component).parse_args(argv)
    with exits(component.name):
        try:
            with ends_at_once(component.name):
                _run(component, arguments)
        except PreemptedError as error:
            if world().leads:
                raise
            sys.exit(error.exit_code)


@contextmanager
def exits(name: str) -> Iterator[None]:
    """Within, an error ends the process: with its one line, which begins with `name`, and its exit code."""
    try:
        yield
    except (GraftlineError, OSError) as error:
        sys.exit(fail(name, error if isinstance(error, GraftlineError) else from_os_error(error)))
    except KeyboardInterrupt:
        sys.exit(130)


def fail(name: str, error: GraftlineError) -> int:
    """Print the one line that says what went wrong; return the exit code."""
    # One line, whatever a file's name or a library's message holds.
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
    print(f"{name}: {text}", file=sys.stderr)
    return error.exit_code


def from_os_error(error: OSError) -> GraftlineError:
    """Return a full disk, a missing permission or the like as bad input: the user can act on it."""
    where = error.filename or "the disk"
    reason = os.strerror(error.errno) if error.errno else str(error)  # a library's strerror may be a story
    return InputError(where, reason.lower(), fix="make room or correct the path, then run again")


def _parser(component: Component) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m graftline.components.{component.name}", description=component.summary
    )
    parser.add_argument(
        "--params", required=True, metavar="FILE|JSON", help="the task's parameters: a YAML file or one JSON string"
    )
    for name in component.sources:
        parser.add_argument(f"--in-{name}", required=True, metavar="PATH", help=f"{name}, from outside the pipeline")
    for name in component.inputs:
        parser.add_argument(f"--in-{name}", required=True, metavar="DIR", help=f"{name}, verified against its record")
    for name, output in component.optional.items():
        parser.add_argument(
            f"--in-{name}", metavar="DIR", help=f"{name}, a {output}, verified likewise; may be left out"
        )
    parser.add_argument(
        f"--out-{component.output}", required=True, metavar="DIR", dest="out", help="appears whole or not at all"
    )
    if component.uses_store:
        parser.add_argument(
            "--store",
            default=os.environ.get("GRAFTLINE_STORE") or "store",
            metavar="DIR|s3://BUCKET/PREFIX",
            help="where releases live (default: $GRAFTLINE_STORE or ./store)",
        )
    parser.add_argument("--executor-output", metavar="FILE", help="where to tell Kubeflow about the output")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all that this process may use)")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="time between checkpoints (default: %(default)s)",
    )
    if component.distributed:
        parser.add_argument(
            "--shard",
            action="store_true",
            help="under torchrun, keep only a part of weights and optimiser state in each process (FSDP)",
        )
    return parser


def _run(component: Component, arguments: argparse.Namespace) -> None:
    from graftline.records import folder as records
    from graftline.tasks.parameters import load_document, task_name

    started = time.time()
    given = vars(arguments)
    if arguments.threads is not None and arguments.threads < 1:
        raise InputError("--threads", str(arguments.threads), expected="at least 1")
    if world().size > 1 and not component.distributed:
        raise InputError("torchrun", f"{world().size} processes of {component.name}", fix="start it without torchrun")
    document, where = load_document(arguments.params)
    task = task_name(document, where)
    out = Path(arguments.out).absolute()
    names = (*component.sources, *component.inputs, *(name for name in component.optional if given[f"in_{name}"]))
    paths = {name: Path(given[f"in_{name}"]) for name in names}
    _check_out(component, out, paths)

    def work(folder: Path) -> Context:
        verified = {name: records.verify(paths[name]) for name in paths if name not in component.sources}
        _check_inputs(component, task, where, verified)
        draft = records.Draft(component.name, task, component.output)
        _warn_without_commit(component, draft)
        draft.dependencies = _dependencies(component, paths, verified)
        context = Context(
            component=component, task=task, document=document, where=where, paths=paths, records=verified,
            out=folder, work=out.with_name(f".{out.name}.work"), threads=_threads(arguments.threads),
            checkpoint_seconds=arguments.checkpoint_seconds, store_url=given.get("store", ""), draft=draft,
            shard=given.get("shard", False),
        )  # fmt: skip
        with importing():
            run = component.load()
        run(context)
        return context

    if world().size > 1:  # else torch explains on each process how it might look for unused parameters
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if not world().leads:  # it ends where the leader goes on to write, and leaves nothing
        with TemporaryDirectory() as folder:
            work(Path(folder))
        return
    signer = load_keyring().signer()  # where there can be none, it is said before hours of work
    with exclusive(out, what=component.name):
        with output_directory(out) as aside:
            context = work(aside)
            before = out.with_name(f".{out.name}.records")
            record = records.write_record(aside, context.draft, signer, before)
            _say_whose_record(context.draft, record)
            records.write_execution(aside, _execution(started, record.sha256) | context.observed)
        for clean_up in context.when_whole:
            clean_up()
        _remove(context.work)
    if arguments.executor_output:
        from graftline.executor_output import write_executor_output

        store = given.get("store", "")
        write_executor_output(Path(arguments.executor_output), component.output, out, record, store=store)


def _warn_without_commit(component: Component, draft: Draft) -> None:
    """Say that the record will not tell what made the output: whoever asks later cannot be helped any more."""
    from graftline.environment import ROOT

    if world().leads and not any(dependency["name"] == CODE for dependency in draft.code):
        print(
            f"{component.name}: warning: {ROOT} is in no git repository with a commit, so the record names none; "
            "work in a clone, or set GRAFTLINE_COMMIT",
            file=sys.stderr,
        )


def _say_whose_record(draft: Draft, record: Record) -> None:
    """Say that an earlier record stays. It is no line of the component's own: its last one tells how it ended."""
    now = [one["digest"]["gitCommit"] for one in draft.code if one["name"] == CODE]
    if record.commit is not None and record.commit not in now:
        print(f"record: the same {draft.output} as commit {record.commit[:12]} made; its record stays", file=sys.stderr)


def _threads(given: int | None) -> int:
    """Return how many threads to compute with: by default, this process's part of the CPUs that it may use."""
    from graftline.environment import cpu_count

    return given or max(1, cpu_count() // world().local_size)


def _check_out(component: Component, out: Path, paths: dict[str, Path]) -> None:
    """Refuse an output that is no folder, or would replace an input or lie in one."""
    where = f"--out-{component.output}"
    if out.exists() and not out.is_dir():
        raise InputError(where, f"{out} is a file", expected="a folder, or nothing yet", fix="give another path")
    place = out.resolve()
    for name, path in paths.items():
        source = path.resolve()
        if source.is_relative_to(place) or (place.is_relative_to(source) and source.is_dir()):
            raise InputError(where, f"{out} overlaps --in-{name}", expected="a folder apart from the inputs")


def _check_inputs(component: Component, task: str, where: str, verified: dict[str, Record]) -> None:
    for name, record in verified.items():
        wanted = component.optional.get(name, name)
        if record.name != wanted:
            raise InputError(f"--in-{name}", f"a {record.name}", expected=f"a {wanted}", fix="give the right folder")
        if record.task != task:
            raise InputError(
                f"--in-{name}",
                f"made for task '{record.task}'",
                expected=f"task '{task}' as in {where}",
                fix="give the outputs of one task",
            )


def _dependencies(component: Component, paths: dict[str, Path], verified: dict[str, Record]) -> list[Any]:
    for name in component.sources:
        if not paths[name].exists():
            raise InputError(
                f"--in-{name}", f"{paths[name]} does not exist", fix="fetch it with `dvc pull`, or check the path"
            )
    outside = [_source(name, paths[name]) for name in component.sources]
    return outside + [Dependency(name, record.content, record.sha256) for name, record in verified.items()]


def _source(name: str, path: Path) -> Any:
    """Return an input from outside by its digest; of a folder, with the digest of each file, where a trace ends."""
    if not path.is_dir():
        return Dependency(name, sha256_file(path))
    files = list_files(path)
    return Dependency(name, digest_files(files), annotations={"files": [file.as_dict() for file in files]})


def _execution(started: float, record: str) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {
        "record": record,
        "started": started,
        "seconds": time.time() - started,
        "host": platform.node(),
        "engine": os.environ.get("GRAFTLINE_ENGINE", "none"),
        "peak_bytes": peak,
        "peak_bytes_child": children,
    }


def _remove(work: Path) -> None:
    if work.exists():
        shutil.rmtree(work)
