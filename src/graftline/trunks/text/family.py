"""Learn text trunks: tokenise once, train on packed documents, keep the trunk in Hugging Face layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.learning import distributed
from graftline.learning.memory import keep_freed_memory
from graftline.learning.precision import arithmetic
from graftline.trunks.layout import quiet
from graftline.trunks.rootstock import Rootstock
from graftline.trunks.text.documents import SEES, Documents, open_documents
from graftline.trunks.text.parameters import TextObjectiveParams, TextParams
from graftline.trunks.text.planning import plan
from graftline.trunks.text.recipe import Recipe, training
from graftline.trunks.text.rootstock import RootstockParams, check_learns
from graftline.trunks.text.trunk import build_config, build_model, load_model
from graftline.trunks.training import Family, Planned, Training, start_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from graftline.component import Context
    from graftline.plan.sample import Sample
    from graftline.tasks.pretrain import PretrainParams


class Text(Family):
    plural: ClassVar[str] = "documents"

    sees: ClassVar = SEES

    def check(self, schema: Schema, params: PretrainParams) -> None:
        if params.sizes and distributed.world().size > 1:
            raise InputError(
                "torchrun",
                "pretrain.sizes, which are trained one after the other",
                expected="one trunk",
                fix="leave pretrain.sizes out, or start it without torchrun",
            )

    def arithmetic(self, params: PretrainParams) -> str:
        assert isinstance(params.objective, TextObjectiveParams)
        return arithmetic(params.precision, narrow_on_cpu=params.objective.narrow_on_cpu)

    def prepare(self, context: Context, params: PretrainParams, schema: Schema) -> Iterator[Training]:
        quiet()
        keep_freed_memory()
        rootstock = start_of(params, context)
        if rootstock is not None:
            check_learns(rootstock.folder, params.objective.name)
        documents = open_documents(context, params, schema, rootstock)
        for recipe in _recipes(params, documents, rootstock):
            yield training(documents, params, recipe)

    def plan(self, sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[Planned]:
        return plan(sample, params, trunk, work)


def _recipes(params: PretrainParams, documents: Documents, rootstock: Rootstock | None) -> Iterator[Recipe]:
    """Yield the main trunk's recipe, and those of the sizes to compare it with."""
    if rootstock is None:
        assert isinstance(params.trunk, TextParams)
        yield Recipe("", params.epochs, _untrained(params.trunk, documents), params.trunk)
    else:
        assert isinstance(params.trunk, RootstockParams)
        load = partial(load_model, rootstock.folder, decodes=params.objective.decodes)
        yield Recipe("", params.epochs, load, params.trunk)
    for name, size in params.sizes.items():
        shape = size.trunk.model_copy(update={"max_length": documents.max_length})
        yield Recipe(name, size.epochs, _untrained(shape, documents), shape)


def _untrained(shape: TextParams, documents: Documents) -> Callable[[], PreTrainedModel]:
    config = build_config(shape, documents.tokenizer)
    return partial(build_model, config, decodes=shape.decodes)


FAMILY = Text()
