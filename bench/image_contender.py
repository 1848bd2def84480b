"""What a contender's process does on images: set itself up and train for very long."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import Trainer  # noqa: F401  (imported once, before processes are forked)

from bench.image_data import CLASSES, IMAGE, SHAPES
from bench.image_trainer import CROP, classification
from bench.rounds import Contender
from bench.text_loop import control_run, train_at_desk
from bench.text_trainer import AfterStep, run_trainer
from graftline.dataset import Schema
from graftline.learning.loop import train
from graftline.learning.memory import keep_freed_memory
from graftline.learning.parameters import Augmentation
from graftline.learning.randomness import seed_everything
from graftline.problems.fit import Data, training
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.images import LabelledImages
from graftline.tasks.finetune import FinetuneParams
from graftline.trunks import write_config
from graftline.trunks.vision.parameters import MaskedImageParams
from graftline.trunks.vision.trunk import KIND, new_trunk
from graftline.values.pixels import Pixels


def run(contender: Contender, folder: Path, threads: int, after_step: AfterStep, *, steps: int) -> None:
    """Train as `contender` says; `after_step` ends it by ending the process, or it ends after `steps` steps."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    if contender.keeps_memory:
        keep_freed_memory()
    if contender.loop == "graftline":
        seed_everything(0, threads)
        _finetune(contender, folder, after_step)
        return
    assert contender.rows in ("pictures", "pixels")
    recipe = classification(folder, contender.shape, contender.rows)
    if contender.loop == "control":
        train_at_desk(control_run(recipe, batch=contender.batch, steps=steps, after_step=after_step))
    else:
        run_trainer(recipe, batch=contender.batch, dtype=contender.dtype, steps=steps, after_step=after_step)


def _finetune(contender: Contender, folder: Path, after_step: AfterStep) -> None:
    """Fine-tune for very long, as the component does, from an untrained trunk of the shape.

    The learning rate, the weight decay (none) and the largest norm of a gradient are the Trainer's.
    """
    pixels = Pixels.of(np.load(folder / "pixels.npy"))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    images = _Noted(pixels, labels, torch.arange(len(labels)))
    images.note(after_step)
    head = ImageClassificationParams(
        precision=contender.dtype, label_smoothing=0, augmentation=Augmentation(shift=0, crop=CROP[0], flip=0.5)
    )
    params = FinetuneParams(
        head=head, batch=contender.batch, epochs=100_000, learning_rate=5e-5, weight_decay=0, warmup_steps=0
    )
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as made:
        trunk = new_trunk(SHAPES[contender.shape], IMAGE)
        trunk.save(Path(made))
        write_config(Path(made), KIND, trunk.config(), MaskedImageParams().model_dump(mode="json"))
        schema = Schema(IMAGE, "label", tuple(range(CLASSES)))
        _, steps = training(Path(made), Data(images, None), params, 0, schema)
    steps.clip = 1.0
    train(steps)


class _Noted(LabelledImages):
    """Images that say when a step ends: when the next one draws its batch."""

    def note(self, after_step: AfterStep) -> None:
        object.__setattr__(self, "after_step", after_step)  # the images are frozen

    def draw(self, seed: int, step: int, size: int) -> torch.Tensor:
        if step:
            self.after_step(size)  # type: ignore[attr-defined]
        return super().draw(seed, step, size)
