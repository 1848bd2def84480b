"""What problems on clips share: examples, the model on a trunk and in a folder, and the joint objective."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import nn

from graftline.canonical import read_json
from graftline.dataset import Schema
from graftline.learning.distributed import World
from graftline.learning.randomness import batch_indices
from graftline.problems.documents import Documents
from graftline.problems.problem import Joint, Model
from graftline.problems.text_parameters import TransformerParams
from graftline.problems.transformer import TransformerModel, TransformerProblem, saved_model, start_model
from graftline.trunks import load_weights, read_config
from graftline.trunks.audio.masked_units import MaskedUnits
from graftline.trunks.audio.parameters import PROCESSOR, MaskedUnitsParams
from graftline.trunks.audio.trunk import (
    KIND,
    NARROW_ON_CPU,
    AudioTrunk,
    inputs,
    pads_count,
    save_network,
    start_filters,
)
from graftline.trunks.image_training import OBJECTIVE_WEIGHTS
from graftline.values.clips import Clips
from graftline.values.splits import read_clips

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DROPOUT = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout")


@dataclass(frozen=True)
class ClipExamples(Documents):
    """Clips of one split, end to end: a sample is to a clip what a token is to a document; `ids` are int16 samples."""

    def waves(self) -> list[np.ndarray]:
        """Return (samples,) int16 of each clip."""
        samples = self.ids.numpy()
        return [samples[start:end] for start, end in pairwise(self.offsets.tolist())]

    @classmethod
    def of(cls, clips: Clips, rows: np.ndarray, **more: np.ndarray) -> Self:
        """Return clips as examples, with further arrays such as `labels`."""
        return cls.from_arrays({"ids": clips.samples.copy(), "offsets": clips.offsets, "rows": rows.copy(), **more})


E = TypeVar("E", bound=ClipExamples)
P = TypeVar("P", bound=TransformerParams)


class AudioModel(TransformerModel[E]):
    """One of transformers' models of speech: HubertForCTC and the like."""

    narrow_on_cpu: ClassVar[bool] = NARROW_ON_CPU
    at_once = 1 << 21
    """Samples that are answered at once, with padding; one clip where padding would count."""

    def __init__(self, network: PreTrainedModel, rate: int, new: frozenset[str], params: TransformerParams) -> None:
        super().__init__(network, new, params)
        self.rate = rate
        if pads_count(network.config):
            self.at_once, self.rows_apart = 1, False

    def inputs(self, examples: E) -> dict[str, torch.Tensor]:
        """Return `input_values` and `attention_mask`, (n, longest) each."""
        return inputs(examples.waves(), self.network.config, self.network.device)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the model in the Hugging Face layout, adapters merged."""
        self.merge_adapters()
        save_network(self.network, self.rate, folder)
        return {}


class AudioProblem(TransformerProblem[E, P], Generic[E, P]):
    """A head on a trunk of sound."""

    plural: ClassVar[str] = "clips"
    model: ClassVar[type[AudioModel[Any]]]

    def read(self, dataset: Path, split: str, folder: Path) -> E:
        found = read_clips(dataset, split)
        labels = {} if found.labels is None else {"labels": found.labels}
        return self.examples.of(found.clips, found.rows, **labels)

    def asked(self, folder: Path, values: list[np.ndarray]) -> E:
        """Return the questions' values as examples without labels."""
        rate = int(read_json(folder / PROCESSOR)["sampling_rate"])
        return self.examples.of(Clips.of(values, rate), np.arange(len(values)))

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> AudioModel[E]:
        settings = {**dict.fromkeys(_DROPOUT, self._params.dropout), **self.settings(schema)}
        network, new = start_model(self.architecture(), trunk, scratch=scratch, kind=KIND, **settings)
        shape = read_config(trunk, KIND)["trunk"]
        if scratch and shape["filters"]:  # a trunk of its shape begins so, before it has learnt anything
            start_filters(network.base_model, shape["rate"])
        model = self.model(network, shape["rate"], new, self._params)
        if self._params.lora is not None:
            model.add_adapters(self._params.lora)
        return model

    def joint(self, trunk: Path, model: Model[E], unlabelled: E, batch: int, *, scratch: bool) -> Joint:
        assert isinstance(model, self.model)
        return JointUnits(trunk, model, unlabelled, batch, scratch=scratch)

    def load(self, folder: Path, facts: dict[str, Any]) -> AudioModel[E]:
        network = saved_model(self.architecture(), folder)
        rate = int(read_json(folder / PROCESSOR)["sampling_rate"])
        return self.model(network, rate, frozenset(), self._params).eval()


class JointUnits:
    """The objective that made the trunk, with the layers of its own that pretraining ended with."""

    def __init__(self, folder: Path, model: AudioModel[Any], clips: ClipExamples, batch: int, *, scratch: bool) -> None:
        """Go on with the objective's layers in `folder`, or with `scratch` with untrained ones, on these clips."""
        params = MaskedUnitsParams.model_validate(read_config(folder, KIND)["objective"])
        base: Any = model.network.base_model
        trunk = AudioTrunk(base, model.rate)
        self._objective = MaskedUnits(trunk, params, model.dtype)
        fresh = {name: weight.clone() for name, weight in self._objective.head.state_dict().items()}
        load_weights(self._objective.head, folder / OBJECTIVE_WEIGHTS, fix="run pretrain again")
        if scratch:  # what is asked stays the same: the units' centres are no weights
            fresh["centres"] = self._objective.head.centres
            self._objective.head.load_state_dict(fresh)
        self.module: nn.Module = self._objective.head.to(model.network.device)
        self._waves, self._batch = clips.waves(), min(batch, len(clips))

    def loss(self, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        chosen = batch_indices(seed + 1, step, self._batch, len(self._waves))
        return self._objective.loss([self._waves[n] for n in chosen.tolist()], seed + 1, step, part)
