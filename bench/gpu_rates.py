"""How fast a GPU trains, of its peak, and in how much memory.

Rates are of the training that the components run, in the arithmetic that they choose, on data that is made up: tokens
drawn evenly and noise cost a step what real ones do. MFU is the model's operations a second over the GPU's peak in
bfloat16 (Chowdhery et al., 2022, arXiv:2204.02311).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.gpu_lines import Line, tried, write_part
from graftline.dataset import Schema
from graftline.environment import ROOT
from graftline.learning.device import compile_if_worth, device
from graftline.learning.loop import Run
from graftline.learning.memory import keep_freed_memory
from graftline.learning.optimizers import build_optimizers
from graftline.learning.precision import arithmetic
from graftline.learning.randomness import generator, seed_everything
from graftline.plan.measure import Step, time_steps
from graftline.problems import fit
from graftline.problems.documents import Documents
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.pretrain import PretrainParams
from graftline.text.batches import Batches, pack
from graftline.text.tokenizer import TokenizerParams, save_tokenizer, train_tokenizer
from graftline.trunks import write_config
from graftline.trunks.conv import family as conv
from graftline.trunks.image_pool import Pool
from graftline.trunks.layout import quiet
from graftline.trunks.text.objectives import build_language_model
from graftline.trunks.text.parameters import MaskedLMParams, TextParams
from graftline.trunks.text.trunk import KIND, build_config, build_model, embedding_ids, save_model, training_flops
from graftline.trunks.vision import family as vision
from graftline.trunks.vision.parameters import VitParams
from graftline.trunks.vision.trunk import new_trunk
from graftline.values.image import ImageColumn
from graftline.values.pixels import Pixels
from graftline.values.text import TextColumn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SECONDS = 5.0
"""Of steps that are timed."""
_WARM_UP_SECONDS = 1.0
"""Of steps before, of which the first ones compile."""
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L4": 121}
"""Dense bf16, by a word of the GPU's name, as in pipelines/profiles.yaml; of another GPU no MFU is told."""
_COMPILED = {"eager": 1, "compiled": 100_000}
"""Steps of a run that is compiled, or not."""
_SHAPE = TextParams(layers=12, width=768, heads=12, hidden=1152, max_length=512)
"""ModernBERT-base's width and depth, 2 matrices in its gated layer."""
_LENGTHS = (128, 256, 384, 512)
_BATCH_TOKENS = 32_768
_DOCUMENTS = 64
"""A step of fine-tuning."""
_IMAGES = 4096
"""A step, of grey ones of 28 by 28 pixels."""
_VIT = VitParams(patch=16, layers=12, width=768, heads=12, hidden=3072)
"""ViT-B/16 (Dosovitskiy et al., 2021, arXiv:2010.11929)."""
_PICTURES, _SIDE = 256, 224
"""A step, of ones in colour; and their height and width in pixels."""


def tokens() -> Iterator[Line]:
    """Masked language modelling as `pretrain` does it, eager and compiled."""
    for name, steps in _COMPILED.items():
        yield from _rate(f"masked LM 12x768, {name}", partial(_language_model, steps))


def finetune() -> Iterator[Line]:
    """Learning a class a document as `finetune` does it, eager and compiled."""
    for name, steps in _COMPILED.items():
        yield from _rate(f"fine-tuning 12x768, {name}", partial(_classifier, steps))


def images() -> Iterator[Line]:
    """The image trunks as `pretrain` trains them; the convolutional one in float32, too."""
    yield from _rate("ViT-B/16, 224x224", _vision)
    for precision in ("auto", "float32"):
        yield from _rate(f"masked autoencoder, 28x28, {precision}", partial(_autoencoder, precision))


def _rate(what: str, make: Callable[[], tuple[Step, float | None]]) -> Iterator[Line]:
    """Yield what a step's examples or tokens a second are, its MFU, the memory it takes.

    `make` returns it, and its operations if they are known.
    """

    def measured() -> Iterator[Line]:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        seed_everything(0, threads=1)
        step, flops = make()
        time_steps(step, seconds=_WARM_UP_SECONDS)
        seconds, _ = time_steps(step, seconds=_SECONDS)
        if step.tokens is not None:
            yield Line(f"{what}: tokens a second", f"{step.tokens / seconds:,.0f}")
        else:
            yield Line(f"{what}: images a second", f"{step.examples / seconds:,.0f}")
        if flops is not None and (peak := _peak()) is not None:
            yield Line(f"{what}: MFU", f"{flops / seconds / peak:.1%}")
        yield Line(f"{what}: memory", f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")

    return tried(what, measured)


def _peak() -> float | None:
    """Return the GPU's peak in operations a second, where it is known."""
    words = torch.cuda.get_device_name().replace("-", " ").split()
    return next((PEAK_TFLOPS[word] * 1e12 for word in words if word in PEAK_TFLOPS), None)


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    documents = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))]
    return train_tokenizer(documents, TokenizerParams(vocabulary=4096))


def _language_model(steps: int) -> tuple[Step, float]:
    """Return a step of a language model, and its operations; it is compiled as a run of so many steps would be."""
    quiet()
    keep_freed_memory()
    tokenizer = _tokenizer()
    model = build_model(build_config(_SHAPE, tokenizer), decodes=False)
    objective = build_language_model(model, tokenizer, arithmetic("auto"), MaskedLMParams()).to(device())
    compile_if_worth(objective.model.base_model, steps)
    draw = np.random.default_rng(0)
    lengths = np.repeat(np.array(_LENGTHS), 256)
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
    run = Run(objective, optimizers, loss, max(_COMPILED.values()), 0, addends=True)
    return Step(run, len(lengths) / batches.per_epoch, tokens), flops


def _classifier(steps: int) -> tuple[Step, float]:
    """Return a step of fine-tuning, and its operations."""
    tokenizer, count = _tokenizer(), 16 * _DOCUMENTS
    lengths = np.resize(_LENGTHS, count)
    offsets = np.concatenate([[0], lengths.cumsum()])
    ids = np.random.default_rng(0).integers(10, len(tokenizer), int(offsets[-1])).astype(np.int32)
    labels = torch.arange(count) % 4
    documents = Documents(torch.from_numpy(ids), torch.from_numpy(offsets), torch.arange(count), labels)
    head = SequenceClassificationParams(max_tokens=_SHAPE.max_length)
    params = FinetuneParams(head=head, batch=_DOCUMENTS, epochs=100_000)
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        trunk = Path(folder)
        save_model(build_model(build_config(_SHAPE, tokenizer), decodes=False), trunk)
        save_tokenizer(tokenizer, trunk)
        write_config(trunk, KIND, _SHAPE.model_dump(mode="json"), MaskedLMParams().model_dump(mode="json"))
        schema = Schema(TextColumn("text"), "label", tuple(range(4)))
        model, run = fit.training(trunk, fit.Data(documents, None), params, 0, schema)
    model.compile_if_worth(steps)
    tokens = float(lengths.mean()) * _DOCUMENTS
    flops = training_flops(model.network, round(tokens), float(np.average(lengths, weights=lengths)))  # type: ignore[arg-type]
    return Step(run, _DOCUMENTS, tokens), flops


def _vision() -> tuple[Step, float]:
    """Return a step of masked image modelling, and its operations."""
    stored = np.random.default_rng(0).integers(0, 256, (4 * _PICTURES, _SIDE, _SIDE, 3), dtype=np.uint8)
    params = PretrainParams.model_validate(
        {"objective": {"name": "masked_image", "patch": 32}, "trunk": _VIT, "batch": _PICTURES, "epochs": 1000}
    )
    trunk = new_trunk(_VIT, ImageColumn("image", (_SIDE, _SIDE), 255, 3))
    run = vision.training(Pool(Pixels.of(stored)), params, trunk).run
    patches = (_SIDE // _VIT.patch) ** 2
    flops = patches * (6 * _VIT.layer_weights + 12 * _VIT.layers * _VIT.width * patches)
    return Step(run, _PICTURES), _PICTURES * flops


def _autoencoder(precision: str) -> tuple[Step, None]:
    """Return a step of the masked autoencoder."""
    pixels = torch.rand(4 * _IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(0)).numpy()
    params = PretrainParams.model_validate(
        {"batch": _IMAGES, "epochs": 1000, "precision": precision, "trunk": {"channels": [64, 128, 256]}}
    )
    schema = Schema(ImageColumn("image", (28, 28), 1.0), None, ())
    return Step(conv.training(Pool(Pixels.of_numbers(pixels)), params, schema).run, _IMAGES), None


if __name__ == "__main__":
    write_part({"tokens": tokens, "images": images, "finetune": finetune})
