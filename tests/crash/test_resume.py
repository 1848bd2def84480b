"""pretrain and finetune killed with SIGKILL anywhere, or ended by SIGTERM, and run again: the output has the digest of
an unbroken run.

GRAFTLINE_ALL_CRASHES=1 kills 20 runs of each kind (or GRAFTLINE_KILLS) at random moments, and at every one of a
checkpoint's calls.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_detectors
import small_histories
import small_questions
import small_ratings
import small_scenes
import small_speech
import small_text
import small_vision
import small_writing
from controls import Control, control
from kills import (
    Case,
    Moment,
    Outcome,
    desk_folder,
    experiments,
    finish,
    moments,
    newest_checkpoint,
    run_killed,
    run_unbroken,
    start,
)

from graftline.learning.checkpoint import Checkpoints

ALL = os.environ.get("GRAFTLINE_ALL_CRASHES") == "1"
KILLS = int(os.environ.get("GRAFTLINE_KILLS", "20"))
COMPONENTS = ("pretrain", "finetune")
RENAME, FSYNC, UNLINK, WRITE = "rename,renameat,renameat2", "fsync", "unlink,unlinkat", "write"
# With a checkpoint after each step, the numbers fall into the third and later ones: there is one to go on from.
CALLS = [("pretrain", FSYNC, 19), ("finetune", RENAME, 5), ("pretrain", WRITE, 12)]
if ALL:
    PLACES = (
        [(RENAME, n) for n in range(4, 9)]
        + [(WRITE, n) for n in range(9, 18)]
        + [(FSYNC, n) for n in range(17, 33)]
        + [(UNLINK, n) for n in range(1, 5)]
    )
    CALLS = [(component, *place) for component in COMPONENTS for place in PLACES]


def text_cases(home: Path) -> dict[str, Case]:
    """Return pretraining with both language models and fine-tuning of a classifier, on glosses."""
    dataset, trunk = small_text.dataset(home), small_text.trunk(home)

    def case(component: str, output: str, section: dict[str, Any], *more: str) -> Case:
        text = json.dumps({"task": small.TASK, component: section})
        inputs = ["--params", text, "--in-dataset", str(dataset), *more]
        return Case(component, output, "model.safetensors", inputs)

    finetune = small_text.FINETUNE | {"epochs": 12, "patience": 5}
    return {
        "masked_lm": case("pretrain", "trunk", small_text.PRETRAIN | {"epochs": 6}),
        "causal_lm": case("pretrain", "trunk", small_text.CAUSAL | {"epochs": 6}),
        "sequence_classification": case("finetune", "model", finetune, "--in-trunk", str(trunk)),
    }


def writing_cases(home: Path) -> dict[str, Case]:
    """Return pretraining and fine-tuning of a model that reads a text and writes another, on help texts."""
    inputs = ["--in-dataset", str(small_writing.dataset(home))]
    trunk = ["--in-trunk", str(small_writing.trunk(home))]

    def params(component: str, section: dict[str, Any]) -> list[str]:
        return ["--params", json.dumps({"task": small.TASK, component: section})]

    pretrain, finetune = small_writing.PRETRAIN | {"epochs": 8}, small_writing.FINETUNE | {"epochs": 8}
    return {
        "denoising": Case("pretrain", "trunk", "model.safetensors", [*params("pretrain", pretrain), *inputs]),
        "sequence_to_sequence": Case(
            "finetune", "model", "model.safetensors", [*params("finetune", finetune), *inputs, *trunk]
        ),
    }


def speech_cases(home: Path) -> dict[str, Case]:
    """Return pretraining on clips, and fine-tuning of a model that hears what is said, some frames hidden."""
    pretrain = small_speech.PRETRAIN | {"epochs": 12}
    finetune = small_speech.FINETUNE | {"epochs": 6, "patience": 3}
    inputs = ["--in-dataset", str(small_speech.dataset(home))]
    text = [json.dumps({"task": small.TASK, **section}) for section in ({"pretrain": pretrain}, {"finetune": finetune})]
    trunk = ["--in-trunk", str(small_speech.trunk(home))]
    return {
        "masked_units": Case("pretrain", "trunk", "model.safetensors", ["--params", text[0], *inputs]),
        "recognition": Case("finetune", "model", "model.safetensors", ["--params", text[1], *inputs, *trunk]),
    }


def history_cases(home: Path) -> dict[str, Case]:
    """Return pretraining and fine-tuning on histories of packages."""
    pretrain = small_histories.PARAMS["pretrain"] | {"epochs": 30}
    finetune = small_histories.PARAMS["finetune"] | {"epochs": 12, "patience": 5}
    inputs = ["--in-dataset", str(small_histories.dataset(home))]
    text = [json.dumps({"task": small.TASK, **section}) for section in ({"pretrain": pretrain}, {"finetune": finetune})]
    trunk = ["--in-trunk", str(small_histories.trunk(home))]
    return {
        "masked_items": Case("pretrain", "trunk", "trunk.safetensors", ["--params", text[0], *inputs]),
        "recommendation": Case("finetune", "model", "model.safetensors", ["--params", text[1], *inputs, *trunk]),
    }


def rating_cases(home: Path) -> dict[str, Case]:
    """Return fine-tuning on ratings, whose means are taken before the first step and whose interval after the last."""
    section = small_ratings.PARAMS["finetune"] | {"epochs": 12, "patience": 5}
    text = json.dumps({"task": small.TASK, "finetune": section})
    inputs = ["--in-dataset", str(small_ratings.dataset(home)), "--in-trunk", str(small_ratings.trunk(home))]
    return {"rating": Case("finetune", "model", "model.safetensors", ["--params", text, *inputs])}


def question_cases(home: Path) -> dict[str, Case]:
    """Return fine-tuning on questions, whose threshold is chosen on val after training."""
    section = small_questions.FINETUNE | {"epochs": 3, "patience": 2}
    text = json.dumps({"task": small.TASK, "finetune": section})
    inputs = ["--in-dataset", str(small_questions.dataset(home)), "--in-trunk", str(small_questions.trunk(home))]
    return {"question_answering": Case("finetune", "model", "model.safetensors", ["--params", text, *inputs])}


def vision_cases(home: Path) -> dict[str, Case]:
    """Return pretraining of a residual network, whose running statistics a checkpoint must hold."""
    section = small_vision.params("resnet")["pretrain"] | {"epochs": 8}
    text = json.dumps({"task": small.TASK, "pretrain": section})
    inputs = ["--params", text, "--in-dataset", str(small.dataset(home))]
    return {"masked_image": Case("pretrain", "trunk", "model.safetensors", inputs)}


def scene_cases(home: Path) -> dict[str, Case]:
    """Return fine-tuning of what finds digits in scenes, on a trunk with running statistics and by a detector's own
    queries."""
    dense = small_scenes.params()["finetune"] | {"min_steps": 100}
    queries = {**dense, "head": {"name": "detection"}, "min_steps": 30}
    trunks = {"detection": small_scenes.trunk(home, "conv"), "queries": small_detectors.trunk(home, "rt_detr")}
    found = {}
    for name, section in (("detection", dense), ("queries", queries)):
        text = json.dumps({"task": small.TASK, "finetune": section})
        inputs = ["--in-dataset", str(small_scenes.dataset(home)), "--in-trunk", str(trunks[name])]
        found[name] = Case("finetune", "model", "model.safetensors", ["--params", text, *inputs])
    return found


KINDS: dict[tuple[str, ...], Callable[[Path], dict[str, Case]]] = {
    ("masked_lm", "causal_lm", "sequence_classification"): text_cases,
    ("masked_image",): vision_cases,
    ("denoising", "sequence_to_sequence"): writing_cases,
    ("detection", "queries"): scene_cases,
    ("recognition", "masked_units"): speech_cases,
    ("masked_items", "recommendation"): history_cases,
    ("question_answering",): question_cases,
    ("rating",): rating_cases,
}
SLOW = tuple(name for names in KINDS for name in names)
"""What loads transformers before its first step."""
ALL_KINDS = (*COMPONENTS, *SLOW)


class Controls(dict[str, Control]):
    """The control of each kind of run, made when it is first asked for."""

    def __init__(self, home: Path, folder: Path) -> None:
        super().__init__()
        self._home, self._folder = home, folder
        self._made: dict[str, Case] = {}

    def __missing__(self, name: str) -> Control:
        if name in COMPONENTS:
            self[name] = control(self._home, name)
            return self[name]
        if name not in self._made:
            self._made |= next(make for names, make in KINDS.items() if name in names)(self._home)
        case, new = self._made[name], ALL  # pretrain's and finetune's are always new processes
        self[name] = Control(case, run_unbroken(case, self._folder / name / case.output, new=new))
        return self[name]


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> Controls:
    return Controls(tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("unbroken"))


def check(outcome: Outcome, control: Control) -> None:
    assert outcome.digest == control.unbroken.digest
    assert outcome.resumed_from == outcome.checkpoints, "a later try went on from the newest checkpoint"


@pytest.mark.parametrize("component", (*COMPONENTS, "masked_lm", "masked_image"))
def test_a_run_killed_again_and_again_ends_with_the_digest_of_an_unbroken_one(
    component: str, controls: Controls, tmp_path: Path
) -> None:
    """Four kills of one run, at random moments in this order: training, import, training further on, writing.

    Others than pretrain only in the first and the third.
    """
    control = controls[component]
    drawn = [moment.share for moment in moments(ALL_KINDS.index(component), 4)]
    plan = [
        Moment("training", drawn[0] * 0.5),
        Moment("import", drawn[1]),
        Moment("training", 0.5 + drawn[2] * 0.5),
        Moment("writing", 0),
    ]
    if component != "pretrain" and not ALL:
        plan = plan[::2]
    outcome = run_killed(control.case, tmp_path / control.case.output, control.unbroken, plan)
    check(outcome, control)
    assert outcome.killed == len(plan)
    assert all(step > 0 for step in outcome.resumed_from), "none started from step 0"
    assert outcome.resumed_from == sorted(outcome.resumed_from)


@pytest.mark.skipif(not ALL, reason="takes minutes; GRAFTLINE_ALL_CRASHES=1 runs it")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("component", ALL_KINDS)
def test_runs_killed_at_random_moments_end_with_the_digest_of_an_unbroken_one(
    component: str, controls: Controls, tmp_path: Path
) -> None:
    control = controls[component]
    for outcome in experiments(control.case, tmp_path, control.unbroken, moments(7, KILLS)):
        check(outcome, control)


@pytest.mark.strace
@pytest.mark.parametrize(("component", "calls", "number"), CALLS)
def test_a_run_killed_in_the_middle_of_a_checkpoint_goes_on_from_the_one_before(
    component: str, calls: str, number: int, controls: Controls, tmp_path: Path
) -> None:
    """strace kills the real process at its n-th call of a kind (strace(1), `-e inject`)."""
    control = controls[component]
    out = tmp_path / control.case.output
    process = start(control.case, out, 0, at=(calls, number))
    _, error = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, error
    assert 1 <= newest_checkpoint(out) < 10, "killed at one of the first checkpoints"
    if calls == RENAME:
        assert list((desk_folder(out) / "checkpoints").glob(".*.aside-*")), "a checkpoint was under way"
    outcome = Outcome(killed=1)
    finish(control.case, out, outcome)
    check(outcome, control)
    assert outcome.resumed_from != [0]


def wait_for(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, "it ended before the moment came"
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(0.005)


def preempted(case: Case, out: Path, *, signals: int = 1) -> str:
    """Start a run without checkpoints of its own and end it while it trains; return what it said."""
    process = start(case, out, checkpoint_seconds=1e9)
    metrics = f".{out.name}.work/*/metrics.jsonl"
    wait_for(process, lambda: any(path.stat().st_size for path in out.parent.glob(metrics)))
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 75, error
    assert "Traceback" not in error
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}.aside-*"))
    return error


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_run_that_is_preempted_goes_on_to_the_digest_of_an_unbroken_one(
    component: str, controls: Controls, tmp_path: Path
) -> None:
    case = controls[component].case
    out = tmp_path / "cut" / case.output
    error = preempted(case, out)
    step = newest_checkpoint(out)
    assert step > 0
    line = error.splitlines()[-1]
    assert line.startswith(f"{component}: pre-empted after step {step} of ")
    assert f"run it again to go on from the checkpoint of step {step}, in {desk_folder(out)}" in line
    outcome = Outcome()
    finish(case, out, outcome)
    assert outcome.resumed_from == [step]
    assert outcome.digest == controls[component].unbroken.digest


def test_more_signals_do_not_break_the_checkpoint(
    controls: Controls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "trunk"
    error = preempted(controls["pretrain"].case, out, signals=40)
    assert error.count("a checkpoint follows this step") == 1
    folder = desk_folder(out) / "checkpoints"
    identity = folder.parent.name
    assert len(identity) == 16
    assert not list(folder.glob(".*")), "half a checkpoint"
    found = Checkpoints(folder, "another", 1e9).load()
    assert found is None
    assert "other parameters" in capsys.readouterr().err, "whole: only its identity is another"


def test_a_component_that_is_not_training_ends_at_once(controls: Controls, tmp_path: Path) -> None:
    out = tmp_path / "trunk"
    process = start(controls["pretrain"].case, out)
    wait_for(process, lambda: any(tmp_path.glob(".trunk.aside-*")))
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (75, "pretrain: pre-empted by SIGTERM; run it again\n")
    assert not out.exists()
    assert not list(tmp_path.glob(".trunk.aside-*"))
