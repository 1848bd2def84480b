"""Two real processes, which torchrun starts, share the batch of every head: the gradient is that of one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import finetune_team
import small
import small_detectors
import small_numbers
import small_pairs
import small_questions
import small_ratings
import small_scenes
import small_sets
import small_speech
import small_tags
import small_text
import small_vision
from test_distributed import torchrun

from graftline.learning.batch_norm import BatchNorm2d
from graftline.learning.metrics import read_metrics

STEP = {"epochs": 1, "batch": 25, "min_steps": 1, "warmup_steps": 0, "patience": None, "trunk_rate": 1.0}
HEADS: dict[str, dict[str, Any]] = {
    "images": {"head": {"name": "image_classification"}, "joint_weight": 0.5},
    "documents": {"head": {"name": "sequence_classification", "label_smoothing": 0.1}, "joint_weight": 0.5},
    "pairs": {"head": {"name": "pair_classification"}, "joint_weight": 0.5},
    "questions": {"head": small_questions.FINETUNE["head"], "joint_weight": 0.5},
    "words": {"head": {"name": "token_classification"}},
    "writing": {"head": {"name": "text_generation"}},
    "sets of pictures": {"head": {"name": "multi_label"}, "joint_weight": 0.5},
    "sets of sentences": {"head": {"name": "multi_label", "label_smoothing": 0.1}, "joint_weight": 0.5},
    "images in contrast": {"head": {"name": "image_classification"}, "joint_weight": 0.5},
    "images by a resnet": {"head": {"name": "image_classification", "precision": "float32"}, "joint_weight": 0.5},
    "numbers of images": {"head": {"name": "image_regression"}},
    "numbers of texts": {"head": {"name": "text_regression"}},
    "objects in images": {"head": {**small_scenes.HEAD, "precision": "float32"}, "joint_weight": 0.5},
    "objects by queries": {"head": {"name": "detection", "precision": "float32"}},
    "speech": {"head": small_speech.FINETUNE["head"], "joint_weight": 0.5},
    "ratings": {"head": {"name": "rating"}, "joint_weight": 0.5},
}
ROUNDING = {"objects in images": 4e-6}
"""The trunk normalises empty ground, whose channels are nearly equal: that multiplies what float32 rounds. A batch that
is shared wrongly is off by percents."""


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory, dataset: Path, trunk: Path) -> tuple[Path, Path]:
    """Return the folders with what one process and what two made of a step of each head."""
    home = tmp_path_factory.getbasetemp()
    text, tags = small_text.dataset(home), small_tags.dataset(home)
    places = {
        "images": (dataset, trunk), "documents": (text, small_text.trunk(home)),
        "pairs": (small_pairs.dataset(home), small_text.trunk(home)),
        "questions": (small_questions.dataset(home), small_questions.trunk(home)),
        "words": (tags, small_tags.trunk(home)), "writing": (text, small_text.causal_trunk(home)),
        **{
            f"sets of {task}": (small_sets.dataset(home, task), small_sets.trunk(home, task))
            for task in small_sets.PARAMS
        },
        "images in contrast": (dataset, small.contrastive_trunk(home)),
        "images by a resnet": (dataset, small_vision.trunk(home, "resnet")),
        "numbers of images": (small_numbers.dataset(home, "images"), trunk),
        "speech": (small_speech.dataset(home), small_speech.trunk(home)),
        "numbers of texts": (small_numbers.dataset(home, "texts"), small_text.trunk(home)),
        "objects in images": (small_scenes.dataset(home), small_scenes.trunk(home, "convnextv2")),
        "ratings": (small_ratings.dataset(home), small_ratings.still_trunk(home)),
        "objects by queries": (small_scenes.dataset(home), small_detectors.trunk(home, "yolos")),
    }  # fmt: skip
    precision = {name: {} if "image" in name or "objects" in name else {"precision": "float32"} for name in HEADS}
    plans = [
        {
            "name": name,
            "dataset": str(places[name][0]),
            "trunk": str(places[name][1]),
            "finetune": {**STEP, **values, "head": {**values["head"], **precision[name]}},
        }
        for name, values in HEADS.items()
    ]
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    command = [sys.executable, finetune_team.__file__, str(alone), json.dumps(plans)]
    done = forked.run(command)
    assert done.returncode == 0, done.stderr
    torchrun([finetune_team.__file__, str(together), json.dumps(plans)])
    return alone, together


@pytest.mark.parametrize("name", HEADS)
def test_two_processes_step_as_one_does(name: str, steps: tuple[Path, Path]) -> None:
    one, two = (load_file(folder / f"{name}.safetensors") for folder in steps)
    assert one.keys() == two.keys()
    furthest = max(float(one[key].abs().max()) for key in one)  # float32 rounds by a share of what it holds
    bound = ROUNDING.get(name, 1e-6) * max(1.0, furthest)
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < bound
    start = load_file(steps[0] / f"{name}-start.safetensors")
    weights = [key for key, tensor in start.items() if tensor.ndim > 1]
    assert all(not torch.equal(start[key], one[key]) for key in weights), "the loss reaches the whole trunk"
    losses = [read_metrics(folder / name / "metrics.jsonl")[0]["loss"] for folder in steps]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6, abs=1e-6)


def test_on_one_process_batch_normalisation_is_torchs_bit_for_bit() -> None:
    torch.manual_seed(0)
    ours, theirs, values = BatchNorm2d(3), torch.nn.BatchNorm2d(3), torch.randn(5, 3, 4, 4)
    for _ in range(2):
        assert torch.equal(ours(values), theirs(values))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
