"""The measurements of text training, one function a part.

Comparisons are at an equal number of tokens (or samples) a step and at Graftline's defaults. The other contenders
say where the difference comes from: `control` is Graftline's loop with the Trainer's recipe, so what it gains is the
loop's, and the rest is the recipe's.
"""

from __future__ import annotations

import atexit
import json
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Literal

from bench import head_data, image_data
from bench.figures import Figure
from bench.rounds import Contender, Measured, measure
from bench.text_data import BATCH_TOKENS, LENGTH, Data, prepare
from graftline.environment import ROOT
from graftline.trunks.vision.trunk import VisionTrunk

RESULTS = ROOT / "build" / "bench-text.json"
BLOCKS = BATCH_TOKENS // LENGTH
"""Blocks a step at Graftline's number of tokens. The examples' READMEs have 8 rows."""
LINES = 183
"""Documents a step at Graftline's number of tokens: they have 22.3 on average."""
SAMPLES = 64
BOTH = (1, 2)
"""Numbers of threads."""
CHECKPOINT_SECONDS = 60.0
"""Between two checkpoints, by default."""
LOSS_TOKENS, TIME_TOKENS = 400_000, 2_600_000
"""What each arm of loss and of time learns from; the glosses' epoch has 2.2 million."""
_MASKED_SHAPES = ("bert 4x256", "modernbert 2x128")
_ROWS = {"by_length": "by length", "full_length": "padded to the longest there is", "pixels": "decoded before"}
"""What contenders are called whose rows come in another way; by length: the Trainer's own sampler, like with like."""
_FORMS = {"channels_last": "channels last", "own": "Graftline's model and loss"}
LEAST = {
    "mlm": {"Trainer": 2.5, "Trainer, bfloat16": 1.5, "Trainer, lines": 6.0},
    "clm": {"Trainer": 1.3, "Trainer, bfloat16": 1.2},
    "finetune": {"Trainer": 1.8},
    "vision": {"Trainer": 1.3},
    **{task: {"Trainer": 1.3} for task in head_data.TASKS},
}
"""By part and contender: how many times its rate Graftline is held to."""


@dataclass(frozen=True)
class TextOptions:
    rounds: int = 5
    seconds: float = 2.0
    """Of each window."""
    tokens: int | None = None
    """For loss and time: what each arm learns from; None for the part's own number."""
    seeds: int = 3
    """For loss and time."""
    threads: tuple[int, ...] = BOTH
    """For mlm, clm, finetune."""
    of_cpu: bool = False
    """Whether rates are by CPU time."""


@cache
def prepared(write: Callable[[Path], None]) -> Path:
    """Return a folder with what `write` writes into it; it is made once and goes when the process ends."""
    folder = Path(mkdtemp(prefix="graftline-bench-"))
    atexit.register(shutil.rmtree, folder)
    write(folder)
    return folder


def _pretraining(shape: str, threads: tuple[int, ...] = (1,)) -> list[Contender]:
    """Return the contenders that every comparison of pretraining has."""
    ours = Contender("Graftline", shape, "graftline", "packed", BATCH_TOKENS, _dtype(), True, threads)
    trainer = Contender("Trainer", shape, "trainer", "grouped", BLOCKS, threads=threads)
    return [ours, trainer, replace(trainer, name="Trainer, bfloat16", dtype="bfloat16")]


def _controls(shape: str) -> list[Contender]:
    """Return what credits algorithm, arithmetic, loop and allocator apart."""
    ours = Contender("Graftline, float32", shape, "graftline", "packed", BATCH_TOKENS, keeps_memory=True)
    control = Contender("Graftline's loop, Trainer's recipe", shape, "control", "grouped", BLOCKS, threads=BOTH)
    trainer = Contender("Trainer, 8 blocks a step", shape, "trainer", "grouped", 8)
    return [ours, control, trainer, replace(trainer, name="Trainer, memory kept", batch=BLOCKS, keeps_memory=True)]


def _lines(shape: str, threads: tuple[int, ...] = (1,)) -> Contender:
    return Contender("Trainer, lines", shape, "trainer", "lines", LINES, threads=threads)


def _masked() -> list[Contender]:
    large, small = _MASKED_SHAPES
    lines = _lines(large, BOTH)
    return [
        *_pretraining(large, BOTH),
        lines,
        *_controls(large),
        replace(lines, name="Trainer, 8 lines a step", batch=8, threads=(1,)),
        replace(lines, name=f"Trainer, lines padded to {LENGTH}", batch=BLOCKS, rows="padded", threads=(1,)),
        *_pretraining(small),
        _lines(small),
    ]


def _causal() -> list[Contender]:
    return [*_pretraining("gpt2 4x256", BOTH), *_controls("gpt2 4x256"), *_pretraining("llama 4x256")]


def _labelled() -> list[Contender]:
    large, small = _MASKED_SHAPES
    ours = Contender("Graftline", large, "graftline", "labelled", SAMPLES, _dtype(), True, BOTH)
    trainer = Contender("Trainer", large, "trainer", "labelled", SAMPLES, threads=BOTH)
    once = replace(trainer, threads=(1,))
    return [
        ours,
        trainer,
        replace(once, name="Trainer, bfloat16", dtype="bfloat16"),
        replace(ours, name="Graftline, float32", dtype="float32", threads=(1,)),
        replace(trainer, name="Graftline's loop, Trainer's recipe", loop="control"),
        replace(once, name="Trainer, 8 samples a step", batch=8),
        replace(once, name="Trainer, memory kept", keeps_memory=True),
        replace(ours, shape=small, threads=(1,)),
        replace(once, shape=small),
    ]


def _pictured() -> list[Contender]:
    """Return the contenders on images: the Trainer's example decodes and cuts a picture each time that it is used.

    The controls say where the difference comes from: pictures decoded before, memory kept from step to step, both of
    them in Graftline's loop, and the arithmetic that `auto` does not take here.
    """
    found = []
    for shape in image_data.SHAPES:
        dtype = _dtype(narrow_on_cpu=VisionTrunk.narrow_on_cpu)
        ours = Contender("Graftline", shape, "graftline", "pixels", SAMPLES, dtype, True, data="image")
        trainer = Contender("Trainer", shape, "trainer", "pictures", SAMPLES, data="image")
        decoded = replace(trainer, name="Trainer, decoded before", rows="pixels")
        other: Literal["float32", "bfloat16"] = "bfloat16" if dtype == "float32" else "float32"
        found += [
            ours,
            trainer,
            replace(trainer, name="Trainer, bfloat16", dtype="bfloat16"),
            decoded,
            replace(decoded, name="Trainer, decoded before, memory kept", keeps_memory=True),
            replace(decoded, name="the same in Graftline's loop", loop="control", keeps_memory=True),
            replace(ours, name=f"Graftline, {other}", dtype=other),
        ]
    return found


def _headed(task: str) -> list[Contender]:
    """Return the contenders on a shipped task: the Trainer with rows as its example has them, and in other ways."""
    batch, (first, *others) = head_data.TASKS[task].batch, head_data.TASKS[task].rows
    ours = Contender("Graftline", task, "graftline", first, batch, "auto", True, data="head")
    trainer = Contender("Trainer", task, "trainer", first, batch, data="head")
    return [
        ours,
        trainer,
        *(replace(trainer, name=f"Trainer, {_ROWS[rows]}", rows=rows) for rows in others),
        *(replace(trainer, name=f"Trainer, {_FORMS[form]}", form=form) for form in head_data.TASKS[task].forms),
        replace(trainer, name="Graftline's loop, Trainer's recipe", loop="control"),
        replace(trainer, name="Trainer, memory kept", keeps_memory=True),
    ]


def _dtype(*, narrow_on_cpu: bool = True) -> Literal["float32", "bfloat16"]:
    from graftline.learning.precision import arithmetic

    return "bfloat16" if arithmetic("auto", narrow_on_cpu=narrow_on_cpu) == "bfloat16" else "float32"


def measure_speed(
    part: str,
    contenders: Callable[[], list[Contender]],
    options: TextOptions,
    folder: Callable[[], Path] = lambda: prepared(prepare),
) -> list[Figure]:
    """Measure contenders with each number of threads; print all, keep all in RESULTS, return what has a target."""
    how: dict[str, Any] = {"rounds": options.rounds, "seconds": options.seconds, "of_cpu": options.of_cpu}
    found = [one for threads in options.threads for one in measure(contenders(), folder(), threads=threads, **how)]
    print_rates(part, found)
    keep(part, [_as_dict(one) for one in found])
    return compare(part, found)


def compare(part: str, found: Sequence[Measured]) -> list[Figure]:
    """Return how many times each contender's rate Graftline has, for those in LEAST."""
    figures = []
    for ours in found:
        if ours.contender.name != "Graftline":
            continue
        for other in found:
            least = LEAST[part].get(other.contender.name)
            if least is not None and _alike(ours, other):
                threads = f"{ours.threads} thread{'s' * (ours.threads > 1)}"
                name = f"{part}, {ours.contender.shape}, {threads}: against {other.contender.name}"
                command = f"python -m bench {part}"
                figures.append(Figure(name, ours.against(other), ">=", least, "x", command))
    return figures


def _alike(one: Measured, other: Measured) -> bool:
    return (one.contender.shape, one.threads) == (other.contender.shape, other.threads)


def _as_dict(one: Measured) -> dict[str, Any]:
    return {**asdict(one), "median": one.rate}


def print_rates(part: str, found: Sequence[Measured]) -> None:
    """Print every contender's median and range, and how many times the Trainer's rate it has."""
    from rich.console import Console
    from rich.table import Table

    unit = "tokens/s" if part in ("mlm", "clm") else "samples/s"
    table = Table("shape", "threads", "contender", unit, "lowest", "highest", "x Trainer", title=part)
    for one in found:
        plain = next(o for o in found if o.contender.name == "Trainer" and _alike(o, one))
        table.add_row(
            one.contender.shape,
            str(one.threads),
            one.contender.name,
            f"{one.rate:,.0f}",
            f"{min(one.rates):,.0f}",
            f"{max(one.rates):,.0f}",
            f"{one.against(plain):.2f}",
        )
    Console(width=120, highlight=False).print(table)


def keep(part: str, values: Any) -> None:
    """Put a part's values into RESULTS, beside those of the other parts."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    known |= {"machine": {"processor": platform.processor() or platform.machine()}, part: values}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def measure_loss(options: TextOptions) -> list[Figure]:
    """Held-out masked-LM loss after an equal number of tokens: the Trainer's recipes and Graftline's optimizers."""
    from bench.text_loss import ARMS, BASELINES, measure_arms, print_losses

    tokens = options.tokens or LOSS_TOKENS
    losses = measure_arms(prepared(prepare), tokens=tokens, seeds=options.seeds)
    print_losses(losses, tokens)
    keep("loss", {"tokens": tokens, "losses": losses})
    best = min((sum(losses[name]) / len(losses[name]), name) for name in BASELINES)
    command = f"python -m bench loss --tokens {tokens} --seeds {options.seeds}"
    return [
        Figure(
            f"held-out loss above the best Trainer's ({best[1]}): {name}",
            sum(losses[name]) / len(losses[name]) - best[0],
            "<=",
            0.0,
            "nats",
            command,
        )
        for name in ARMS
        if name not in BASELINES
    ]


def measure_time(options: TextOptions) -> list[Figure]:
    """Time to the Trainer's fine-tuned accuracy on task glosses, pretraining and fine-tuning."""
    from bench.text_task import prepare as prepare_task
    from bench.text_time import BASELINE, LABELS, TUNED, measure_arms, print_outcomes, share_of_time

    tokens = options.tokens or TIME_TOKENS
    with TemporaryDirectory(prefix="graftline-bench-") as folder:
        prepare_task(Path(folder))
        outcomes = measure_arms(Path(folder), tokens=tokens, seeds=options.seeds)
    print_outcomes(outcomes, tokens)
    runs = [asdict(outcome) for outcome in outcomes]
    keep("time", {"tokens": tokens, "labels": LABELS, "threads": 1, "runs": runs})
    command = f"python -m bench time --tokens {tokens} --seeds {options.seeds}"
    return [
        Figure(
            f"time to the fine-tuned accuracy, share of the baseline's: {baseline}",
            share_of_time(outcomes, baseline),
            "<=",
            0.3,
            "",
            command,
        )
        for baseline in (BASELINE, TUNED)
    ]


def measure_checkpoint(options: TextOptions) -> list[Figure]:
    """Seconds to write and verify a checkpoint, as a share of the time between two."""
    from bench.text_checkpoint import median_seconds

    seconds = {shape: median_seconds(Data(prepared(prepare), shape), options.rounds) for shape in _MASKED_SHAPES}
    keep("checkpoint", seconds)
    return [
        Figure(
            f"checkpointing's share of time, every {CHECKPOINT_SECONDS:g} s: {shape}",
            taken / CHECKPOINT_SECONDS,
            "<=",
            0.02,
            "",
            "python -m bench checkpoint",
        )
        for shape, taken in seconds.items()
    ]


def measure_private(options: TextOptions) -> list[Figure]:
    """What differential privacy costs, by what is trained."""
    from bench.privacy import measure_privacy

    found = [measure_privacy(prepared(prepare), shape, rounds=options.rounds) for shape in reversed(_MASKED_SHAPES)]
    return [figure for figures in found for figure in figures]


TEXT_PARTS: dict[str, Callable[[TextOptions], list[Figure]]] = {
    "mlm": partial(measure_speed, "mlm", _masked),
    "clm": partial(measure_speed, "clm", _causal),
    "finetune": partial(measure_speed, "finetune", _labelled),
    "privacy": measure_private,
    "vision": partial(measure_speed, "vision", _pictured, folder=lambda: prepared(image_data.prepare)),
    **{
        task: partial(
            measure_speed, task, partial(_headed, task), folder=partial(prepared, partial(head_data.prepare, task))
        )
        for task in head_data.TASKS
    },
    "loss": measure_loss,
    "time": measure_time,
    "checkpoint": measure_checkpoint,
}
