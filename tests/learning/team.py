"""What each process of a job runs in the tests: a small language model, trained at a desk, on its share of the rows.

    torchrun --nproc-per-node 2 tests/learning/team.py FOLDER '[{"name": "whole"}, {"name": "cut", "end_at": 7}]'

Each plan is trained in its turn; the leader writes FOLDER/<name>.safetensors, the weights that it ended with.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from graftline.errors import GraftlineError, PreemptedError
from graftline.learning import distributed
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.distributed import share, world
from graftline.learning.loop import Desk, Run, train
from graftline.learning.randomness import generator

STEPS, ROWS, LENGTH, VOCABULARY = 12, 10, 6, 20


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inside, self.outside = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.unused = nn.Linear(3, 3)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = hidden + self.outside(self.inside(self.norm(hidden)).tanh())
        return changed


class Model(nn.Module):
    """Predicts a token from the one before; embedding and head are tied, as in BERT and GPT-2."""

    _no_split_modules = ("Layer",)

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 8)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.head = nn.Linear(8, VOCABULARY)
        self.head.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.table(tokens)
        for layer in self.layers:
            hidden = layer(hidden)
        logits: torch.Tensor = self.head(hidden)
        return logits


def make_run(plan: dict[str, Any]) -> Run:
    """Return a run on rows that are drawn for the whole team, and then shared out."""
    torch.manual_seed(0)
    model = Model()

    def loss(step: int) -> torch.Tensor:
        if step == plan.get("end_at") and world().rank == world().size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if step == plan.get("kill_at") and world().rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        tokens = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=generator(0, step, "tokens"))
        mine = share(tokens, world())
        logits = model(mine[:, :-1]).reshape(-1, VOCABULARY)
        summed = nn.functional.cross_entropy(logits, mine[:, 1:].reshape(-1), reduction="sum")
        return summed / (ROWS * (LENGTH - 1))

    kind = torch.optim.SGD if plan.get("sgd") else torch.optim.AdamW
    optimizer = kind(model.parameters(), lr=plan.get("rate", 0.05))
    return Run(model, optimizer, loss, plan.get("steps", STEPS), warmup=0, clip=plan.get("clip"), addends=True)


def main(folder: Path, plans: list[dict[str, Any]]) -> None:
    leave = distributed.leave
    for plan in plans:
        distributed.leave = leave if plan is plans[-1] else distributed.barrier  # a job meets once
        name = plan["name"]
        checkpoints = Checkpoints(folder / name / "checkpoints", "identity", plan.get("every", 1e9))
        desk = Desk(name, folder / name / "metrics.jsonl", checkpoints, ROWS, "rows", shard=plan.get("shard", False))
        run = make_run(plan)
        try:
            train(run, desk)
        except GraftlineError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            if not isinstance(error, PreemptedError):
                sys.exit(error.exit_code)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            continue
        if world().leads:
            run.module(torch.zeros(1, 2, dtype=torch.int64))  # it computes as any other module
            weights = {n: p.detach() for n, p in run.module.named_parameters()}
            save_file(weights, folder / f"{name}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
