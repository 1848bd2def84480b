"""What a bound costs, with a pretrained trunk and without: `python -m bench.privacy_table DATASET TRUNK`.

Fine-tunes from the trunk and from scratch, plainly and with each epsilon, with paired seeds; measures test accuracy,
and the area of the membership attack by a threshold on the loss. Prints a table in Markdown. Every fit is kept
in a file as it ends, so a run that was killed goes on. Noise is drawn by the seed: no model is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from graftline.dataset import read_schema
from graftline.learning.memory import keep_freed_memory
from graftline.learning.randomness import generator, seed_everything
from graftline.privacy.membership import area
from graftline.privacy.parameters import PrivacyParams
from graftline.problems.fit import Data, budget, fit, select, steps_for
from graftline.problems.reading import read_examples
from graftline.problems.registry import make_problem
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.weighing import answer
from graftline.score import t_interval
from graftline.tasks.finetune import FinetuneParams

_HEAD = SequenceClassificationParams()
_ATTACKED = 2000
_ARMS = ("trunk", "scratch")
_HEADER = (
    "labels a class",
    "bound",
    "from the trunk",
    "from scratch",
    "lift, points",
    "attack, trunk",
    "attack, scratch",
    "steps x batch",
)


@dataclass(frozen=True)
class Fitted:
    """One fine-tuning."""

    accuracy: float
    attack: float
    """Area of the membership attack."""
    steps: int
    batch: int
    noise: float
    """Its multiplier; 0 without a bound."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.privacy_table", description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("trunk", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 0], help="labels a class; 0 for all")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.0, 2.0, 8.0], help="0 for no bound")
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--split", choices=("val", "test"), default="test", help="val, with another seed, to tune by")
    parser.add_argument("--test-rows", type=int, default=4000, help="of the split, at most")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="of finetune, such as batch=128")
    parser.add_argument("--out", type=Path, default=Path("build/privacy-table.jsonl"))
    arguments = parser.parse_args()
    more = {name: json.loads(value) for name, _, value in (one.partition("=") for one in arguments.set)}
    lines = [_line(arguments, more, labels, epsilon) for labels in arguments.labels for epsilon in arguments.epsilon]
    print(f"| {' | '.join(_HEADER)} |", "| --- " * len(_HEADER) + "|", *lines, sep="\n")


def _line(arguments: argparse.Namespace, more: dict[str, Any], labels: int, epsilon: float) -> str:
    privacy = PrivacyParams(epsilon=epsilon, delta=arguments.delta, noise="seeded") if epsilon else None
    shipped: dict[str, Any] = {
        "head": _HEAD,
        "epochs": 3,
        "min_steps": 150,
        "learning_rate": 0.003,
        "trunk_rate": 0.33,
        "patience": None,
    }
    params = FinetuneParams(privacy=privacy, **{**shipped, **more})
    pairs = [[_kept(arguments, params, labels, seed, arm) for arm in _ARMS] for seed in arguments.seeds]
    trunk, scratch = ([pair[number] for pair in pairs] for number in range(len(_ARMS)))
    lift = [100 * (a.accuracy - b.accuracy) for a, b in zip(trunk, scratch, strict=True)]
    first = trunk[0]
    cells = (
        str(labels or "all"),
        f"epsilon {epsilon:g}, noise {first.noise:.2f}" if epsilon else "none",
        *(_told([100 * one.accuracy for one in fits], ".1f") for fits in (trunk, scratch)),
        _told(lift, "+.1f"),
        *(_told([one.attack for one in fits], ".3f") for fits in (trunk, scratch)),
        f"{first.steps} x {first.batch}",
    )
    return f"| {' | '.join(cells)} |"


def _told(values: list[float], form: str) -> str:
    if len(values) == 1:
        return f"{values[0]:{form}}"
    one = t_interval(values)
    return f"{one.value:{form}} ({one.low:{form}} to {one.high:{form}})"


def _kept(arguments: argparse.Namespace, params: FinetuneParams, labels: int, seed: int, arm: str) -> Fitted:
    """Return a fit's outcome, from the file if it is there."""
    given = [str(arguments.dataset), str(arguments.trunk), params.model_dump(mode="json")]
    key = json.dumps([*given, labels, seed, arm, arguments.split, arguments.test_rows])
    lines = arguments.out.read_text(encoding="utf-8").splitlines() if arguments.out.is_file() else []
    known = {one["key"]: one["fitted"] for one in map(json.loads, lines)}
    if key in known:
        return Fitted(**known[key])
    fitted = _fit(arguments, params, labels or None, seed, scratch=arm == "scratch")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key, "fitted": asdict(fitted)}) + "\n")
    print(f"{labels or 'all'} labels, seed {seed}, {arm}: {fitted}", file=sys.stderr, flush=True)
    return fitted


def _fit(
    arguments: argparse.Namespace, params: FinetuneParams, labels: int | None, seed: int, *, scratch: bool
) -> Fitted:
    keep_freed_memory()
    schema = read_schema(arguments.dataset)
    train, test = (_read(arguments.dataset, arguments.trunk, split) for split in ("train", arguments.split))
    members, others = select(train, labels, len(schema.classes), seed), _sample(test, arguments.test_rows)
    data = Data(members, None)
    seed_everything(seed, threads=1)
    model = fit(arguments.trunk, data, params, seed, schema, scratch=scratch)
    answers = answer(model, others, fast=True)
    attacked = area(answer(model, _sample(members, _ATTACKED), fast=True).odds(), answers.odds())
    promised = budget(params, data)
    return Fitted(
        answers.value, attacked.value, steps_for(params, len(members)), min(params.batch, len(members)),
        promised.noise_multiplier if promised else 0.0,
    )  # fmt: skip


@cache
def _read(dataset: Path, trunk: Path, split: str) -> Any:
    return read_examples(make_problem(_HEAD, read_schema(dataset)), dataset, split, trunk)


def _sample(examples: Any, count: int) -> Any:
    order = torch.randperm(len(examples), generator=generator(0, 0, "privacy table"))
    return examples.take(order[:count].sort().values)


if __name__ == "__main__":
    main()
