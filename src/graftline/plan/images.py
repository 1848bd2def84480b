"""Pretraining on images, for a plan."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from graftline.dataset import UNLABELLED
from graftline.learning.randomness import batch_indices
from graftline.plan.measure import Step
from graftline.plan.sample import Sample
from graftline.plan.workload import Fit, Part
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks import WEIGHTS, write_config
from graftline.trunks.conv.trunk import KIND, ConvTrunk
from graftline.trunks.objective_parameters import CausalLMParams, MaskedLMParams
from graftline.trunks.objectives import WEIGHTS as OBJECTIVE_WEIGHTS
from graftline.trunks.objectives import build_objective
from graftline.trunks.parameters import ConvParams
from graftline.values.splits import read_images


def pretrain_images(sample: Sample, params: PretrainParams, trunk: Path) -> tuple[Part, Step]:
    """Return the pretraining of an image trunk and a step of it, and write an untrained one into the folder `trunk`."""
    assert isinstance(params.trunk, ConvParams)
    assert not isinstance(params.objective, MaskedLMParams | CausalLMParams)
    pixels = torch.from_numpy(read_images(sample.folder, UNLABELLED).pixels)
    objective = build_objective(ConvTrunk(params.trunk, sample.schema.image.shape), params.objective)
    save_file(objective.trunk.state_dict(), trunk / WEIGHTS)
    save_file(objective.decoder.state_dict(), trunk / OBJECTIVE_WEIGHTS)
    write_config(trunk, KIND, objective.trunk.config(), params.objective.model_dump(mode="json"))

    def loss(step: int) -> torch.Tensor:
        chosen = batch_indices(params.seed, step, params.batch, len(pixels))
        return objective.loss(pixels[chosen], params.seed, step)

    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-9, fused=True)
    steps = max(1, int(params.epochs * sample.rows[UNLABELLED] / params.batch))
    fits = (Fit(steps, params.batch),)
    return Part("pretrain", "", fits, "images"), Step(objective, [optimizer], loss, params.batch)
