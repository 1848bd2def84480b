"""Learn a trunk from unlabelled data: the flow for the kind of data that the dataset holds."""

from __future__ import annotations

from graftline.component import Context
from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.tasks.pretrain import PretrainParams
from graftline.trunks.objective_parameters import CausalLMParams, MaskedLMParams
from graftline.values.image import ImageColumn


def run(context: Context) -> None:
    """Fill `context.out` with the trunk, its configuration, its metrics and its pictures. Raises InputError."""
    params = context.section("pretrain", PretrainParams)
    schema = read_schema(context.paths["dataset"])
    images = isinstance(schema.feature, ImageColumn)
    if images == isinstance(params.objective, MaskedLMParams | CausalLMParams):
        raise InputError(
            f"{context.where}: pretrain.objective.name", params.objective.name,
            expected="masked_autoencoder or autoencoder" if images else "masked_lm or causal_lm",
            fix=f"the dataset's feature '{schema.feature.name}' is {'images' if images else 'text'}",
        )  # fmt: skip
    if images:
        from graftline.trunks.conv.pretraining import pretrain
    else:
        from graftline.trunks.text.pretraining import pretrain
    pretrain(context, params, schema)
