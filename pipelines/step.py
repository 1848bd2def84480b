"""What every container of a run starts: it stands between Kubeflow's launcher and the step's own program.

    python -m graftline.pipelines.step NAME --executor-input '{{$}}'

It makes the program's arguments of the executor input, starts it, and shows what it says. A failure (exit code 1, a
signal) is tried again here, as often and as late as the profile says: Argo knows of no exit code but its launcher's 1,
and its defaults may start a pod again that no repeat can help. What ended for good stays ended, whoever starts the pod
again: earlier words of the same round are read first. The last deed of each try is the step's word in the store
(runs.Attempt). SIGTERM is passed on at once, and the word follows the deed.
Exit codes are the program's: 0 done, 2 bad input, 3 refused, 75 pre-empted, 1 anything else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType
from typing import IO, Any

from graftline import runs
from graftline.component import exits
from graftline.digests import RECORD
from graftline.errors import EXIT_INPUT, EXIT_PREEMPTED, EXIT_REFUSED, GraftlineError, InputError
from graftline.executor_input import ExecutorInput, read_executor_input
from graftline.executor_output import add_run
from graftline.profiles import STEPS, Retries
from graftline.store import Store
from graftline.store.opening import open_store
from graftline.tasks.parameters import COMPONENTS, Params, parse
from graftline.yamlfile import parse_json

PLAN = "GRAFTLINE_STEP"
"""The variable with the plan, as JSON. Kubeflow's cache compares a step's command, and no variable: where a step runs
decides nothing about what it makes."""
_WITHOUT_STORE = ("fetch", "pretrain", "finetune")
"""The steps whose program takes no --store."""
_FOR_THE_CACHE = "cache_"
"""Parameters that begin so are no argument: Kubeflow's cache compares parameters, and no content of artifacts."""
_FINAL = (EXIT_INPUT, EXIT_REFUSED)
"""The same again would give the same."""
_GRACE_SECONDS = 30.0
"""Of a try that takes too long."""
_TORCHRUN = """import sys
from graftline.pipelines.trainjob.pod import torchrun
sys.exit(torchrun(sys.argv[1], sys.argv[2:]))"""
"""Unlike torchrun's own command, which ends with 1 whatever happened."""


class Plan(Params):
    """How a step is run where it runs: part of its profile's pod, nothing of what it makes."""

    retries: Retries = Retries()
    timeout_seconds: float | None = None
    """A try that takes longer is stopped, and has failed."""
    checkpoint_seconds: float | None = None
    """Between the checkpoints of a stage that trains in this pod; they go to the store."""
    processes: int = 1
    """That torchrun starts."""
    trainjob: tuple[str, ...] = ()
    """Arguments of `python -m graftline.pipelines.trainjob` if the stage trains in a job of its own."""


def main(argv: list[str] | None = None) -> None:
    """Run the step and exit with its code."""
    parser = argparse.ArgumentParser(prog="python -m graftline.pipelines.step", description=__doc__)
    parser.add_argument("name", choices=STEPS)
    parser.add_argument("--executor-input", required=True, metavar="JSON", help="what the launcher knows")
    arguments = parser.parse_args(argv)
    with exits(arguments.name):
        given = read_executor_input(arguments.executor_input)
        plan = parse(parse_json(os.environ.get(PLAN) or "{}", where=PLAN), Plan, where=PLAN)
        sys.exit(Step(arguments.name, given, plan).run())


def command(name: str, given: ExecutorInput, plan: Plan) -> list[str]:
    """Return the program that a step is, with its arguments."""
    arguments = [
        word
        for key, value in given.parameters.items()
        if not key.startswith(_FOR_THE_CACHE) and (key != "store" or name not in _WITHOUT_STORE)
        for word in (f"--{key.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value))
    ]
    for key, artifact in given.inputs.items():
        arguments += [f"--in-{key}", str(artifact.path)]
    for key, path in given.outputs.items():
        arguments += [f"--out-{key}", str(path)]
    if given.outputs and given.output_file:
        arguments += ["--executor-output", str(given.output_file)]
    if plan.trainjob:
        return [sys.executable, "-m", "graftline.pipelines.trainjob", *plan.trainjob, name, *arguments]
    if plan.checkpoint_seconds is not None:
        arguments += ["--checkpoint-seconds", f"{plan.checkpoint_seconds:g}"]
    module = f"graftline.{'components' if name in COMPONENTS else 'pipelines'}.{name}"
    start = ["-c", _TORCHRUN] if plan.processes > 1 else ["-m"]
    return [sys.executable, *start, module, *arguments]


class Step:
    """One start of one step's container."""

    def __init__(self, name: str, given: ExecutorInput, plan: Plan) -> None:
        """Raises InputError if the run's id is not known, or its store."""
        self.name, self._given, self._plan = name, given, plan
        self._run = os.environ.get("GRAFTLINE_RUN", "")
        store = str(given.parameters.get("store") or "")
        if not self._run or not store:
            what = "the parameter `store`" if self._run else "GRAFTLINE_RUN"
            raise InputError(what, "not given", fix="the engine names the run and its store")
        self._store: Store = open_store(store)
        self._environment = os.environ | {"GRAFTLINE_STORE": store}
        if plan.trainjob or plan.checkpoint_seconds is not None:
            self._environment["GRAFTLINE_CHECKPOINTS"] = store
        if plan.processes > 1:
            self._environment |= {"PET_STANDALONE": "1", "PET_NPROC_PER_NODE": str(plan.processes)}
        self._round: int | None = None
        self._asked, self._late = threading.Event(), False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Bring the step to its end, tries and waits included; return its exit code.

        Raises:
            InputError: this user may not use the store.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, self._signalled)
        said = self._said()
        if over := self._over(said):
            _say(over.line)
            return _exit_code(over)
        while True:
            said.append(self._keep(self._try()))
            if said[-1].code in (0, EXIT_PREEMPTED) or self._asked.is_set() or self._over(said):
                return _exit_code(said[-1])
            wait = self._plan.retries.wait(sum(_exit_code(attempt) == 1 for attempt in said))
            _say(f"{self.name}: tried again in {wait:g} s")
            until = time.monotonic() + wait
            while time.monotonic() < until:
                time.sleep(0.2)
                if self._asked.is_set():
                    return EXIT_PREEMPTED

    def _said(self) -> list[runs.Attempt]:
        """Return what the step said before in this round."""
        try:
            said = runs.attempts(self._store, self._run, self.name)
            self._round = self._find_round()
        except GraftlineError as error:
            if isinstance(error, InputError):
                raise
            # a store that is away for a while is no reason not to work
            _say(f"{self.name}: what it said before is not known: {error}")
            return []
        return [attempt for attempt in said if attempt.round == self._round]

    def _find_round(self) -> int:
        """Return how often the run has ended. One that has is at work again, unless it is told to stop or concluded."""
        if self.name in ("claim", "conclude"):
            return len(runs.ends(self._store, self._run))
        return runs.begin_again(self._store, self._run)

    def _over(self, said: Sequence[runs.Attempt]) -> runs.Attempt | None:
        """Return the word after which there is no other try; None if there may be one."""
        final = next((attempt for attempt in said if attempt.code in _FINAL), None)
        failed = [attempt for attempt in said if _exit_code(attempt) == 1]
        return final or (failed[-1] if len(failed) > self._plan.retries.limit else None)

    def _try(self) -> runs.Attempt:
        """Run the program once; return the word about it."""
        started, record = _now(), ""
        code, line = self._start()
        if code == 0:
            try:
                record = self._check_outputs()
            except GraftlineError as error:
                code, line = 1, f"{self.name}: {error}"
                _say(line)
        pod, node, image = (os.environ.get(f"GRAFTLINE_{what}", "") for what in ("POD", "NODE", "IMAGE"))
        return runs.Attempt(
            run=self._run, step=self.name, code=code, line=line, started=started, ended=_now(),
            pod=pod, node=node, image=image, record=record,
            inputs={name: _source(artifact.metadata) for name, artifact in self._given.inputs.items()},
        )  # fmt: skip

    def _start(self) -> tuple[int, str]:
        """Start the program and wait for its end; return its exit code, and the line that says why."""
        lines = _Lines(self.name)
        # In a session of its own: Argo signals the whole group, and torchrun takes a second SIGTERM amiss.
        process = subprocess.Popen(
            command(self.name, self._given, self._plan),
            env=self._environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        shown = threading.Thread(target=lines.show, args=(process.stdout,), daemon=True)
        shown.start()
        self._process = process
        if self._asked.is_set():
            process.terminate()
        signal.setitimer(signal.ITIMER_REAL, self._plan.timeout_seconds or 0)
        code = process.wait()  # without a time limit: with one it would notice the end up to 50 ms late
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._process = None
        with suppress(OSError):  # what it left behind would be in the way of the next try
            os.killpg(process.pid, signal.SIGKILL)
        shown.join(1)
        return self._judge(code, lines.line)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        """Pass on what ends the step; end a try that takes too long, first by SIGTERM."""
        if number != signal.SIGALRM:
            self._asked.set()
        elif self._late:
            number = signal.SIGKILL
        else:
            self._late, number = True, signal.SIGTERM
            signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS)
        if self._process:
            self._process.send_signal(number)

    def _judge(self, status: int, line: str) -> tuple[int, str]:
        """Return the exit code that stands for an end, and the line that says why."""
        code, why = status if status >= 0 else 128 - status, ""
        if self._late:
            limit = f"{self._plan.timeout_seconds:g} s, the `timeout_hours` of its profile"
            code, why, self._late = 1, f"took longer than {limit}", False
        elif self._asked.is_set() and code not in (0, *_FINAL):
            code, why = EXIT_PREEMPTED, "" if line else "told to end by SIGTERM"
        elif status == -signal.SIGKILL:
            why = "killed; as a rule it needed more memory than `memory_gib` of its profile"
        elif code and not (line and status > 0):
            why = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {code}"
        if why:
            line = f"{self.name}: {why}"
            _say(line)
        return code, line if code or line.startswith("publish: ") else ""  # which release it equals

    def _check_outputs(self) -> str:
        """Note in the outputs which run made them; return the sha256 of the record. Raises GraftlineError."""
        for output, path in self._given.outputs.items():
            there = path / RECORD if self.name in COMPONENTS else path
            if not there.exists():
                raise GraftlineError(f"ended with 0, but its output {output} is not there: no {there}")
        if not self._given.outputs or not self._given.output_file:
            return ""
        try:
            return add_run(self._given.output_file, self._run)
        except (OSError, ValueError, KeyError) as error:
            raise GraftlineError(f"ended with 0, but told nothing about its outputs: {error}") from None

    def _keep(self, attempt: runs.Attempt) -> runs.Attempt:
        """Store the step's word; that it cannot be stored hides nothing of how the step ended."""
        try:
            if self._round is None:
                self._round = self._find_round()
            return runs.add_attempt(self._store, replace(attempt, round=self._round))
        except (GraftlineError, OSError) as error:
            _say(f"{self.name}: how it ended is not in the store: {error}")
            if attempt.line:
                _say(attempt.line)  # it stays the last one
            return attempt


class _Lines:
    """Shows what a program says, and finds the line that says why it ended."""

    def __init__(self, name: str) -> None:
        self._own = (f"{name}: ", "trainjob: ", "trainjob ")
        self._last = self._said = ""
        self._rest = b""

    @property
    def line(self) -> str:
        """The last line of its own, or the last one if it ended with a stack trace or said nothing itself."""
        self._read(b"\n")
        return self._said or self._last

    def show(self, stream: IO[bytes]) -> None:
        while data := os.read(stream.fileno(), 65_536):
            self._read(data)
            _write(data)

    def _read(self, data: bytes) -> None:
        *lines, self._rest = re.split(rb"[\r\n]+", self._rest[-65_536:] + data)
        for line in (line.decode(errors="replace").strip() for line in lines):
            self._said = line if line.startswith(self._own) else "" if line.startswith("Traceback ") else self._said
            self._last = line or self._last


def _write(data: bytes) -> None:
    """Write all of it, if there is a reader: after SIGTERM the launcher, which was, is gone first."""
    with suppress(OSError):
        while data:
            data = data[os.write(2, data) :]


def _say(line: str) -> None:
    _write(f"{line}\n".encode())


def _source(metadata: Mapping[str, Any]) -> runs.Source:
    record = metadata.get("record") or metadata.get("sha256") or ""
    return runs.Source(record=str(record), run=str(metadata.get("run") or ""))


def _exit_code(attempt: runs.Attempt) -> int:
    return attempt.code if attempt.code in (0, EXIT_PREEMPTED, *_FINAL) else 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    main()
