"""The pipeline's step for training in a job of its own.

    python -m graftline.pipelines.trainjob --image IMAGE --namespace NAME --pod JSON \\
        -- pretrain --params JSON --in-dataset DIR ...

After `--` stand a component and the arguments that the step would have taken itself. The inputs go to the store, the
job's pods fetch them, the output comes back the same way and is verified. Exit codes are the component's: 0 done,
2 bad input, 3 a gate refused, 75 pre-empted more often than the budget says, or cancelled, 1 anything else.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from graftline.component import Component, exits
from graftline.digests import RECORD, sha256_bytes
from graftline.durable import exclusive
from graftline.errors import EXIT_PREEMPTED, GraftlineError, InputError
from graftline.executor_output import write_executor_output
from graftline.images import digest
from graftline.kubernetes_api import connect
from graftline.learning.preemption import outlive_readers
from graftline.pipelines.trainjob.cluster import Cluster
from graftline.pipelines.trainjob.follow import Launch
from graftline.pipelines.trainjob.handover import Handover
from graftline.pipelines.trainjob.manifest import Job
from graftline.profiles import Pod
from graftline.store.opening import open_store
from graftline.tasks.documents import parameter_models
from graftline.tasks.parameters import COMPONENTS, load_document, parse, section, task_name
from graftline.yamlfile import parse_json

if TYPE_CHECKING:
    from graftline.records.model import Record

_NAME = "trainjob"
_PASSED_ON = ("GRAFTLINE_COMMIT", "GRAFTLINE_KEYS", "GRAFTLINE_SILENT_SECONDS")


@dataclass(frozen=True)
class Step:
    """The arguments of a component, its folders taken out."""

    component: Component
    task: str
    inputs: dict[str, Path]
    out: Path
    executor_output: Path | None
    document: dict[str, Any]
    """The parameters."""
    rest: list[str]


def main(argv: list[str] | None = None) -> None:
    """Run the step and exit with its code."""
    outlive_readers()
    with exits(_NAME):
        if code := _run(_parser().parse_args(argv)):
            sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m graftline.pipelines.trainjob", description=__doc__)
    parser.add_argument("--image", required=True, metavar="NAME@DIGEST", help="that the job's pods run")
    parser.add_argument("--pod", required=True, metavar="JSON", help="what each asks for: `pod` of a profile")
    parser.add_argument("--namespace", required=True, metavar="NAME", help="of the run, and so of its jobs")
    for name, variable, what in (
        ("--store", "GRAFTLINE_CHECKPOINTS", "what inputs, checkpoints and output travel by"),
        ("--run", "GRAFTLINE_RUN", "the run's id"),
    ):
        parser.add_argument(name, default=os.environ.get(variable, ""), help=f"{what} (default: ${variable})")
    parser.add_argument("component", choices=COMPONENTS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the component")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    for name, value in (("--store", arguments.store), ("--run", arguments.run)):
        if not value:
            raise InputError(name, "not given", fix="the engine sets GRAFTLINE_CHECKPOINTS and GRAFTLINE_RUN")
    pod = parse(parse_json(arguments.pod, where="--pod"), Pod, where="--pod")
    step = read_step(arguments.component, arguments.arguments)
    handover = Handover(open_store(arguments.store), arguments.run, step.component.name)
    with exclusive(step.out, what=step.component.name), _cancelled() as on_cancel:
        job = _job(arguments, pod, step, handover)
        launch = Launch(Cluster(connect(), arguments.namespace), job, handover)
        on_cancel.append(launch)
        if code := launch.run():
            return code  # the job's own lines have said why
        _finish(step, handover)
        on_cancel.clear()
        try:
            handover.clear()
            launch.clear()
        except (GraftlineError, OSError) as error:  # no failure: the step would train from zero
            print(f"{_NAME}: the output is whole, but what it needed is not gone: {error}", file=sys.stderr)
    return 0


def read_step(component: str, arguments: Sequence[str]) -> Step:
    """Return what a component's arguments say. Raises InputError for a folder that is missing."""
    definition: Component = import_module(f"graftline.components.{component}").COMPONENT
    if definition.sources:
        raise InputError(component, "takes files from outside", expected="a component with records")
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--params", required=True)
    for name in definition.inputs:
        parser.add_argument(f"--in-{name}", required=True)
    parser.add_argument(f"--out-{definition.output}", required=True, dest="out")
    parser.add_argument("--executor-output")
    known, rest = parser.parse_known_args(arguments)
    given = vars(known)
    document, where = load_document(known.params)
    return Step(
        component=definition,
        task=task_name(document, where),
        inputs={name: Path(given[f"in_{name}"]) for name in definition.inputs},
        out=Path(known.out).absolute(),
        executor_output=Path(known.executor_output) if known.executor_output else None,
        document=document,
        rest=["--params", json.dumps(document, sort_keys=True), *rest],
    )


def _job(arguments: argparse.Namespace, pod: Pod, step: Step, handover: Handover) -> Job:
    """Hand the inputs over; return the job's first attempt."""
    names = {name: handover.put_input(folder) for name, folder in step.inputs.items()}
    inputs = [word for name, bundle in names.items() for word in ("--in", f"{name}={bundle}")]
    if pod.nodes > 1 and not step.component.distributed:
        raise InputError("--pod: nodes", f"{pod.nodes} for {step.component.name}", expected="1")
    environment = {
        "GRAFTLINE_ENGINE": "trainjob",
        "GRAFTLINE_RUN": arguments.run,
        "GRAFTLINE_CHECKPOINTS": arguments.store,
        "GRAFTLINE_KEEP_CHECKPOINTS": "1",  # until the output is here: a pod may end before it has handed it over
        "GRAFTLINE_STORE": arguments.store,
        "GRAFTLINE_IMAGE": digest(arguments.image),
    }
    environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return Job(
        run=arguments.run, task=step.task, component=step.component.name, image=arguments.image, pod=pod,
        arguments=[
            "--store", arguments.store, "--run", arguments.run, *inputs, "--out", step.component.output,
            "--", step.component.name, *step.rest,
        ],
        environment=environment,
        processes=max(1, pod.accelerators) if step.component.distributed else 1,
    )  # fmt: skip


def _finish(step: Step, handover: Handover) -> None:
    """Fetch the output, verify it, tell Kubeflow about it."""
    record = handover.get_output(step.component.output, step.out)
    _check_made_by(step, record, handover.prefix)
    if step.executor_output:
        write_executor_output(step.executor_output, step.component.output, step.out, record)


def _check_made_by(step: Step, record: Record, prefix: str) -> None:
    """Refuse an output that was made for another task, of other inputs or with other parameters than this step's."""
    fix = f"delete the TrainJob, and {prefix}/ in the store, then run the step again"
    if (record.task, record.component) != (step.task, step.component.name):
        raise InputError(
            step.out,
            f"a {record.name} of {record.component} for task '{record.task}'",
            expected=f"one of {step.component.name} for task '{step.task}'",
            fix=fix,
        )
    read = {given.name: given.record for given in record.inputs}
    for name, folder in step.inputs.items():
        if read.get(name) != sha256_bytes((folder / RECORD).read_bytes()):
            raise InputError(step.out, f"made of another {name}", expected=f"of {folder}", fix=fix)
    models = parameter_models()
    for name, values in record.parameters.items():
        if section(step.document, "--params", name, models[name]).model_dump(mode="json") != values:
            raise InputError(
                step.out, f"made with other parameters under {name}", expected="those of --params", fix=fix
            )


@contextmanager
def _cancelled() -> Iterator[list[Launch]]:
    """Within, SIGTERM and Ctrl-C cancel the launches in the list that is given, and end the process."""
    launches: list[Launch] = []

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        for launch in launches:
            launch.stop()
        raise SystemExit(EXIT_PREEMPTED)  # no Exception: nothing on the way may take it for a failure

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield launches
    except (SystemExit, KeyboardInterrupt):
        for launch in launches:
            launch.cancel()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
