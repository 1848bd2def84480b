"""What a contender's process does: set itself up and train for very long."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import transformers
from transformers import Trainer  # noqa: F401  (imported once, before processes are forked)

from bench.rounds import Contender
from bench.text_data import Data
from bench.text_loop import Rates, control_run, finetune, language_model, pretraining_run, train_at_desk
from bench.text_trainer import AfterStep, classification, pretraining, run_trainer
from graftline.learning.memory import keep_freed_memory
from graftline.learning.randomness import seed_everything


def run(contender: Contender, folder: Path, threads: int, after_step: AfterStep, *, steps: int) -> None:
    """Train as `contender` says; `after_step` ends it by ending the process, or it ends after `steps` steps."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    if contender.keeps_memory:
        keep_freed_memory()
    data = Data(folder, contender.shape)
    if contender.loop == "graftline":
        seed_everything(0, threads)
        _train(contender, data, after_step, steps)
        return
    recipe = classification(data) if contender.rows == "labelled" else pretraining(data, contender.rows)
    if contender.loop == "control":
        train_at_desk(control_run(recipe, batch=contender.batch, steps=steps, after_step=after_step))
    else:
        run_trainer(recipe, batch=contender.batch, dtype=contender.dtype, steps=steps, after_step=after_step)


def _train(contender: Contender, data: Data, after_step: AfterStep, steps: int) -> None:
    if contender.rows == "labelled":
        finetune(data, batch=contender.batch, dtype=contender.dtype, after_step=after_step)
        return
    objective = language_model(data, contender.dtype)
    train_at_desk(pretraining_run(objective, data, steps=steps, rates=Rates(), after_step=after_step))
