"""The joint objective of text heads: the language modelling that made the trunk goes on beside the head's loss."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import nn

from graftline.learning.distributed import World
from graftline.learning.randomness import generator
from graftline.problems.documents import Documents
from graftline.problems.transformer import TextModel, start_model
from graftline.text.batches import Batches, pack
from graftline.trunks import read_config
from graftline.trunks.text.objectives import build_language_model
from graftline.trunks.text.parameters import TextObjectiveParams
from graftline.trunks.text.trunk import KIND

_CLASSES = {
    "encoder": "AutoModelForMaskedLM", "decoder": "AutoModelForCausalLM", "encoder-decoder": "AutoModelForSeq2SeqLM"
}  # fmt: skip


class JointLanguageModel:
    """Asks the model's own trunk for tokens of unlabelled documents, with a prediction head of its own."""

    def __init__(self, folder: Path, model: TextModel[Any], documents: Documents, batch: int, *, scratch: bool) -> None:
        """Go on with the prediction head that pretraining ended with, or with `scratch` with an untrained one.

        Args:
            folder: of the trunk.
            model: whose trunk is asked.
            documents: to learn from.
            batch: documents a step, about.
            scratch: whether the prediction head starts untrained.
        """
        import transformers

        params: TextObjectiveParams = TypeAdapter(
            Annotated[TextObjectiveParams, Field(discriminator="name")]
        ).validate_python(read_config(folder, KIND)["objective"])
        network, _ = start_model(getattr(transformers, _CLASSES[params.form]), folder, scratch=scratch)
        setattr(network, network.base_model_prefix, model.network.base_model)
        network.to(model.network.device)  # type: ignore[arg-type]
        network.tie_weights()  # the prediction head and the model's own embeddings
        self._objective = build_language_model(network, model.tokenizer, model.dtype, params)
        trunk = {id(parameter) for parameter in model.parameters()}
        own = [(name, p) for name, p in network.named_parameters() if id(p) not in trunk]
        self.module = nn.ParameterDict({name.replace(".", "/"): parameter for name, parameter in own})
        lengths = documents.lengths.numpy()
        self._documents, self._lengths = documents, lengths
        tokens = max(1, round(batch * float(lengths.mean())))
        self._plan = cache(lambda seed: Batches(lengths, tokens, seed))

    def loss(self, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        chosen = self._plan(seed).documents(step)
        ids = self._documents.take(torch.from_numpy(chosen)).ids.numpy()
        packed = pack(ids, self._lengths[chosen], chosen)
        return self._objective.loss(packed, generator(seed, step, "mask"), part)
