"""What a bound costs, with a pretrained trunk and without: `python -m bench.privacy_table DATASET TRUNK`.

Fine-tunes from the trunk and from scratch, plainly and with each epsilon, at some labels a class and at all, with
paired seeds; measures test accuracy, and the area of the membership attack by a threshold on the loss. Prints a table
in Markdown. Noise is drawn by the seed: no model is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from graftline.dataset import read_schema
from graftline.learning.memory import keep_freed_memory
from graftline.learning.randomness import generator, seed_everything
from graftline.privacy.membership import area
from graftline.problems.fit import Data, budget, fit, select
from graftline.problems.reading import read_examples
from graftline.problems.registry import make_problem
from graftline.problems.weighing import answer
from graftline.score import Estimate, t_interval
from graftline.tasks.finetune import FinetuneParams

_ATTACKED = 2000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.privacy_table", description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("trunk", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 0], help="labels a class; 0 for all")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[2.0, 8.0])
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--accountant", default="prv")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--test-rows", type=int, default=4000)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER", help="of finetune, for private fits")
    parser.add_argument("--head", default="sequence_classification")
    arguments = parser.parse_args()
    print(
        "| labels a class | bound | from the trunk | from scratch | lift, points | membership, trunk | steps x batch |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for labels in arguments.labels:
        for epsilon in (None, *arguments.epsilon):
            print(_line(arguments, labels or None, epsilon), flush=True)


def _line(arguments: argparse.Namespace, labels: int | None, epsilon: float | None) -> str:
    params = _params(arguments, epsilon)
    found = {arm: [_fit(arguments, params, labels, seed, arm == "scratch") for seed in range(arguments.seeds)]
             for arm in ("trunk", "scratch")}  # fmt: skip
    accuracy = {arm: [one[0] for one in fits] for arm, fits in found.items()}
    lift = t_interval([100 * (a - b) for a, b in zip(accuracy["trunk"], accuracy["scratch"], strict=True)])
    told, attacked = {arm: t_interval(values) for arm, values in accuracy.items()}, [one[1] for one in found["trunk"]]
    bound = "none" if epsilon is None else f"epsilon {epsilon:g}, noise {found['trunk'][0][3]:.3g}"
    return (
        f"| {labels or 'all'} | {bound} | {_share(told['trunk'])} | {_share(told['scratch'])} | "
        f"{lift.value:+.1f} ({lift.low:+.1f} to {lift.high:+.1f}) | {_number(t_interval(attacked))} | "
        f"{found['trunk'][0][2]} |"
    )


def _share(one: Estimate) -> str:
    return f"{100 * one.value:.1f} ({100 * one.low:.1f} to {100 * one.high:.1f})"


def _number(one: Estimate) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def _params(arguments: argparse.Namespace, epsilon: float | None) -> FinetuneParams:
    shipped: dict[str, Any] = {
        "head": {"name": arguments.head}, "epochs": 3, "min_steps": 150, "learning_rate": 0.003, "trunk_rate": 0.33,
        "patience": None,
    }  # fmt: skip
    if epsilon is None:
        return FinetuneParams(**shipped)
    more = {name: float(value) for name, _, value in (one.partition("=") for one in arguments.set)}
    privacy = {
        "epsilon": epsilon, "delta": arguments.delta, "clip": arguments.clip, "noise": "seeded",
        "accountant": arguments.accountant,
    }  # fmt: skip
    return FinetuneParams(**{**shipped, **more, "privacy": privacy})


def _fit(
    arguments: argparse.Namespace, params: FinetuneParams, labels: int | None, seed: int, scratch: bool
) -> tuple[float, float, str, float]:
    """Return test accuracy, the attack's area, steps and batch, and the noise."""
    keep_freed_memory()
    schema = read_schema(arguments.dataset)
    problem = make_problem(params.head, schema)
    train, test = (read_examples(problem, arguments.dataset, split, arguments.trunk) for split in ("train", "test"))
    members, others = select(train, labels, len(schema.classes), seed), _sample(test, arguments.test_rows)
    data = Data(members, None)
    seed_everything(seed, threads=1)
    model = fit(arguments.trunk, data, params, seed, schema, scratch=scratch)
    answers = answer(model, others, fast=True)
    attacked = area(answer(model, _sample(members, _ATTACKED), fast=True).odds(), answers.odds())
    promised, batch = budget(params, data), min(params.batch, len(members))
    steps = max(params.min_steps, params.epochs * len(members) // params.batch)
    print(
        f"{labels} {params.privacy and params.privacy.epsilon} {seed} {scratch}: {answers.value:.4f}", file=sys.stderr
    )
    return answers.value, attacked.value, f"{steps} x {batch}", promised.noise_multiplier if promised else 0.0


def _sample(examples: Any, count: int) -> Any:
    order = torch.randperm(len(examples), generator=generator(0, 0, "privacy table"))
    return examples.take(order[:count].sort().values)


if __name__ == "__main__":
    main()
