"""Learn trunks of sound: cluster the frames, hide stretches of clips, keep the trunk; from scratch or a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from graftline.dataset import UNLABELLED, Schema, read_schema
from graftline.durable import write_new
from graftline.errors import InputError
from graftline.learning.device import compile_if_worth, device
from graftline.learning.distributed import world
from graftline.learning.loop import Run
from graftline.learning.randomness import generator
from graftline.text.batches import Batches
from graftline.trunks import write_config
from graftline.trunks.audio.masked_units import MaskedUnits
from graftline.trunks.audio.parameters import HubertParams, MaskedUnitsParams
from graftline.trunks.audio.rootstock import open_checkpoint
from graftline.trunks.audio.trunk import KIND, NARROW_ON_CPU, AudioTrunk, frames_of, inputs, new_network, seen_samples
from graftline.trunks.audio.units import k_means
from graftline.trunks.image_training import OBJECTIVE_WEIGHTS
from graftline.trunks.rootstock import Rootstock
from graftline.trunks.training import Family, Planned, Training, optimizers_of, start_of
from graftline.values.audio import AudioColumn
from graftline.values.clips import Clips
from graftline.values.splits import read_clips

if TYPE_CHECKING:
    from graftline.component import Context
    from graftline.plan.sample import Sample
    from graftline.tasks.pretrain import PretrainParams

_CLUSTERED_CLIPS, _CLUSTERED_FRAMES = 500, 20_000
"""What the units are found from, at most."""


class Audio(Family):
    plural: ClassVar[str] = "clips"

    sees: ClassVar = (AudioColumn,)

    narrow_on_cpu: ClassVar = NARROW_ON_CPU

    def prepare(self, context: Context, params: PretrainParams, schema: Schema) -> Iterator[Training]:
        yield training(context.paths["dataset"], params, start_of(params, context))

    def plan(self, sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[Planned]:
        made = training(sample.folder, params, start_of(params))
        made.write(trunk)
        assert callable(made.batch) and made.run.rows
        frames = float(np.mean([made.batch(step) for step in range(max(1, made.run.steps))]))
        clips = float(np.mean([len(made.run.rows(step)) for step in range(max(1, made.run.steps))]))
        steps = math.ceil(params.epochs * sample.rows[UNLABELLED] / clips)
        yield Planned(made, clips, frames, steps, clips)


def training(dataset: Path, params: PretrainParams, start: Rootstock | None) -> Training:
    """Return the training of a trunk on the pool of a dataset. Raises InputError."""
    assert isinstance(params.objective, MaskedUnitsParams)
    column, pool = read_schema(dataset).only(AudioColumn), read_clips(dataset, UNLABELLED)
    clips, rows = pool.clips, pool.rows
    torch.manual_seed(params.seed)
    if start is None:
        assert isinstance(params.trunk, HubertParams)
        network = new_network(params.trunk, column.rate)
    else:
        network = open_checkpoint(start.folder, column)
    trunk = AudioTrunk(network, column.rate)
    objective = MaskedUnits(trunk, params.objective, FAMILY.arithmetic(params))
    objective.head.centres.copy_(_centres(objective, clips, params))
    objective.to(device())
    longest = round(params.objective.crop_seconds * column.rate)
    frames = frames_of(trunk.config, np.minimum(clips.lengths, longest)).clip(1)
    batches = Batches(frames, params.batch_tokens, params.seed)
    steps = max(1, math.ceil(params.epochs * batches.per_epoch)) if params.epochs else 0
    compile_if_worth(trunk.network.encoder, steps)
    part = world()

    def loss(step: int) -> torch.Tensor:
        return objective.loss([clips[int(n)] for n in batches.documents(step)], params.seed, step, part)

    optimizers = optimizers_of(objective, params, {id(objective.head.output.weight)})
    run = Run(
        objective, optimizers, loss, steps, params.warmup_steps,
        rows=lambda step: rows[batches.documents(step)].tolist(), addends=True,
    )  # fmt: skip

    def write(folder: Path) -> dict[str, float]:
        from safetensors.torch import save

        folder.mkdir(parents=True, exist_ok=True)
        trunk.save(folder)
        write_config(
            folder, KIND, {"rate": column.rate, "filters": start is None}, params.objective.model_dump(mode="json")
        )
        write_new(folder / OBJECTIVE_WEIGHTS, save(objective.head.state_dict()))
        return {
            "clips": len(clips),
            "seconds": len(clips.samples) / column.rate,
            "frames": int(frames.sum()),
            "steps": steps,
        }

    return Training(run, batches.tokens, "frames", write)


@torch.no_grad()
def _centres(objective: MaskedUnits, clips: Clips, params: PretrainParams) -> torch.Tensor:
    """Return the centres of some frames of the pool. Raises InputError: no clip has a frame."""
    assert isinstance(params.objective, MaskedUnitsParams)
    config, draw = objective.trunk.config, generator(params.seed, 0, "units")
    counts = frames_of(config, clips.lengths)
    if not counts.any():
        raise InputError(
            "pretrain.trunk", f"no clip has the {seen_samples(config)} samples that a frame sees",
            expected="longer clips, or smaller kernels",
        )  # fmt: skip
    chosen = torch.randperm(len(clips), generator=draw)[:_CLUSTERED_CLIPS].tolist()
    found = []
    for piece, count in zip(objective.pieces([clips[n] for n in chosen], draw), counts[chosen], strict=True):
        waves = inputs([piece], config, torch.device("cpu"))["input_values"]
        found.append(
            objective.spectra(waves, max(1, min(int(count), int(frames_of(config, np.array([len(piece)]))[0]))))[0]
        )
    frames = torch.cat(found)
    some = torch.randperm(len(frames), generator=draw)[:_CLUSTERED_FRAMES]
    return k_means(frames[some], params.objective.clusters, draw)


FAMILY = Audio()
