"""What each pod of a TrainJob runs: fetch the inputs, torchrun with the component's entry point, hand the output over.

    python -m graftline.pipelines.trainjob.pod --store URL --run NAME --in dataset=BUNDLE --out trunk \\
        -- pretrain ARGS...

Kubeflow Trainer tells torchrun about the nodes by PET_NNODES, PET_NODE_RANK, PET_NPROC_PER_NODE, PET_MASTER_ADDR and
PET_MASTER_PORT. torchrun itself ends with 1 whatever happened; this ends with the code of the process that failed
first, so that a pre-emption (75) is told from a bug.

A job must not outlive its run: whoever cancels a run may end the launcher before it has deleted the job. So the pods
listen to the run's heartbeat in the store, and end with a checkpoint when it has been silent for long.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from graftline.component import fail, from_os_error
from graftline.digests import RECORD
from graftline.errors import EXIT_INPUT, EXIT_PREEMPTED, EXIT_REFUSED, GraftlineError
from graftline.pipelines.trainjob.handover import Handover, silent_seconds
from graftline.store import open_store
from graftline.training.preemption import ends_at_once, outlive_readers

_NAME = "trainjob"


def main(argv: list[str] | None = None) -> None:
    """Do this pod's part of a job and exit with the code of the component."""
    outlive_readers()
    try:
        with ends_at_once(_NAME):
            sys.exit(_run(_parser().parse_args(argv)))
    except GraftlineError as error:
        sys.exit(fail(_NAME, error))
    except OSError as error:
        sys.exit(fail(_NAME, from_os_error(error)))


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
    threading.Thread(target=listen, args=(handover, silent_seconds()), name="heartbeat", daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="graftline-") as home:
        out = Path(home, arguments.out)
        folders = [f"--out-{arguments.out}", str(out)]
        for given in arguments.inputs:
            name, _, bundle = given.partition("=")
            handover.get_input(bundle, Path(home, "in", name))
            folders += [f"--in-{name}", str(Path(home, "in", name))]
        code = torchrun(f"graftline.components.{arguments.component}", [*arguments.arguments, *folders])
        if code == 0 and (out / RECORD).exists():  # on the leader's machine only
            handover.put_output(out)
    return code


def listen(handover: Handover, limit: float) -> None:
    """Send this process SIGTERM when the heartbeat has been silent for `limit` seconds, by this machine's clock.

    A store that cannot be read is no silence: its outage keeps the launcher from beating too, so the time begins anew
    when it answers again. It is taken for the end after twice the time: till then nothing that the job makes gets out.
    """
    seen, changed = "", time.monotonic()
    read = changed
    while True:
        time.sleep(limit / 10)
        try:
            beat, now = handover.last_beat(), time.monotonic()
        except (GraftlineError, OSError):
            if time.monotonic() - read <= 2 * limit:
                continue
            why = f"the store has not answered for {2 * limit:g} s"
            break
        if beat != seen or now - read > limit / 2:
            seen, changed = beat, now
        read = now
        if now - changed > limit:
            why = f"nobody has followed this job for {limit:g} s: its run was ended, or its launcher is lost"
            break
    print(f"{_NAME}: {why}; a checkpoint, then the end", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def torchrun(module: str, arguments: list[str]) -> int:
    """Run a module as the processes that PET_* describe; return 0 or the exit code of the one that failed first.

    128 + n for one that signal n ended, 75 if this process was told to end.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        try:
            run(parse_args(["--module", module, *arguments]))
            code = 0
        except ChildFailedError as error:
            code = _exit_code(error.get_first_failure()[1].exitcode)
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # torchrun's handler is still there: nothing is left to stop
    except SignalException:  # torchrun has passed it on and waited: the leader has written its checkpoint
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return EXIT_PREEMPTED
    return code


def _exit_code(status: int) -> int:
    if status < 0:
        return 128 - status
    return status if status in (EXIT_INPUT, EXIT_REFUSED, EXIT_PREEMPTED) else 1


if __name__ == "__main__":
    main()
