"""What each pod of a TrainJob runs: fetch the inputs, torchrun with the component's entry point, hand the output over.

    python -m graftline.pipelines.trainjob.pod --store URL --run NAME --in dataset=BUNDLE --out trunk \\
        -- pretrain ARGS...

Kubeflow Trainer tells torchrun about the nodes by PET_NNODES, PET_NODE_RANK, PET_NPROC_PER_NODE, PET_MASTER_ADDR and
PET_MASTER_PORT. torchrun itself ends with 1 whatever happened; this ends with the code of the process that failed
first, so that a pre-emption (75) is told from a bug.

A job must not outlive its run: it listens to its launcher's heartbeat (learning/heartbeat.py).
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path

from graftline.component import exits
from graftline.digests import RECORD
from graftline.errors import EXIT_INPUT, EXIT_PREEMPTED, EXIT_REFUSED
from graftline.learning.preemption import ends_at_once, outlive_readers
from graftline.pipelines.trainjob.handover import Handover
from graftline.store.opening import open_store

_NAME = "trainjob"


def main(argv: list[str] | None = None) -> None:
    """Do this pod's part of a job and exit with the code of the component."""
    outlive_readers()
    with exits(_NAME), ends_at_once(_NAME):
        sys.exit(_run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m graftline.pipelines.trainjob.pod", description=__doc__)
    parser.add_argument("--store", required=True, metavar="URL", help="what the folders travel by")
    parser.add_argument("--run", required=True, metavar="NAME", help="what names the run")
    parser.add_argument("--in", action="append", default=[], dest="inputs", metavar="NAME=BUNDLE")
    parser.add_argument("--out", required=True, metavar="NAME", help="the output's name")
    parser.add_argument("component")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the component, without folders")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    handover = Handover(open_store(arguments.store), arguments.run, arguments.component)
    threading.Thread(target=handover.heartbeat.listen, args=(_NAME,), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="graftline-") as home:
        out = Path(home, arguments.out)
        folders = [f"--out-{arguments.out}", str(out)]
        for given in arguments.inputs:
            name, _, bundle = given.partition("=")
            handover.get(bundle, Path(home, "in", name))
            folders += [f"--in-{name}", str(Path(home, "in", name))]
        code = torchrun(f"graftline.components.{arguments.component}", [*arguments.arguments, *folders])
        if code == 0 and (out / RECORD).exists():  # on the leader's machine only
            handover.put_output(out)
    return code


def torchrun(module: str, arguments: list[str]) -> int:
    """Run a module as the processes that PET_* describe; return 0 or the exit code of the one that failed first.

    128 + n for one that signal n ended, 75 if this process was told to end.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    code = 0
    try:
        run(parse_args(["--module", module, *arguments]))
    except ChildFailedError as error:
        code = _exit_code(error.get_first_failure()[1].exitcode)
    except SignalException:  # torchrun has passed it on and waited: the leader has written its checkpoint
        code = EXIT_PREEMPTED
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's handler is still there: nothing is left to stop
    return code


def _exit_code(status: int) -> int:
    if status < 0:
        return 128 - status
    return status if status in (EXIT_INPUT, EXIT_REFUSED, EXIT_PREEMPTED) else 1


if __name__ == "__main__":
    main()
