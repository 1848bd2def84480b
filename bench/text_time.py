"""Time to the baseline's fine-tuned accuracy: pretraining and fine-tuning, from first weights to the last step.

Each run has a process of its own with one thread, and nothing runs beside it. The arms take turns within a seed, so
that all see the same machine. Only training is timed: tokens are made ahead, weights are kept and accuracy is measured
off the clock, and no arm looks at held-out data while it trains. Graftline writes its checkpoints and metrics as its
components do; the Trainer writes nothing.

The baseline is the Trainer as run_mlm (grouped) and run_glue use it, with its defaults. Its rate is made for large
models; a second baseline has a rate for small ones.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from bench.text_data import LENGTH
from bench.text_loop import Rates, desk, language_model, pretraining_run, train_at_desk, write_trunk
from bench.text_task import SHAPE, TEST_ROWS, Task
from bench.text_trainer import classification, pretraining, run_trainer
from graftline.learning.precision import arithmetic
from graftline.learning.randomness import seed_everything
from graftline.problems.documents import Documents as Labelled
from graftline.problems.documents import by_length, padded
from graftline.problems.fit import Data as Examples
from graftline.problems.fit import fit
from graftline.trunks.layout import quiet
from graftline.trunks.text.parameters import MaskedLMParams

LABELS = 100
"""A class."""
BUDGETS = (0.1, 0.25, 0.5, 1.0)
"""Graftline's tokens of pretraining, as shares of the baseline's."""
_BLOCKS, _SAMPLES, _EPOCHS = 8, 32, 3
"""Of the Trainer: blocks a step (its default), samples a step and epochs of run_glue's README."""


@dataclass(frozen=True)
class TrainerArm:
    """Hugging Face's Trainer, in float32."""

    rate: float = 5e-5
    """Peak learning rate of pretraining and of fine-tuning."""


@dataclass(frozen=True)
class GraftlineArm:
    """The task's own parameters, with another number of steps in pretraining."""

    budget: float
    """Tokens of pretraining, as a share of the baseline's; 0 to fine-tune from scratch."""


BASELINE = "Trainer, its defaults (rate 5e-5)"
TUNED = "Trainer, rate 1e-3"
SCRATCH = "Graftline, no pretraining"
ARMS: dict[str, TrainerArm | GraftlineArm] = {
    BASELINE: TrainerArm(),
    TUNED: TrainerArm(1e-3),
    SCRATCH: GraftlineArm(0.0),
    **{f"Graftline, {budget:.0%} of the tokens": GraftlineArm(budget) for budget in BUDGETS},
}


@dataclass(frozen=True)
class Outcome:
    """One run: a pretraining and a fine-tuning."""

    arm: str
    seed: int
    subset: str
    """sha256 of the labelled examples: equal for all arms of a seed."""
    tokens: int = 0
    """Pretrained on, repeated ones counted each time."""
    pretrain_seconds: float = 0.0
    finetune_seconds: float = 0.0
    accuracy: float = math.nan
    """On the sample of the test rows."""

    @property
    def seconds(self) -> float:
        return self.pretrain_seconds + self.finetune_seconds


class _Sum:
    """Adds up what the steps learned from."""

    total = 0

    def __call__(self, units: int) -> None:
        self.total += units


def measure_arms(folder: Path, *, tokens: int, seeds: int) -> list[Outcome]:
    """Return the outcome of each arm and seed.

    Args:
        folder: what text_task.prepare wrote.
        tokens: that the baselines are pretrained on, about; Graftline's budgets are shares of it.
        seeds: runs of each arm; a seed decides first weights, labelled subset and batches.
    """
    found = []
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver"), max_tasks_per_child=1) as pool:
        for seed in range(seeds):
            for name in ARMS:
                outcome = pool.submit(_measure, folder, name, seed, tokens).result()
                found.append(outcome)
                _say(outcome)
    for outcome in found:
        if outcome.subset != found[outcome.seed * len(ARMS)].subset:
            raise AssertionError(f"{outcome.arm}, seed {outcome.seed}: it learned from other labels")
    return found


def _say(outcome: Outcome) -> None:
    took = f"{outcome.pretrain_seconds:.1f} s + {outcome.finetune_seconds:.1f} s"
    text = f"time: {outcome.arm}, seed {outcome.seed}: {took}, accuracy {outcome.accuracy:.3f}"
    print(text, file=sys.stderr, flush=True)


def _measure(folder: Path, name: str, seed: int, tokens: int) -> Outcome:
    from transformers import Trainer  # noqa: F401  (its import is no part of training)

    quiet()
    torch.set_num_threads(1)
    arm, task = ARMS[name], Task(folder)
    outcome = Outcome(name, seed, task.labelled(LABELS, seed).digest())
    with TemporaryDirectory(prefix="graftline-bench-") as trunk:
        if isinstance(arm, TrainerArm):
            return _trainer(arm, task, outcome, tokens, Path(trunk))
        return _graftline(arm, task, outcome, tokens, Path(trunk))


def _trainer(arm: TrainerArm, task: Task, outcome: Outcome, tokens: int, trunk: Path) -> Outcome:
    seen, seed = _Sum(), outcome.seed
    recipe = pretraining(task.data, "grouped", seed=seed)
    steps = math.ceil(tokens / (_BLOCKS * LENGTH))
    started = perf_counter()
    run_trainer(recipe, batch=_BLOCKS, dtype="float32", steps=steps, after_step=seen, rate=arm.rate, seed=seed)
    pretrained = perf_counter() - started
    recipe.model.save_pretrained(trunk)
    labelled = task.labelled(LABELS, seed)
    recipe = classification(task.data, labelled, trunk=trunk, seed=seed)
    steps = _EPOCHS * math.ceil(len(labelled) / _SAMPLES)
    started = perf_counter()
    run_trainer(recipe, batch=_SAMPLES, dtype="float32", steps=steps, after_step=_Sum(), rate=arm.rate, seed=seed)
    tuned = perf_counter() - started
    accuracy = _accuracy(recipe.model, task.test())
    return replace(outcome, tokens=seen.total, pretrain_seconds=pretrained, finetune_seconds=tuned, accuracy=accuracy)


def _accuracy(model: torch.nn.Module, documents: Labelled) -> float:
    """Return the share of documents that transformers' classifier gets right, in float32."""
    assert documents.labels is not None
    model.eval()
    right = 0
    for chosen in by_length(documents.lengths):
        part = documents.take(chosen)
        assert part.labels is not None
        seen = padded(torch.ones_like(part.ids), part.lengths, 0)
        with torch.inference_mode():
            logits = model(input_ids=padded(part.ids, part.lengths, 0), attention_mask=seen).logits
        right += int((logits.argmax(dim=1) == part.labels).sum())
    return right / len(documents)


def _graftline(arm: GraftlineArm, task: Task, outcome: Outcome, tokens: int, trunk: Path) -> Outcome:
    from graftline.learning.memory import keep_freed_memory

    keep_freed_memory()
    seed_everything(outcome.seed, threads=1)
    if arm.budget:
        outcome = _pretrained(task, outcome, math.ceil(arm.budget * tokens), trunk)
    params, labelled = task.finetuning, task.labelled(LABELS, outcome.seed)
    start, schema = trunk if arm.budget else task.untrained, task.schema()
    started = perf_counter()
    with desk(min(params.batch, len(labelled)), "documents") as written:
        model = fit(start, Examples(labelled, None), params, outcome.seed, schema, scratch=not arm.budget, desk=written)
    tuned = perf_counter() - started
    return replace(outcome, finetune_seconds=tuned, accuracy=model.answer(task.test()).value)


def _pretrained(task: Task, outcome: Outcome, tokens: int, trunk: Path) -> Outcome:
    """Write a trunk that has learned from about so many tokens; its rates fall to zero over them."""
    params, seen = task.pretraining, _Sum()
    assert isinstance(params.objective, MaskedLMParams)
    objective = language_model(task.data, arithmetic(params.precision), seed=outcome.seed, params=params.objective)
    rates = Rates(params.optimizer, params.learning_rate, params.matrix_rate, params.weight_decay, params.warmup_steps)
    steps = math.ceil(tokens / params.batch_tokens)
    started = perf_counter()
    train_at_desk(pretraining_run(objective, task.data, steps=steps, rates=rates, after_step=seen, seed=outcome.seed))
    seconds = perf_counter() - started
    write_trunk(objective.model, task.data, trunk)
    return replace(outcome, tokens=seen.total, pretrain_seconds=seconds)


def mean_accuracy(outcomes: Sequence[Outcome], arm: str) -> float:
    return statistics.fmean(outcome.accuracy for outcome in outcomes if outcome.arm == arm)


def median_seconds(outcomes: Sequence[Outcome], arm: str) -> float:
    return statistics.median(outcome.seconds for outcome in outcomes if outcome.arm == arm)


def share_of_time(outcomes: Sequence[Outcome], baseline: str) -> float:
    """Return the time of Graftline's smallest budget that reaches the baseline's accuracy, as a share of its time.

    A budget reaches it if its mean accuracy over the seeds is at least the baseline's. Infinite if none does. The run
    without pretraining is no budget: print_outcomes shows it.
    """
    least = mean_accuracy(outcomes, baseline)
    for name, arm in ARMS.items():
        budget = arm.budget if isinstance(arm, GraftlineArm) else 0.0
        if budget and mean_accuracy(outcomes, name) >= least:
            return median_seconds(outcomes, name) / median_seconds(outcomes, baseline)
    return math.inf


def print_outcomes(outcomes: Sequence[Outcome], tokens: int) -> None:
    """Print each arm's times (medians) and accuracy (mean), and whether pretraining is what reaches a baseline."""
    from rich.console import Console
    from rich.table import Table

    title = f"{SHAPE}, {tokens:,} tokens, {LABELS} labels a class, {TEST_ROWS:,} test rows, one thread"
    table = Table(
        "arm", "tokens", "pretrain s", "fine-tune s", "total s", "accuracy", "of each seed", "x its time", title=title
    )
    for name in ARMS:
        own = [outcome for outcome in outcomes if outcome.arm == name]
        times = [(outcome.pretrain_seconds, outcome.finetune_seconds, outcome.seconds) for outcome in own]
        medians = [statistics.median(values) for values in zip(*times, strict=True)]
        table.add_row(
            name,
            f"{statistics.median(o.tokens for o in own):,.0f}",
            *(f"{seconds:.1f}" for seconds in medians),
            f"{mean_accuracy(own, name):.3f}",
            ", ".join(f"{o.accuracy:.3f}" for o in own),
            f"{medians[-1] / median_seconds(outcomes, BASELINE):.3f}",
        )
    console = Console(width=140, highlight=False)
    console.print(table)
    console.print("x its time: of the Trainer with its defaults")
    for baseline in (BASELINE, TUNED):
        reaches = mean_accuracy(outcomes, SCRATCH) >= mean_accuracy(outcomes, baseline)
        console.print(f"{SCRATCH}: {'reaches' if reaches else 'misses'} the accuracy of {baseline}")
