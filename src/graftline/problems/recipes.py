"""A recipe for new data: which problem its columns make, and parameters that suit its kind and its size.

They are what the shipped tasks were tuned to, scaled so that a run of some thousand rows takes minutes on two cores
and one of some hundred gets through. Each choice says why; docs/log.md has what was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graftline.problems.registry import PARAMETERS
from graftline.trunks.image_parameters import ContrastiveParams
from graftline.yamlnotes import Said

_TOKENS = (2e6, 10e6)
"""Tokens to pretrain on, at least and at most: some minutes on two cores at 13,000 a second; five epochs between."""
_PIXELS = 2.5e8
"""Numbers of pixels to pretrain on, as many as `emoji` has in 20 epochs and `mnist` in 80: 40 to 100 s of CPU time."""
_FRAMES = 7e5
"""Frames of clips to pretrain on: about two minutes on two cores at 6,000 a second."""
_PROBED = Said(20, "labels a class; with fewer the trunk stays as it is, for fine-tuning loses what it knows")
_SOLVED_WIDTH = Said(512, "numbers an image: a head that is solved on them does better than on 128")
_ITEMS = 1.3e6
"""Items to pretrain on: about a minute on two cores."""
_MOST_EPOCHS = 20
_LEAST_TRAIN_SHARE = 0.8
"""Share of the rarest class's rows in train that the lift asks for at most: other rows make another split."""
_MANY_TEST_ROWS = 4000
_UNEQUAL = 10
_PAINTED = ("image_regression", "detection")
"""Heads of images whose trunk learns by painting: a number may be what views cut out and mirrored hide, and boxes ask
for what is where, which an embedding of the whole image need not keep."""
_SMALL_IMAGE = 128
"""Pixels of the longer side up to which boxes are looked for at every fourth pixel, else at every eighth."""


@dataclass(frozen=True)
class Data:
    """What a recipe depends on."""

    features: tuple[dict[str, Any], ...]
    """The rules of each column that a model sees, as in the contract."""
    label: dict[str, Any] | None
    """The label's rules; None without."""
    pool: int
    """Rows without the test rows: what pretraining learns from."""
    train: int
    """Labelled rows to learn from."""
    test: int
    rarest: int
    """Of `train`, those of the rarest class; all of them where a row is of no one class."""
    most: int
    """Likewise of the most frequent class."""
    tokens: float
    """Tokens of a document, about, on average; of a clip its frames of 20 ms."""
    long: float
    """Tokens that 95 of 100 documents do not exceed, about."""


def head_of(features: Sequence[str], label: str | None) -> str | None:
    """Return the problem that columns of these kinds make; None if there is none yet."""
    image, number = tuple(features) == ("image",), label in ("float", "numbers")
    if image and label == "boxes":
        return "detection"
    classes = label in ("integer", "string")
    if label == "labels" and len(features) == 1:
        return "multi_label"
    if image:
        return "image_classification" if classes else "image_regression" if label == "float" else None
    if tuple(features) == ("text", "text"):
        if label is None:
            return "sequence_to_sequence"
        return "question_answering" if label == "span" else "pair_classification" if classes else None
    if tuple(features) == ("audio",):
        return "recognition" if label == "transcript" else "sequence_classification" if classes else None
    if tuple(features) == ("items",):
        return "recommendation" if label is None else None
    if tuple(features) == ("tokens",):
        return "token_classification" if label == "tags" else None
    if tuple(features) == ("text",):
        if label is None:
            return "text_generation"
        return "sequence_classification" if classes else "text_regression" if number else None
    return None


def recipe(data: Data) -> dict[str, Any]:
    """Return the sections pretrain, finetune and evaluate, for the problem that `head_of` names."""
    kinds = [rules["type"] for rules in data.features]
    head = head_of(kinds, data.label["type"] if data.label else None)
    assert head is not None
    if head == "recommendation":
        return {**_histories(data), "evaluate": _evaluate(data, head, images=False)}
    if kinds[0] == "audio":
        return {**_clips(data, head), "evaluate": _evaluate(data, head, images=True)}
    learn = _images(data, head) if kinds[0] == "image" else _texts(data, head)
    return {
        "pretrain": learn,
        "finetune": _finetune(data, head, images=kinds[0] == "image"),
        "evaluate": _evaluate(data, head, images=kinds[0] == "image"),
    }


def _images(data: Data, head: str) -> dict[str, Any]:
    height, width = data.features[0]["shape"]
    channels = 3 if data.features[0].get("mode") == "rgb" else 1
    epochs = _rounded(_PIXELS / max(1, data.pool * height * width * channels), 2, 90)
    size = f"{data.pool:,} images of {height} x {width}"
    if head not in _PAINTED:  # docs/log.md: contrast is ahead of painting
        views = ContrastiveParams().augmentation.model_dump(mode="json", exclude_defaults=True)
        views["flip"] = Said(views["flip"], "the share that is mirrored: 0 where left and right matter, as in writing")
        objective: dict[str, Any] = {"name": "contrastive", "augmentation": views}
    else:
        patch = next(size for size in (4, 2, 1) if height % size == 0 and width % size == 0)
        objective = {"name": "masked_autoencoder", "mask_ratio": 0.5, "patch": patch}
    wide = {"width": _SOLVED_WIDTH} if PARAMETERS[head].probes else {}
    return {
        "objective": objective,
        "trunk": {"name": "conv", **wide},
        "epochs": Said(epochs, f"{size}: some 100 s on two cores at most"),
        "batch": min(128, max(2, data.pool)),
        "learning_rate": 0.002,
    }


def _texts(data: Data, head: str) -> dict[str, Any]:
    corpus = max(1.0, data.pool * data.tokens * len(data.features))
    epochs = min(max(5 * corpus, _TOKENS[0]), _TOKENS[1]) / corpus
    shape = {"layers": 2, "width": 128, "heads": 2, "hidden": 256, "max_length": _longest(data, head)}
    objective, architecture, tokenizer = {"name": "masked_lm", "mask_ratio": 0.3}, "modernbert", "wordpiece"
    if head == "text_generation":
        objective, architecture, tokenizer = {"name": "causal_lm"}, "llama", "bpe"
    elif head == "sequence_to_sequence":
        objective, architecture, tokenizer = {"name": "denoising"}, "mbart", "bpe_mask"
        shape |= {"width": 160, "heads": 4, "hidden": 320}
    return {
        "objective": objective,
        "trunk": {"name": "text", "architecture": architecture, **shape},
        "tokenizer": {"kind": tokenizer, "vocabulary": 4096},
        "epochs": Said(_rounded(epochs, 0.01, _MOST_EPOCHS), f"about {corpus:,.0f} tokens in {data.pool:,} documents"),
        "batch_tokens": 2048 if corpus < 5e5 else 4096,
        "optimizer": "muon",
        "matrix_rate": 0.02,
        "learning_rate": 0.003,
        "weight_decay": 0.0,
        "warmup_steps": 20,
    }


def _histories(data: Data) -> dict[str, Any]:
    items = max(1.0, data.pool * data.tokens)
    epochs = _rounded(_ITEMS / items, 1, _MOST_EPOCHS)
    rates = {"learning_rate": 0.003, "warmup_steps": 50 if epochs * items > 100_000 else 5}
    return {
        "pretrain": {
            "objective": {"name": "masked_items", "mask_ratio": 0.4},
            "trunk": {"name": "items"},
            "epochs": Said(epochs, f"about {items:,.0f} items in {data.pool:,} histories"),
            "batch_tokens": 1024 if items < 1e6 else 4096,
            **rates,
        },
        "finetune": {
            "head": {"name": "recommendation"},
            "epochs": 3,
            "min_steps": 60,
            "batch": 128,
            "learning_rate": 0.003,
            "trunk_rate": 0.33,
            "warmup_steps": 10,
        },
    }


def _clips(data: Data, head: str) -> dict[str, Any]:
    frames = max(1.0, data.pool * data.tokens)
    epochs = _rounded(_FRAMES / frames, 1, _MOST_EPOCHS)
    fast = data.features[0].get("rate", 16_000) > 8000
    strides = {"kernels": [512, 8], "strides": Said([80, 4], "a frame is 20 ms")} if fast else {}
    return {
        "pretrain": {
            "objective": {"name": "masked_units"},
            "trunk": {"name": "hubert", "layers": 2, "hidden": 256, **strides},
            "epochs": Said(epochs, f"about {frames:,.0f} frames in {data.pool:,} clips"),
            "batch_tokens": 3000,
            "optimizer": "muon",
            "matrix_rate": 0.02,
            "learning_rate": 0.002,
            "weight_decay": 0.0,
            "warmup_steps": 20,
        },
        "finetune": {**_finetune(data, head, images=False), "head": {"name": head}},
    }


def _finetune(data: Data, head: str, *, images: bool) -> dict[str, Any]:
    balance: dict[str, Any] = {}
    if data.most > _UNEQUAL * data.rarest:
        why = f"the most frequent class has {data.most // max(1, data.rarest)} times the rows of the rarest"
        balance["balance"] = Said("none", f"{why}: `loss` or `sampling` would have all weigh the same")
    if head == "detection":
        height, width = data.features[0]["shape"]
        stride = 4 if max(height, width) <= _SMALL_IMAGE else 8
        return {
            "head": {
                "name": head,
                "stride": Said(stride, "pixels: at most half the shorter side of the small objects"),
                "augmentation": {"shift": 2, "edge": "repeat", "flip": Said(0.0, "0.5 unless left and right matter")},
            },
            "epochs": 20,
            "min_steps": 150,
            "batch": 16,
            "learning_rate": 0.003,
            "trunk_rate": 0.33,
        }
    if images:
        moved = {} if head == "image_regression" else {"augmentation": {"shift": 2, "edge": "repeat"}}
        few = {"probe_below": _PROBED} if PARAMETERS[head].probes else {}
        return {
            "head": {"name": head, **moved},
            "epochs": 12 if data.train < 20_000 else 5,
            "min_steps": 80,
            "batch": 64,
            **balance,
            "learning_rate": 0.003,
            "trunk_rate": 0.33,
            **few,
        }
    return {
        "head": {"name": head, **_reading(data, head)},
        "epochs": 3 if data.train > 20_000 else 6,
        "min_steps": 150,
        "batch": 64 if data.train > 20_000 else 32,
        **balance,
        "learning_rate": 0.003,
        "trunk_rate": 1.0 if head == "sequence_to_sequence" else 0.33,  # there the trunk is the whole model
        "warmup_steps": 10,
    }


def _reading(data: Data, head: str) -> dict[str, Any]:
    """Return how many tokens a head on text reads at once."""
    cut = _longest(data, head)
    why = f"95 of 100 documents have at most about {data.long:.0f} tokens"
    if head == "question_answering":
        why += "; a longer one is read in windows, which share `stride` tokens"
        return {"max_tokens": Said(cut, why), "max_question_tokens": cut // 4, "stride": cut // 4}
    return {"max_tokens": Said(cut, f"{why}; the rest of a longer one is cut off")}


def _longest(data: Data, head: str) -> int:
    """Return how many tokens a model is to see at once: both texts of a pair, but where it reads one of them."""
    long = data.long * (1 if head == "sequence_to_sequence" else len(data.features))
    return next((size for size in (64, 128, 256) if size >= long), 512)


def _evaluate(data: Data, head: str, *, images: bool) -> dict[str, Any]:
    one_class = data.label is not None and data.label["type"] in ("integer", "string")
    wanted = ((5, 10, 50) if images else (10, 30, 100)) if one_class else (50, 200)
    wanted = (100, 300) if head == "recommendation" else wanted
    most = int(_LEAST_TRAIN_SHARE * data.rarest)
    counts = [count for count in wanted if count <= most] or [max(1, most)]
    who = "the rarest class has" if one_class else "there are"
    rows = {"lift_test_rows": _MANY_TEST_ROWS} if data.test > 2 * _MANY_TEST_ROWS else {}
    amount = "a class" if one_class else "in all"
    floor = "no floor yet: a first run says what can be reached; then write floors, such as " + _floor(head)
    return {
        "lift_labels": Said(counts, f"labels {amount}; {who} about {data.rarest} in train"),
        "lift_seeds": 4,
        **rows,
        "gate": Said({}, floor),
    }


def _floor(head: str) -> str:
    score = PARAMETERS[head].scores[0]
    return f"{{{'floors' if score.higher else 'ceilings'}: {{{score.name}: ...}}}}"


def _rounded(number: float, least: float, most: float) -> float | int:
    """Return the number within bounds with two digits."""
    within = float(f"{min(max(number, least), most):.2g}")
    return int(within) if within.is_integer() else within
