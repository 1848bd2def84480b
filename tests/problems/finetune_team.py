"""What each process of a job runs in the tests: one step of fine-tuning, on its share of the batch.

    torchrun --nproc-per-node 2 tests/problems/finetune_team.py FOLDER '[{"name": "images", ...}]'

Each plan is done in its turn; the leader writes FOLDER/<name>-start.safetensors and FOLDER/<name>.safetensors, the
states that it began and ended with. Heads start at zero, which no gradient passes: they are filled before. The
optimizer is gradient descent at rate 1: the weights change by the gradient.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model

from graftline.dataset import read_schema
from graftline.learning import distributed
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.distributed import world
from graftline.learning.loop import Desk
from graftline.learning.randomness import seed_everything
from graftline.problems import fit
from graftline.problems.fit import Data
from graftline.problems.registry import make_problem
from graftline.tasks.finetune import FinetuneParams


def descent_of_filled(model: Any, joint: Any, params: FinetuneParams) -> torch.optim.Optimizer:
    draw = torch.Generator().manual_seed(0)
    for weight in model.head_parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=draw)
    joined = [*model.parameters(), *(joint.module.parameters() if joint else ())]
    return torch.optim.SGD([weight for weight in joined if weight.requires_grad], lr=1.0)


def main(folder: Path, plans: list[dict[str, Any]]) -> None:

    def optimizer(model: Any, joint: Any, params: FinetuneParams) -> torch.optim.Optimizer:
        found = descent_of_filled(model, joint, params)
        if world().leads:
            save_model(model, str(folder / f"{plan['name']}-start.safetensors"))
        return found

    fit._optimizer = optimizer
    leave = distributed.leave
    for plan in plans:
        distributed.leave = leave if plan is plans[-1] else distributed.barrier  # a job meets once
        params = FinetuneParams.model_validate(plan["finetune"])
        dataset, trunk = Path(plan["dataset"]), Path(plan["trunk"])
        head = make_problem(params.head, read_schema(dataset))
        train = head.read(dataset, "train", trunk)
        train = train.take(torch.arange(params.batch))
        unlabelled = head.read(dataset, "unlabelled", trunk) if params.joint_weight else None
        checkpoints = Checkpoints(folder / plan["name"] / "checkpoints", "identity", 1e9)
        desk = Desk(plan["name"], folder / plan["name"] / "metrics.jsonl", checkpoints, params.batch)
        model = fit.fit(trunk, Data(train, None, unlabelled), params, 0, read_schema(dataset), desk=desk)
        if world().leads:
            save_model(model, str(folder / f"{plan['name']}.safetensors"))


if __name__ == "__main__":
    seed_everything(0, threads=1)
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
