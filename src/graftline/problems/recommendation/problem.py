"""Recommendation: which items belong to a history, ranked; the masked-item model that pretraining began goes on.

trunk: histories with a part hidden  ->  model: the same question, on the users that are learned from
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from graftline.dataset import Schema
from graftline.learning.device import device
from graftline.learning.distributed import World
from graftline.learning.precision import arithmetic, autocast
from graftline.learning.randomness import batch_indices
from graftline.problems.problem import Joint, Model, Problem
from graftline.problems.recommendation.answers import Rankings, rank
from graftline.problems.recommendation.examples import Histories, of_questions, read
from graftline.problems.recommendation.parameters import RecommendationParams
from graftline.problems.recommendation.showing import show
from graftline.trunks import read_config
from graftline.trunks.items.objective import MaskedItems
from graftline.trunks.items.parameters import ItemsParams, MaskedItemsParams
from graftline.trunks.items.trunk import KIND, ItemTrunk, load_joined, load_trunk, padded
from graftline.trunks.items.vocabulary import Vocabulary, load_vocabulary
from graftline.values.items import ItemsColumn


class Recommender(Model[Histories]):
    """Histories to (n, items) logits: all of it is the trunk's, and nothing starts anew."""

    def __init__(self, trunk: ItemTrunk, objective: MaskedItemsParams, params: RecommendationParams) -> None:
        super().__init__()
        self.dtype = arithmetic(params.precision, narrow_on_cpu=False)
        self.objective, self.params = MaskedItems(trunk, objective, self.dtype), params
        self.to(device())

    @property
    def trunk(self) -> ItemTrunk:
        return self.objective.trunk

    def head_parameters(self) -> list[nn.Parameter]:
        return []

    def trunk_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def freeze_trunk(self) -> None:
        """Learn the items' biases alone: how often each is wanted."""
        self.requires_grad_(False)
        self.trunk.bias.requires_grad_(True)

    def loss(self, examples: Histories, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        return self.objective.loss(examples.whole(), seed, step, part)

    @torch.inference_mode()
    def scores(self, examples: Histories, *, fast: bool = False) -> torch.Tensor:
        """Return (n, items) float32 logits on the CPU, of what is given of each history."""
        self.eval()
        place = self.trunk.bias.device
        with autocast(self.dtype if fast else "float32", place):
            vectors, bias = self.trunk.table()
            ids = padded(examples.given(), self.trunk.vocabulary.padding, place)
            return self.trunk.logits(self.trunk.states(ids, vectors), vectors, bias).cpu()

    def answer(self, examples: Histories, *, fast: bool = False) -> Rankings:
        vocabulary = self.trunk.vocabulary
        return rank(lambda part: self.scores(part, fast=fast), examples, vocabulary, self.params.scores)

    def save(self, folder: Path) -> dict[str, Any]:
        self.trunk.save_joined(folder)
        return {"trunk": self.trunk.params.model_dump(mode="json")}


class Recommendation(Problem[Histories]):
    """Learns which items a history lacks."""

    roles: ClassVar = {"items": ItemsColumn}
    examples = Histories
    loss_unit = "nats a hidden item"
    header = ("items", "unknown")
    amount, plural = "users", "histories"
    weighs = False

    def __init__(self, params: RecommendationParams) -> None:
        self._params = params

    @property
    def params(self) -> RecommendationParams:
        return self._params

    def environment(self, trunk: Path) -> dict[str, str]:
        return {"dtype": arithmetic(self._params.precision, narrow_on_cpu=False)}

    def read(self, dataset: Path, split: str, folder: Path) -> Histories:
        return read(dataset, split, load_vocabulary(folder))

    def present(self, answers: Rankings, examples: Histories, dataset: Path, out: Path, mistakes: int) -> None:
        show(answers, examples, dataset, out, mistakes)

    def ask(
        self, folder: Path, model: Model[Histories], values: list[list[str]], schema: Schema
    ) -> list[dict[str, Any]]:
        """Return the best `items` of each history with `probability` (and `name`), and which of its own are unknown."""
        assert isinstance(model, Recommender)
        vocabulary = model.trunk.vocabulary
        asked = of_questions([vocabulary.known(history) for history in values])
        found = rank(model.scores, asked, vocabulary, self._params.scores, self._params.top)
        return [
            {
                "items": [
                    _item(vocabulary, item, share) for item, share in zip(best, shares, strict=True) if share > 0
                ],
                "unknown": [item for item in history if item not in vocabulary.numbers],
            }
            for history, best, shares in zip(values, found.top.tolist(), found.shares.tolist(), strict=True)
        ]

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        best = [f"{one.get('name', one['item'])} ({one['probability']:.4f})" for one in answer["items"]]
        return ", ".join(best), ", ".join(answer["unknown"])

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> Recommender:
        return Recommender(load_trunk(trunk, weights=not scratch), _objective(trunk), self._params)

    def joint(self, trunk: Path, model: Model[Histories], unlabelled: Histories, batch: int, *, scratch: bool) -> Joint:
        assert isinstance(model, Recommender)
        return JointItems(model.objective, unlabelled, batch)

    def load(self, folder: Path, facts: dict[str, Any]) -> Recommender:
        trunk = load_joined(folder, ItemsParams.model_validate(facts["trunk"]))
        return Recommender(trunk, MaskedItemsParams(), self._params).eval()


def _item(vocabulary: Vocabulary, number: int, share: float) -> dict[str, Any]:
    item = vocabulary.items[number]
    name = {"name": vocabulary.names[item]} if item in vocabulary.names else {}
    return {"item": item, **name, "probability": share}


def _objective(trunk: Path) -> MaskedItemsParams:
    return MaskedItemsParams.model_validate(read_config(trunk, KIND)["objective"])


class JointItems:
    """The same question on histories of the pool; it has no layers of its own."""

    def __init__(self, objective: MaskedItems, pool: Histories, batch: int) -> None:
        self.module = nn.Module()
        self._objective, self._pool, self._batch = objective, pool, min(batch, len(pool))

    def loss(self, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        chosen = batch_indices(seed + 1, step, self._batch, len(self._pool))
        return self._objective.loss(self._pool.take(chosen).whole(), seed + 1, step, part)
