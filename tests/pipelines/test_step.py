"""The runner of every step: real processes, a real store, the executor input as the launcher gives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forked
import pytest

from graftline import runs
from graftline.errors import InputError
from graftline.executor_input import read_executor_input
from graftline.pipelines.step import Plan, command
from graftline.store import Store
from graftline.store.opening import open_store

RUN = "5a6bdf78-0000-4000-8000-000000000000"
MADE_BY = "11111111-0000-4000-8000-000000000000"
ONCE = {"retries": {"limit": 1, "backoff_seconds": 1}}
RUNNER = """
import sys, time, types
from graftline.pipelines import step

step.time = types.SimpleNamespace(**vars(time))  # waits between tries pass ten times as fast
step.time.monotonic, step.time.sleep = lambda: 10 * time.monotonic(), lambda seconds: time.sleep(seconds / 10)
ordinary = step.command
step.command = lambda *given: [sys.executable, {program!r}, *ordinary(*given)[3:]]
step.main()
"""
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path

home = Path({home!r})
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
tries = home / "tries"
with tries.open("a") as file:
    print(json.dumps(given | {{"environment": dict(os.environ)}}), file=file)
number = len(tries.read_text().splitlines())
{body}
"""
MAKES = """
out = Path(given["--out-trunk"])
out.mkdir(parents=True, exist_ok=True)
(out / "record.json").write_text("{}")
told = {"artifacts": {"trunk": {"artifacts": [{"name": "trunk", "uri": str(out), "metadata": {"record": "c" * 64}}]}},
        "parameterValues": {"record": "c" * 64}}
Path(given["--executor-output"]).write_text(json.dumps(told))
"""


@dataclass
class Bench:
    """A place to run the step `pretrain` in, with a program of the test's in the place of the component."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return open_store(str(self.home / "store"))

    def words(self, step: str = "pretrain") -> list[runs.Attempt]:
        return runs.attempts(self.store, RUN, step)

    def tries(self) -> list[dict[str, Any]]:
        """Return what each start of the program was given."""
        path = self.home / "tries"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def start(self, body: str, plan: dict[str, Any] | None = None) -> subprocess.Popen[str]:
        program, runner = self.home / "program.py", self.home / "runner.py"
        program.write_text(PROGRAM.format(home=str(self.home), body=body))
        runner.write_text(RUNNER.format(program=str(program)))
        return forked.Popen(
            [sys.executable, str(runner), "pretrain", "--executor-input", json.dumps(self.given())],
            env=self.environment | {"GRAFTLINE_STEP": json.dumps(plan or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, body: str, plan: dict[str, Any] | None = None) -> tuple[int, str]:
        """Run the step to its end; return its exit code and what it said."""
        process = self.start(body, plan)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def given(self) -> dict[str, Any]:
        """Return an executor input as a real launcher gave it: with its own log among the outputs."""
        home = str(self.home)
        return {
            "inputs": {
                "parameterValues": {"params": '{"task": "toy"}', "store": f"{home}/store", "cache_dataset": "b" * 64},
                "artifacts": {
                    "dataset": {
                        "artifacts": [
                            {
                                "name": "projects/1/artifacts/7",
                                "uri": f"{home}/dataset",
                                "type": {},
                                "metadata": {"record": "b" * 64, "run": MADE_BY, "sha256": "a" * 64},
                            }
                        ]
                    }
                },
            },
            "outputs": {
                "artifacts": {
                    "trunk": {"artifacts": [{"uri": f"{home}/trunk", "type": {}}]},
                    "executor-logs": {"artifacts": [{"uri": f"{home}/executor-logs-0"}]},
                },
                "parameters": {"record": {"outputFile": f"{home}/parameters/record"}},
                "outputFile": f"{home}/executor_output.json",
            },
        }


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    pod = {"GRAFTLINE_POD": "retrain-toy-x1", "GRAFTLINE_NODE": "node-7", "GRAFTLINE_IMAGE": "sha256:" + "1" * 64}
    yield Bench(tmp_path, environment | pod | {"GRAFTLINE_RUN": RUN})


def test_a_step_that_is_done_leaves_its_word_and_says_in_its_output_which_run_made_it(bench: Bench) -> None:
    """K4, K28: the word has pod, node, image and where each input came from; the next step reads the run's id."""
    code, said = bench.run(MAKES + 'print("pretrain: 3 of 3 steps", file=sys.stderr)')
    assert (code, said) == (0, "pretrain: 3 of 3 steps\n")
    (word,) = bench.words()
    assert (word.code, word.line, word.number, word.round) == (0, "", 1, 0)
    assert (word.pod, word.node, word.image) == ("retrain-toy-x1", "node-7", "sha256:" + "1" * 64)
    assert word.record == "c" * 64
    assert word.inputs == {"dataset": runs.Source("b" * 64, MADE_BY)}
    assert word.started <= word.ended
    told = json.loads((bench.home / "executor_output.json").read_text())
    assert told["artifacts"]["trunk"]["artifacts"][0]["metadata"] == {"record": "c" * 64, "run": RUN}


def test_a_program_gets_its_ordinary_arguments(bench: Bench) -> None:
    """K1, K3: of the executor input; what is for the cache alone, or the launcher's own, is none."""
    bench.run(MAKES, {"checkpoint_seconds": 30})
    (given,) = bench.tries()
    environment = given.pop("environment")
    assert given == {
        "--params": '{"task": "toy"}',
        "--in-dataset": f"{bench.home}/dataset",
        "--out-trunk": f"{bench.home}/trunk",
        "--executor-output": f"{bench.home}/executor_output.json",
        "--checkpoint-seconds": "30",
    }
    assert environment["GRAFTLINE_STORE"] == environment["GRAFTLINE_CHECKPOINTS"] == f"{bench.home}/store"


@pytest.mark.parametrize("code", [2, 3])
def test_what_no_repeat_can_help_is_tried_once_however_often_argo_starts_the_pod(bench: Bench, code: int) -> None:
    """K6: under `Always` the defaults nest to 243 starts."""
    body = f'print("pretrain: the data is bad", file=sys.stderr); sys.exit({code})'
    for _ in range(5):
        assert bench.run(body, ONCE) == (code, "pretrain: the data is bad\n")
    assert len(bench.tries()) == 1
    assert [(word.code, word.line) for word in bench.words()] == [(code, "pretrain: the data is bad")]


def test_a_failure_is_tried_again_in_place(bench: Bench) -> None:
    body = f'if number == 1: sys.exit("pretrain: a hiccup")\n{MAKES}'
    code, said = bench.run(body, ONCE)
    assert code == 0
    assert said == "pretrain: a hiccup\npretrain: tried again in 1 s\n"
    assert [(word.code, word.line, word.number) for word in bench.words()] == [(1, "pretrain: a hiccup", 1), (0, "", 2)]


def test_a_budget_that_is_spent_stays_spent(bench: Bench) -> None:
    for _ in range(3):
        code, said = bench.run('sys.exit("pretrain: no luck")', ONCE)
        assert code == 1
        assert said.splitlines()[-1] == "pretrain: no luck"
    assert len(bench.tries()) == 2
    assert [word.code for word in bench.words()] == [1, 1]


def test_a_pre_emption_is_no_failure_and_ends_the_start(bench: Bench) -> None:
    for _ in range(3):
        assert bench.run("sys.exit(75)", ONCE)[0] == 75
    assert len(bench.tries()) == 3
    assert bench.run(MAKES, ONCE)[0] == 0


def test_a_person_who_retries_a_run_begins_a_new_budget(bench: Bench) -> None:
    """K14: the exit handler does not run again, so it is the step that notes that the run is at work once more."""
    bench.run("sys.exit(3)")
    start = runs.Start(RUN, "k" * 64, "toy")
    runs.conclude(bench.store, runs.End(start, "REFUSED"))
    assert runs.open_runs(bench.store) == []
    assert bench.run(MAKES)[0] == 0
    assert [(word.code, word.round) for word in bench.words()] == [(3, 0), (0, 1)]
    assert runs.open_runs(bench.store) == [start]


def test_a_stack_trace_is_said_by_its_last_line(bench: Bench) -> None:
    code, _ = bench.run('print("pretrain: step 1", file=sys.stderr)\nraise ValueError("a bug")')
    assert (code, bench.words()[0].line) == (1, "ValueError: a bug")


def test_a_program_that_was_killed_says_so(bench: Bench) -> None:
    """K35: killed for memory, a run said nothing."""
    code, said = bench.run("os.kill(os.getpid(), signal.SIGKILL)")
    (word,) = bench.words()
    assert (code, word.code) == (1, 137)
    assert word.line == said.rstrip("\n")
    assert "memory_gib" in word.line


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("sys.exit(1)", "pretrain: ended with exit code 1"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "pretrain: ended by SIGABRT"),
        ('sys.stderr.write("trainjob toy: failed\\nany more")\nsys.exit(1)', "trainjob toy: failed"),
        ('sys.stderr.write("10%\\r20%\\r\\n  \\n")\nsys.exit(1)', "20%"),
    ],
)
def test_there_is_always_a_line(bench: Bench, body: str, line: str) -> None:
    assert bench.run(body)[0] == 1
    assert bench.words()[0].line == line


def test_what_a_try_leaves_behind_is_ended_before_the_next(bench: Bench) -> None:
    """A worker that goes on would hold the accelerator's memory."""
    body = f"""
import subprocess
if number == 1:
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (home / "worker").write_text(str(worker.pid))
    os._exit(1)
place = Path("/proc", (home / "worker").read_text() if number > 1 else "none", "cmdline")
assert not place.exists() or "sleep" not in place.read_text()
{MAKES}"""
    assert bench.run(body, ONCE)[0] == 0


@pytest.mark.parametrize("body", ["pass", 'Path(given["--out-trunk"]).mkdir()', MAKES.partition("told =")[0]])
def test_a_step_that_says_done_without_its_output_has_failed(bench: Bench, body: str) -> None:
    code, said = bench.run(body)
    (word,) = bench.words()
    assert (code, word.code, word.line) == (1, 1, said.rstrip("\n"))
    assert "ended with 0, but" in word.line


def test_a_try_that_takes_too_long_is_ended(bench: Bench) -> None:
    code, _ = bench.run("time.sleep(60)", {"timeout_seconds": 0.5})
    assert code == 1
    assert bench.words()[0].line == "pretrain: took longer than 0.5 s, the `timeout_hours` of its profile"


TRAINS = """
def checkpoint(*_):
    print("pretrain: SIGTERM; a checkpoint follows this step", file=sys.stderr, flush=True)
    (home / "checkpoint").write_text("whole")
    sys.exit(75)

signal.signal(signal.SIGTERM, checkpoint)
(home / "ready").touch()
time.sleep(60)
"""


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.01)


@pytest.mark.parametrize("reader", [True, False])
def test_sigterm_is_passed_on_and_the_word_follows_the_deed(bench: Bench, reader: bool) -> None:
    """K7: stderr has no reader any more, and the container lives for less than a second."""
    process = bench.start(TRAINS, ONCE)
    wait_for(bench.home / "ready")
    assert process.stderr and process.stdout
    if not reader:
        process.stderr.close()
        process.stdout.close()
    process.send_signal(signal.SIGTERM)
    if reader:
        _, said = process.communicate(timeout=60)
        assert said == "pretrain: SIGTERM; a checkpoint follows this step\n"
        assert process.returncode == 75
    else:
        wait_for(bench.home / f"store/runs/steps/{RUN}/pretrain.1.json")
        process.kill()
        process.wait()
    assert (bench.home / "checkpoint").read_text() == "whole"
    (word,) = bench.words()
    assert (word.code, word.line) == (75, "pretrain: SIGTERM; a checkpoint follows this step")
    assert len(bench.tries()) == 1


def test_sigterm_while_it_waits_to_try_again_ends_it(bench: Bench) -> None:
    process = bench.start('sys.exit("pretrain: no luck")', {"retries": {"limit": 1, "backoff_seconds": 60}})
    assert process.stderr
    while "tried again" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert [word.code for word in bench.words()] == [1]


def test_a_store_that_may_not_be_used_is_said_in_one_line(bench: Bench) -> None:
    """K10: the secret is wrong."""
    bench.environment |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(bench.home)}
    given = bench.given()
    given["inputs"]["parameterValues"]["store"] = "s3://bucket/prefix"
    bench.given = lambda: given  # type: ignore[method-assign]
    code, said = bench.run(MAKES)
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith("pretrain: store s3://bucket/prefix: no credentials")
    assert not bench.tries()


def test_a_word_that_cannot_be_stored_hides_nothing_of_how_the_step_ended(bench: Bench) -> None:
    body = """
import shutil
shutil.rmtree(home / "store", ignore_errors=True)
(home / "store").write_text("no folder")
sys.exit("pretrain: no luck")
"""
    code, said = bench.run(body)
    lines = said.splitlines()
    assert (code, lines[0], lines[-1]) == (1, "pretrain: no luck", "pretrain: no luck")
    assert "how it ended is not in the store" in lines[1]


def test_the_real_claim_and_fetch_are_steps(bench: Bench, tmp_path: Path) -> None:
    parameters = {
        "task": "toy",
        "store": f"{tmp_path}/store",
        "run_key": "",
        "version": "v",
        "revision": "r",
        "data_digest": "d",
        "reason": "",
    }
    fetched = {"repository": "/nowhere", "revision": "work-tree", "task": "toy", "digest": "d"}
    outputs = {name: {"artifacts": [{"uri": f"{tmp_path}/{name}"}]} for name in ("raw", "expectations")}
    for step, given, code in (
        ("claim", {"inputs": {"parameterValues": parameters}}, 0),
        (
            "fetch",
            {
                "inputs": {"parameterValues": fetched | {"store": f"{tmp_path}/store"}},
                "outputs": {"artifacts": outputs},
            },
            2,
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "graftline.pipelines.step", step, "--executor-input", json.dumps(given)],
            env=bench.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        (word,) = bench.words(step)
        assert (word.code, word.line) == (code, done.stderr.strip())
    assert [start.key for start in runs.open_runs(bench.store)] == [RUN], "a run that a person began in the page"


def test_the_runner_is_light() -> None:
    """It starts with every container, and in the image without torch (K20)."""
    code = "import sys; import graftline.pipelines.step; print({'torch', 'numpy', 'kfp', 'boto3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://bucket/a/b", "/gcs/bucket/a/b"),
        ("minio://mlpipeline/v2/a", "/minio/mlpipeline/v2/a"),
        ("s3://bucket/a", "/s3/bucket/a"),
        ("/work/a", "/work/a"),
    ],
)
def test_an_artifact_lies_where_the_launcher_keeps_it(uri: str, path: str) -> None:
    given = {"outputs": {"artifacts": {"trunk": {"artifacts": [{"uri": uri}]}}}}
    assert str(read_executor_input(json.dumps(given)).outputs["trunk"]) == path


@pytest.mark.parametrize(
    "text",
    ["{{$}}", "[]", '{"inputs": 1}', '{"inputs": {"parameterValues": 3}}', '{"outputs": {"artifacts": {"a": {}}}}'],
)
def test_what_is_no_executor_input_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--executor-input"):
        read_executor_input(text)


def test_the_words_of_an_exit_handler_are_passed_on_as_json() -> None:
    """K11: its status arrives as a structure."""
    status = {"state": "RUNNING", "pipelineTaskName": "exit-handler-1", "error": {"code": 0, "message": ""}}
    given = {"inputs": {"parameterValues": {"status": status, "store": "s3://bucket/a"}}}
    flags = command("conclude", read_executor_input(json.dumps(given)), Plan())[3:]
    assert flags[::2] == ["--status", "--store"]
    assert json.loads(flags[1]) == status


def test_a_stage_with_a_job_of_its_own_is_launched() -> None:
    given = {"inputs": {"parameterValues": {"params": "{}", "store": "s3://bucket/a"}}}
    started = command("evaluate", read_executor_input(json.dumps(given)), Plan(trainjob=("--image", "i")))
    assert started[1:] == [
        "-m", "graftline.pipelines.trainjob", "--image", "i", "evaluate", "--params", "{}", "--store", "s3://bucket/a",
    ]  # fmt: skip


def test_several_processes_end_with_the_code_of_the_one_that_failed_first(bench: Bench) -> None:
    """torchrun's own command ends with 1 whatever happened, and a refusal would be tried again."""
    started = command("pretrain", read_executor_input(json.dumps(bench.given())), Plan(processes=2))
    assert started[3] == "graftline.components.pretrain"
    (bench.home / "toy.py").write_text(
        "import os, sys, time\nos.environ['RANK'] == '1' or sys.exit(3)\ntime.sleep(60)\n"
    )
    environment = {"PET_STANDALONE": "1", "PET_NPROC_PER_NODE": "2", "PYTHONPATH": str(bench.home)}
    done = subprocess.run([*started[:3], "toy"], env=bench.environment | environment, capture_output=True)
    assert done.returncode == 3, done.stderr
