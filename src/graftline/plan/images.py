"""Pretraining on images, for a plan."""

from __future__ import annotations

from pathlib import Path

import torch

from graftline.dataset import UNLABELLED, read_images
from graftline.plan.measure import Step
from graftline.plan.parts import Fit, Part
from graftline.plan.sample import Sample
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks.conv.pretraining import steps_for, training, write


def pretrain_images(sample: Sample, params: PretrainParams, trunk: Path) -> tuple[Part, Step]:
    """Return the pretraining of an image trunk and a step of it, and write an untrained one into the folder `trunk`."""
    pixels = torch.from_numpy(read_images(sample.folder, UNLABELLED).pixels)
    objective, run = training(params, sample.schema, pixels)
    write(trunk, params, objective)
    fits = (Fit(steps_for(params, sample.rows[UNLABELLED]), params.batch),)
    return Part("pretrain", "", fits, "images"), Step(run, params.batch)
