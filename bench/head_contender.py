"""What a contender's process does on a shipped task: set itself up and train for very long."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Trainer  # noqa: F401  (imported once, before processes are forked)

from bench.head_data import params_of
from bench.head_trainer import recipe
from bench.rounds import Contender
from bench.text_loop import control_run, train_at_desk
from bench.text_trainer import AfterStep, run_trainer
from graftline.dataset import read_schema
from graftline.learning.memory import keep_freed_memory
from graftline.learning.randomness import seed_everything
from graftline.problems.fit import Data, fit
from graftline.problems.registry import make_problem


def run(contender: Contender, folder: Path, threads: int, after_step: AfterStep, *, steps: int) -> None:
    """Train as `contender` says; `after_step` ends it by ending the process, or it ends after `steps` steps."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if contender.keeps_memory:
        keep_freed_memory()
    changes = {"head.precision": contender.dtype, "batch": contender.batch, "epochs": 100_000, "patience": None}
    params, schema, trunk = params_of(contender.shape, **changes), read_schema(folder / "dataset"), folder / "trunk"
    problem = make_problem(params.head, schema)
    with np.load(folder / "train.npz") as arrays:
        examples = problem.examples.from_arrays(dict(arrays))
    if contender.loop == "graftline":
        seed_everything(0, threads)
        fit(trunk, Data(_noted(examples, after_step), None), params, 0, schema)
        return
    model = problem.build(trunk, schema, scratch=False)
    model.begin(examples)
    made = recipe(model, examples, trunk, params.head, contender.rows, contender.form)
    if contender.loop == "control":
        train_at_desk(control_run(made, batch=contender.batch, steps=steps, after_step=after_step))
    else:
        more: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if contender.rows == "by_length" else {}
        run_trainer(made, batch=contender.batch, dtype=contender.dtype, steps=steps, after_step=after_step, **more)


def _noted(examples: Any, after_step: AfterStep) -> Any:
    """Return the examples, which say when a step ends: when the next one draws its batch."""

    class Noted(type(examples)):  # type: ignore[misc]
        def draw(self, seed: int, step: int, size: int) -> torch.Tensor:
            if step:
                after_step(size)
            drawn: torch.Tensor = super().draw(seed, step, size)
            return drawn

    return Noted.from_arrays(examples.arrays())
