"""The released model under attack: which rows did it learn from? The lift's fits serve as shadow models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.evaluation.lift import ATTACKED, MEMBERS, OTHERS, Experiment, Lift, place_split
from graftline.jsonfile import write_json
from graftline.learning.randomness import generator
from graftline.privacy.membership import FALSE_ALARMS, Attacked, against_shadows, attack
from graftline.privacy.parameters import (
    LEAST_ROWS,
    MEMBERSHIP_AUC,
    MEMBERSHIP_TPR,
    SHADOW_AUC,
    SHADOW_TPR,
    MembershipParams,
)
from graftline.problems.fit import select
from graftline.problems.reading import read_examples
from graftline.problems.sections import Section, add_sections
from graftline.problems.weighing import answer
from graftline.score import Floats
from graftline.tasks.evaluate import label_name

if TYPE_CHECKING:
    from graftline.problems.problem import Examples, Model


@dataclass
class Membership:
    """What was measured."""

    seed: int
    odds: dict[str, Floats]
    """The released model's log odds of what is right: of members, and of other rows."""
    shadow_labels: int | None
    """Labels a class of the fits that serve as shadow models; None if there are none that lack a member."""
    loss: Attacked
    shadowed: Attacked | None = None
    shadows: int = 0
    """How many shadow models there were."""

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics: `membership_auc` and so on, with intervals."""
        found: dict[str, float] = {"membership_members": self.loss.members, "membership_others": self.loss.others}
        for attacked, names in (
            (self.loss, (MEMBERSHIP_AUC, MEMBERSHIP_TPR)), (self.shadowed, (SHADOW_AUC, SHADOW_TPR))
        ):  # fmt: skip
            if attacked is None:
                continue
            for score, value in zip(names, (attacked.auc, attacked.tpr), strict=True):
                found |= value.metrics(score.name)
        return found


def begin(
    params: MembershipParams | None,
    experiment: Experiment,
    counts: tuple[int | None, ...],
    seed: int,
    folder: Path,
    model: Model[Any],
) -> Membership | None:
    """Ask the released model about members and other rows, and lay these out for the lift's fits.

    Args:
        params: None to measure nothing.
        experiment: the lift's.
        counts: its label counts.
        seed: draws the rows.
        folder: of the model.
        model: the released one.

    Raises:
        InputError: there are too few rows to tell anything.
    """
    if params is None:
        return None
    finetune, problem = experiment.params, experiment.problem
    classes = len(read_schema(experiment.dataset).classes)
    odds = {}
    for name, split in ((MEMBERS, "train"), (OTHERS, "test")):
        for place in (folder, experiment.trunk):
            examples = read_examples(problem, experiment.dataset, split, place)
            if name == MEMBERS:
                examples = select(examples, finetune.labels_per_class, classes, finetune.seed)
            chosen = _sample(examples, params.rows, seed, name)
            if len(chosen) < LEAST_ROWS:
                raise InputError(
                    experiment.dataset, f"{len(chosen)} rows of {split} to attack (evaluate.membership)",
                    expected=f"at least {LEAST_ROWS}", fix="leave membership out, or give more rows",
                )  # fmt: skip
            if place == folder:
                odds[name] = _odds(model, chosen)
            else:
                place_split(experiment, chosen, f"{ATTACKED}/{name}")
    shadow_labels = max((count for count in counts if count is not None), default=None)
    return Membership(seed, odds, shadow_labels, attack(odds[MEMBERS], odds[OTHERS], seed=seed))


def _sample(examples: Examples, rows: int, seed: int, name: str) -> Examples:
    order = torch.randperm(len(examples), generator=generator(seed, 0, f"membership {name}"))
    return examples.take(order[:rows].sort().values)


def _odds(model: Model[Any], examples: Examples) -> Floats:
    found: Floats = answer(model, examples).odds()
    return found


def take(found: Membership, lift: Lift) -> None:
    """Take what the lift's fits said of the rows: each is a shadow model of those that it did not learn from."""
    runs = [run.odds for run in lift.runs if run.odds]
    if not runs:
        return
    values = {}
    for name in (MEMBERS, OTHERS):
        told = against_shadows(found.odds[name], np.array([run[name] for run in runs], np.float64))
        values[name] = told[np.isfinite(told)]
    if min(map(len, values.values())) >= 2:
        found.shadowed = attack(values[MEMBERS], values[OTHERS], seed=found.seed)
        found.shadows = len(runs)


def write(found: Membership, amount: str, out: Path) -> None:
    """Write membership.json, and add the section to the evaluation in `out`."""
    attacks = {"loss": found.loss, "shadow models": found.shadowed}
    write_json(
        {
            "false_alarms": FALSE_ALARMS,
            "shadows": found.shadows,
            "shadow_labels": None if found.shadow_labels is None else label_name(found.shadow_labels),
            "attacks": {name: one and asdict(one) for name, one in attacks.items()},
        },
        out / "membership.json",
    )
    add_sections([section(found, amount)], out)


def section(found: Membership, amount: str) -> Section:
    """Return the report's section."""
    lines = [_line("a threshold on the loss", found.loss)]
    if found.shadowed:
        what = f"against {found.shadows} models of {label_name(found.shadow_labels)} {amount}"
        lines.append(_line(what, found.shadowed))
    sure = any(one.auc.low > 0.5 for one in (found.loss, found.shadowed) if one)
    verdict = (
        "at least one attack is surely better than a coin" if sure
        else "no attack is surely better than a coin, which proves no bound: a better attack may be"
    )  # fmt: skip
    note = (
        f"Who has a row and its label asks whether the model learned from it: {found.loss.members:,} training rows "
        f"against {found.loss.others:,} test rows. An area of 0.5 is a coin. Here {verdict}."
    )
    if not found.shadowed:
        note += " There were no shadow models: no label count of the lift leaves a training row out."
    header = ("attack", "area, 95%", f"members found at {FALSE_ALARMS:.0%} of false alarms, 95%")
    return Section("Who was learned from", note, header=header, lines=tuple(lines))


def _line(name: str, one: Attacked) -> tuple[str, ...]:
    return name, one.auc.told(".3f"), one.tpr.told(".1%")
