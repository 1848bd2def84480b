"""One class a clip, from a folder to a release that opens without Graftline; and the same for whoever asks.

What it learns here lies in tests/learning/small_clips.py.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small_clips
from commands import Done, on_store

from graftline.dataset import read_schema
from graftline.problems.model import load_model
from graftline.problems.registry import make_problem, parse_params
from graftline.problems.sequence_classification.clips import ClipClassifier, OnClips
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.values.audio import AudioColumn

ALONE = """
import json, sys
sys.modules["graftline"] = None
import soundfile, torch, transformers
torch.set_num_threads(1)
folder, clips = sys.argv[1], sys.argv[2:]
model = transformers.HubertForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
read = [soundfile.read(clip) for clip in clips]
assert all(rate == extractor.sampling_rate for _, rate in read)
taken = extractor([values for values, _ in read], sampling_rate=8000, padding=True, return_tensors="pt")
with torch.no_grad():
    shares = model(**taken).logits.softmax(1)
print(json.dumps({"names": model.config.id2label, "shares": shares.tolist()}))
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clips.released(tmp_path_factory.getbasetemp())


@pytest.fixture
def graftline(
    released: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    return on_store(released / "store", monkeypatch, capsys)


@pytest.fixture(scope="module")
def params() -> SequenceClassificationParams:
    return SequenceClassificationParams()


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_release_opens_without_graftline_and_says_the_same(
    released: Path, graftline: Callable[..., Done], tmp_path: Path
) -> None:
    clips = [released / "raw" / voice / f"{n:02}.ogg" for voice, n in (("m1", 0), ("f1", 1), ("f4", 2))]
    command = [sys.executable, "-I", "-c", ALONE, str(released / "store/releases/digits/1"), *map(str, clips)]
    done = forked.run(command, text=True)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    code, out, error = graftline("predict", "digits@1", *map(str, clips), "--json")
    assert (code, error) == (0, "")
    names = [theirs["names"][str(n)] for n in range(3)]
    ours = [[answer["probabilities"][name] for name in names] for answer in json.loads(out)]
    assert np.abs(np.array(ours) - np.array(theirs["shares"])).max() < 1e-4


def test_a_person_asks_about_a_folder(released: Path, graftline: Callable[..., Done], tmp_path: Path) -> None:
    for number in (0, 1):
        shutil.copyfile(released / "raw/f1" / f"{number:02}.ogg", tmp_path / f"{number}.ogg")
    (tmp_path / "cut.ogg").write_bytes((tmp_path / "0.ogg").read_bytes()[:-50])
    code, out, error = graftline("predict", "digits@1", str(tmp_path))
    assert code == 0 and out.count(".ogg") == 2 and "cut.ogg (truncated)" in error


def test_an_answer_is_its_clips_alone_whatever_it_is_asked_with(released: Path) -> None:
    model = load_model(released / "model")
    assert isinstance(model, ClipClassifier)
    problem = make_problem(parse_params({"name": "sequence_classification"}), read_schema(released / "dataset"))
    test = problem.read(released / "dataset", "test", released / "model")
    whole = model.logits(test)
    alone = torch.cat([model.logits(test.take(torch.tensor([n]))) for n in range(len(test))])
    assert torch.allclose(whole, alone, atol=1e-4) and len(set(test.lengths.tolist())) > 3


def test_the_head_is_chosen_by_the_column(released: Path) -> None:
    schema = read_schema(released / "dataset")
    assert isinstance(schema.feature, AudioColumn)
    assert isinstance(make_problem(SequenceClassificationParams(), schema), OnClips)


def test_both_arms_of_the_lift_begin_with_equal_heads(released: Path, params: SequenceClassificationParams) -> None:
    problem, schema = OnClips(params), read_schema(released / "dataset")
    started = []
    for scratch in (False, True):
        torch.manual_seed(3)
        started.append(problem.build(released / "trunk", schema, scratch=scratch))
    ours, other = (dict(model.network.named_parameters()) for model in started)
    assert all((ours[name] == other[name]).all() for name in started[0]._new)
    assert not all((ours[name] == other[name]).all() for name in ours)
    assert not ours["classifier.weight"].any()


def test_the_objective_goes_on_beside_the_head(released: Path, params: SequenceClassificationParams) -> None:
    problem, schema = OnClips(params), read_schema(released / "dataset")
    model = problem.build(released / "trunk", schema, scratch=False)
    pool = problem.read(released / "dataset", "unlabelled", released / "trunk")
    losses = {}
    for scratch in (False, True):
        joint = problem.joint(released / "trunk", model, pool, 8, scratch=scratch)
        losses[scratch] = joint.loss(0, 1).item()
        assert joint.loss(0, 1).item() == losses[scratch], "a pure function of seed and step"
    assert losses[False] < losses[True]


def test_adapters_are_merged_into_what_opens_anywhere(released: Path, tmp_path: Path) -> None:
    problem = OnClips(SequenceClassificationParams.model_validate({"lora": {"rank": 2}}))
    schema, dataset = read_schema(released / "dataset"), released / "dataset"
    model = problem.build(released / "trunk", schema, scratch=False)
    examples = problem.read(dataset, "train", released / "trunk").take(torch.arange(6))
    model.loss(examples, 0, 0).backward()
    learning = [name for name, weight in model.network.named_parameters() if weight.grad is not None]
    assert learning and all("lora_" in name or name in model._new for name in learning)
    loaded = problem.load(tmp_path, {**model.save(tmp_path), "classes": small_clips.VOICES})
    assert isinstance(loaded, ClipClassifier) and isinstance(model, ClipClassifier)
    assert torch.allclose(loaded.logits(examples), model.logits(examples), atol=1e-5)


def test_what_is_shown_of_the_answers(released: Path) -> None:
    assert {row["class"] for row in load(released / "evaluation/classes.json")} == set(small_clips.VOICES)
    assert (released / "evaluation/mistakes.png").is_file(), "spectrograms"
