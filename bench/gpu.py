"""`make gpu-check`: on a machine with a GPU, the tests that need one, its figures, and one table; within 8 minutes.

Rates are of the training that the components run, in the arithmetic that they choose, on data that is made up: tokens
drawn evenly and grey noise cost a step what real ones do. MFU is the model's operations a second over the GPU's peak
in bfloat16 (Chowdhery et al., 2022, arXiv:2204.02311). Bits and resumption are of the components themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from graftline.dataset import Schema
from graftline.environment import ROOT
from graftline.errors import EXIT_INPUT
from graftline.learning.device import compile_if_worth, count, device
from graftline.learning.loop import Run
from graftline.learning.memory import keep_freed_memory
from graftline.learning.optimizers import build_optimizers
from graftline.learning.precision import arithmetic
from graftline.learning.randomness import generator, seed_everything
from graftline.plan.measure import Step, time_steps
from graftline.tasks.pretrain import PretrainParams
from graftline.text.batches import Batches, pack
from graftline.text.tokenizer import TokenizerParams, train_tokenizer
from graftline.trunks.conv.family import training as image_training
from graftline.trunks.image_pool import Pool
from graftline.trunks.layout import quiet
from graftline.trunks.text.objectives import build_language_model
from graftline.trunks.text.parameters import MaskedLMParams, TextParams
from graftline.trunks.text.trunk import build_config, build_model, embedding_ids, training_flops
from graftline.values.image import ImageColumn
from graftline.values.pixels import Pixels

LIMIT_SECONDS = 8 * 60
_TESTS_SECONDS = 240
_RATE_SECONDS = 8.0
"""Of steps that are timed, after two to warm up."""
_MANY_STEPS = 100_000
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L4": 121}
"""Dense bf16, by a word of the GPU's name, as in pipelines/profiles.yaml; of another GPU no MFU is told."""
_SHAPE = TextParams(layers=12, width=768, heads=12, hidden=1152, max_length=512)
"""ModernBERT-base's width and depth, 2 matrices in its gated layer."""
_BATCH_TOKENS = 32_768
_IMAGES = 4096
"""A step."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    found: str
    ok: bool = True


def main() -> None:
    if not count():
        print("gpu-check: no GPU here; run it on a machine with one", file=sys.stderr)
        raise SystemExit(EXIT_INPUT)
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(LIMIT_SECONDS - 15)
    lines: list[Line] = [Line("GPU", f"{torch.cuda.get_device_name()}, torch {torch.__version__}")]
    try:
        for part in (_tests, _tokens, _images, _bits):
            print(f"gpu-check: {part.__name__.strip('_')}", file=sys.stderr, flush=True)
            lines += part()
    except TimeoutError:
        lines.append(Line("all of it", f"not done in {LIMIT_SECONDS // 60} minutes", ok=False))
    lines.append(Line("time", f"{time.monotonic() - began:.0f} s"))
    _print(lines)
    raise SystemExit(0 if all(line.ok for line in lines) else 1)


def _stop(*_: object) -> None:
    raise TimeoutError


def _tests() -> Iterator[Line]:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", "tests"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=_TESTS_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        yield Line("tests marked gpu", f"not done in {_TESTS_SECONDS} s", ok=False)
        return
    if done.returncode:
        print(done.stdout[-6000:], file=sys.stderr)
    yield Line("tests marked gpu", done.stdout.strip().splitlines()[-1].strip("= "), done.returncode == 0)


def _tokens() -> Iterator[Line]:
    """Masked language modelling as `pretrain` does it, eager and compiled."""
    quiet()
    keep_freed_memory()
    for name, steps in (("eager", 1), ("compiled", _MANY_STEPS)):
        seed_everything(0, threads=1)
        torch.cuda.reset_peak_memory_stats()
        step, flops = _language_model(compile_for=steps)
        seconds, _ = time_steps(step, seconds=_RATE_SECONDS)
        assert step.tokens is not None
        yield Line(f"masked LM 12x768, {name}: tokens a second", f"{step.tokens / seconds:,.0f}")
        if (peak := _peak()) is not None:
            yield Line(f"masked LM 12x768, {name}: MFU", f"{flops / seconds / peak:.1%}")
        yield _memory(f"masked LM 12x768, {name}: memory")


def _language_model(*, compile_for: int) -> tuple[Step, float]:
    """Return a step of a language model, and its operations; it is compiled as a run of so many steps would be."""
    documents = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))]
    tokenizer = train_tokenizer(documents, TokenizerParams(vocabulary=4096))
    model = build_model(build_config(_SHAPE, tokenizer), decodes=False)
    objective = build_language_model(model, tokenizer, arithmetic("auto"), MaskedLMParams()).to(device())
    compile_if_worth(objective.model.base_model, compile_for)
    draw = np.random.default_rng(0)
    lengths = np.repeat(np.array([128, 256, 384, 512]), 256)
    batches = Batches(lengths, _BATCH_TOKENS, 0)

    def loss(number: int) -> torch.Tensor:
        chosen = batches.documents(number)
        ids = draw.integers(10, len(tokenizer), int(lengths[chosen].sum()))
        return objective.loss(pack(ids, lengths[chosen], chosen), generator(0, number, "objective"))

    optimizers = build_optimizers(
        objective.named_parameters(),
        name="muon",
        learning_rate=1e-3,
        matrix_rate=0.02,
        weight_decay=0.0,
        embeddings=embedding_ids(objective.model),
    )
    tokens = float(lengths.sum()) / batches.per_epoch
    flops = training_flops(objective.model, round(tokens), float(np.average(lengths, weights=lengths)))
    run = Run(objective, optimizers, loss, _MANY_STEPS, 0, addends=True)
    return Step(run, len(lengths) / batches.per_epoch, tokens), flops


def _images() -> Iterator[Line]:
    """The masked autoencoder as `pretrain` does it, in the arithmetic that it chooses and in float32."""
    pixels = torch.rand(4 * _IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(0)).numpy()
    schema = Schema(ImageColumn("image", (28, 28), 1.0), None, ())
    for precision in ("auto", "float32"):
        seed_everything(0, threads=1)
        torch.cuda.reset_peak_memory_stats()
        params = PretrainParams.model_validate(
            {"batch": _IMAGES, "epochs": 1000, "precision": precision, "trunk": {"channels": [64, 128, 256]}}
        )
        run = image_training(Pool(Pixels.of_numbers(pixels)), params, schema).run
        seconds, _ = time_steps(Step(run, _IMAGES), seconds=_RATE_SECONDS)
        yield Line(f"masked autoencoder, {precision}: images a second", f"{_IMAGES / seconds:,.0f}")
        yield _memory(f"masked autoencoder, {precision}: memory")


def _peak() -> float | None:
    """Return the GPU's peak in operations a second, where it is known."""
    words = torch.cuda.get_device_name().replace("-", " ").split()
    return next((PEAK_TFLOPS[word] * 1e12 for word in words if word in PEAK_TFLOPS), None)


def _memory(what: str) -> Line:
    return Line(what, f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


def _bits() -> Iterator[Line]:
    """Each training component twice, and once killed in the middle and run again: one digest."""
    sys.path[:0] = [str(ROOT / "tests" / name) for name in ("crash", "learning")]
    import kills  # type: ignore[import-not-found]  # modules of the tests, on the path only now
    import small  # type: ignore[import-not-found]  # the same

    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        home = Path(folder)
        os.environ |= {"GRAFTLINE_KEYS": f"{home}/keys", "GRAFTLINE_CACHE": f"{home}/cache"}
        for name, case in kills.cases(small.dataset(home), small.trunk(home), small.PARAMS).items():
            first, second = (kills.run_unbroken(case, home / number / case.output) for number in "12")
            yield Line(f"{name}: bits of two runs", *_equal(first.digest, second.digest))
            middle = [kills.Moment("training", 0.5)]
            killed = kills.run_killed(case, home / "killed" / case.output, first, middle)
            yield Line(f"{name}: bits after kill -9 and resume", *_equal(first.digest, killed.digest))


def _equal(first: str, second: str) -> tuple[str, bool]:
    return ("equal", True) if first == second else (f"differ: {first[:12]}, {second[:12]}", False)


def _print(lines: list[Line]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "found", "ok")
    for line in lines:
        table.add_row(line.what, line.found, "yes" if line.ok else "NO")
    Console(soft_wrap=True, highlight=False).print(table)


if __name__ == "__main__":
    main()
