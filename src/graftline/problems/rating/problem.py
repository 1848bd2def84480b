"""Ratings: what a user gives an item, by what he gave others; on a trunk of histories.

trunk: histories with a part hidden  ->  model: ratings with a part hidden, of the users that are learned from
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from graftline.dataset import Schema
from graftline.durable import write_new
from graftline.errors import InputError
from graftline.learning.device import device, send
from graftline.learning.distributed import World, share
from graftline.learning.precision import arithmetic, autocast
from graftline.learning.randomness import generator
from graftline.problems.documents import by_length, token_positions
from graftline.problems.groups import Groups
from graftline.problems.problem import LABEL, Joint, Model, Problem
from graftline.problems.rating import asking, opening
from graftline.problems.rating.answers import Range, RatingAnswers
from graftline.problems.rating.biases import Told, choose, item_sums
from graftline.problems.rating.examples import Rated, Tables, of_questions, read
from graftline.problems.rating.head import Known, RatingHead, Rows
from graftline.problems.rating.parameters import RatingParams
from graftline.problems.rating.showing import show
from graftline.problems.recommendation.problem import JointItems
from graftline.problems.regression import half_widths
from graftline.trunks import load_weights, read_config
from graftline.trunks.items.objective import MaskedItems, hidden_counts, hide
from graftline.trunks.items.parameters import ItemsParams, MaskedItemsParams
from graftline.trunks.items.trunk import KIND, ItemTrunk, load_joined, load_trunk
from graftline.trunks.items.vocabulary import load_vocabulary
from graftline.values.column import Questions
from graftline.values.items import ItemsColumn
from graftline.values.ratings import RatingLabel

_HEAD = "head.safetensors"
_CELLS = 1 << 21
"""Items asked for times items given of all users, that are computed at once."""
_ASKED = 4096
"""Items of a user that are asked for at once, at most."""
_DRAWN = 1 << 24
"""Random numbers that are drawn at once."""


class Rater(Model[Rated]):
    """Histories with ratings to the ratings of other items."""

    reach: float | None = None
    """How far an interval reaches to each side, in the label's unit; None without."""
    in_sums = True
    """Whether the ratings of those that are learned from are in the sums that the head has of each item."""

    def __init__(self, trunk: ItemTrunk, params: RatingParams) -> None:
        super().__init__()
        self.dtype = arithmetic(params.precision, narrow_on_cpu=False)
        self.trunk, self.params = trunk, params
        self.on_top = RatingHead(len(trunk.vocabulary), trunk.params.width)
        self.to(device())

    @property
    def place(self) -> torch.device:
        return self.trunk.bias.device

    def head_parameters(self) -> list[nn.Parameter]:
        return list(self.on_top.parameters())

    def trunk_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.trunk.parameters() if parameter.requires_grad]

    def freeze_trunk(self) -> None:
        self.trunk.requires_grad_(False)

    def begin(self, train: Rated) -> None:
        """Take the ratings' mean, deviation and ends, and how high each item is rated."""
        self.in_sums, ratings = True, train.rated.numpy()
        deviation = float(ratings.std())
        scale = float(ratings.mean()), deviation or 1.0, float(ratings.min()), float(ratings.max())
        told = Told(train.of.numpy(), train.ids.long().numpy(), (ratings - scale[0]) / scale[1], len(train))
        hidden = _drawn(train.lengths, generator(0, 0, "ridges"), 0.3).numpy()
        items = len(self.trunk.vocabulary)
        ridges = choose(told, items, hidden)
        sums, counts = item_sums(told, items, ridges)
        self.on_top.take(torch.from_numpy(sums), torch.from_numpy(counts), ridges, scale)

    def go_on_from(self, other: Model[Rated]) -> None:
        """As the base says; the sums are of other users, in federated rounds the coordinator's."""
        super().go_on_from(other)
        self.in_sums = False

    def loss(self, examples: Rated, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean squared error of what a step hides, in variances of the training ratings, a scalar."""
        here, whole = part or World(), examples.tables()
        ordered = self.trunk.vocabulary.ordered
        hidden = hide(whole.given, generator(seed, step, "hide"), self.params.hide_ratio, last=ordered)
        draw = generator(seed, step, "forget")
        kept = torch.rand(len(self.trunk.vocabulary), generator=draw) >= self.params.forget
        torch.manual_seed(generator(seed, step, f"dropout {here.rank}").initial_seed())
        mine = Tables(*(share(table, here) for table in (whole.ids, whole.ratings, whole.given & ~hidden, hidden)))
        seen = send(kept, self.place) if self.trunk.words is not None else None
        own = share(whole.given, here) if self.in_sums else None
        found, standard = self._outputs(mine, self.dtype, kept=seen, own=own)
        wanted = mine.asked.to(found.device)
        return (found - standard)[wanted].square().sum() / hidden.sum()

    def _outputs(
        self, tables: Tables, dtype: str, *, kept: torch.Tensor | None = None, own: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (n, longest) float32 outputs of all items in `tables`, and their standard ratings.

        Of users whose ratings are in the head's sums, `own` says which are theirs, (n, longest) bool.
        """
        place, head = self.place, self.on_top
        ids, given = send(tables.ids, place), send(tables.given, place)
        ratings = send(head.standard(tables.ratings.to(head.scale.device)).cpu(), place)
        known = self._known(ids, given, dtype, kept)
        added = None
        if own is not None:
            added = self._added(ids, ratings, send(own, place))
        rows = Rows(ids, added)
        return head(known, rows, ratings * given, given, rows, kept), ratings

    def _known(self, ids: torch.Tensor, given: torch.Tensor, dtype: str, kept: torch.Tensor | None) -> Known:
        """Return what the trunk makes of (n, any) items of which some are given, in float32."""
        with autocast(dtype, self.place):
            vectors, bias = self.trunk.table(kept)
            seen = ids.masked_fill(~given | (ids < 0), self.trunk.vocabulary.padding)
            states = self.trunk.head(self.trunk.states(seen, vectors))
        return Known(vectors.float(), bias.float(), states.float())

    def _added(self, ids: torch.Tensor, ratings: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return (n, any): what a user's rating of an item adds to the item's sum."""
        head = self.on_top
        biases = (head.sums / (head.counts + head.ridges[0]))[ids.clamp(min=0)]
        left = (ratings - biases) * own
        mean = left.sum(dim=1, keepdim=True) / (own.sum(dim=1, keepdim=True) + head.ridges[1])
        return (ratings - mean) * own

    @torch.inference_mode()
    def tell(self, examples: Rated, *, fast: bool = False) -> np.ndarray:
        """Return (m,) float64 ratings of what is held out, in the label's unit, one user after the other."""
        self.eval()
        counts = torch.zeros(len(examples), dtype=torch.int64).index_add_(0, examples.of, examples.held_out.long())
        starts, found = counts.cumsum(0) - counts, torch.zeros(int(counts.sum()), dtype=torch.float64)
        for chosen in by_length(examples.lengths.square(), _CELLS):
            taken, dtype = examples.take(chosen).tables(), self.dtype if fast else "float32"
            if taken.ids.shape[1] ** 2 > _CELLS:  # one user
                outputs = self._told_in_parts(taken, dtype)
            else:
                outputs = self._outputs(taken, dtype)[0][send(taken.asked, self.place)]
            found[token_positions(starts[chosen], counts[chosen])] = self.on_top.rating(outputs)
        return found.numpy()

    def _told_in_parts(self, one: Tables, dtype: str) -> torch.Tensor:
        """Return (asked,) float32 outputs of one user, the asked items a part at a time."""
        place, head = self.place, self.on_top
        some = one.given if one.given.any() else torch.arange(one.ids.shape[1])[None] == 0  # a place that is not seen
        ids, seen, ratings = (send(of[some][None], place) for of in (one.ids, one.given, one.ratings))
        ratings = head.standard(ratings) * seen
        known = self._known(ids, seen, dtype, None)
        parts = send(one.ids[one.asked], place).split(max(1, min(_ASKED, _CELLS // ids.shape[1])))
        return torch.cat([head(known, Rows(ids), ratings, seen, Rows(part[None]))[0] for part in parts])

    def rate(self, given: dict[int, float], asked: list[int]) -> np.ndarray:
        """Return (asked,) float64: what a user who rated some items gives others, all by number."""
        return self.tell(of_questions([list(given)], [list(given.values())], [asked])) if asked else np.zeros(0)

    def answer(self, examples: Rated, *, fast: bool = False) -> RatingAnswers:
        asked = examples.held_out
        ratings, predicted = examples.rated[asked].numpy(), self.tell(examples, fast=fast)
        of = Range(*self.on_top.scale.tolist())
        loss = float(np.square((ratings - predicted) / of.deviation).mean())
        return RatingAnswers(
            self.params.scores, examples.units()["row"], loss, self.trunk.vocabulary,
            examples.ids.long()[asked].numpy(), ratings, predicted, self.reach, of,
        )  # fmt: skip

    def calibrate(self, val: Rated, groups: Groups | None = None) -> None:
        """Take how far told ratings are off, users counting alike, or the contract's groups of them.

        The promise is about a rating of a new user, not about the share of all ratings. Intervals end where the
        training ratings do: no rating is told beyond them.
        """
        rows = val.units()["row"]
        errors = val.rated[val.held_out].numpy() - self.tell(val)
        together = rows if groups is None else groups.of(rows)
        half = half_widths(errors[:, None], self.params, together)
        self.reach = None if half is None else float(half[0])

    def save(self, folder: Path) -> dict[str, Any]:
        from safetensors.torch import save

        self.trunk.save_joined(folder)
        state = {name: tensor.contiguous().cpu() for name, tensor in self.on_top.state_dict().items()}
        write_new(folder / _HEAD, save(state))
        opening.write(folder)
        return {
            "trunk": self.trunk.params.model_dump(mode="json"), "half_width": self.reach,
            "ratings": asdict(Range(*self.on_top.scale.tolist())),
        }  # fmt: skip


class Rating(Problem[Rated]):
    """Learns how users rate items."""

    roles: ClassVar = {"items": ItemsColumn, LABEL: RatingLabel}
    examples = Rated
    loss_unit = "squared error in variances"
    header = ("ratings", "unknown")
    amount, plural = "users", "rated histories"
    weighs = False

    def __init__(self, params: RatingParams) -> None:
        self._params = params

    @property
    def params(self) -> RatingParams:
        return self._params

    def environment(self, trunk: Path) -> dict[str, str]:
        return {"dtype": arithmetic(self._params.precision, narrow_on_cpu=False)}

    def read(self, dataset: Path, split: str, folder: Path) -> Rated:
        found = read(dataset, split, load_vocabulary(folder))
        if found.ratings is None:
            return found
        measured = bool(found.held_out.any())  # R2 is of held-out ratings; of train none are
        ratings = found.rated[found.held_out] if measured else found.rated
        if len(ratings.unique()) < 2:
            which = "held-out ratings" if measured else "ratings"
            raise InputError(
                dataset / f"{split}.parquet", f"all {len(ratings)} {which} are {ratings[0]:g}",
                expected="at least two different ones", fix="give more rows, or another label",
            )  # fmt: skip
        return found

    def present(self, answers: RatingAnswers, examples: Rated, dataset: Path, out: Path, mistakes: int) -> None:
        show(answers, examples, dataset, out, mistakes)

    def questions(self, schema: Schema, paths: list[Path], texts: list[str]) -> Questions:
        return asking.questions(schema, paths, texts)

    def ask(
        self, folder: Path, model: Model[Rated], values: list[asking.Asked], schema: Schema
    ) -> list[dict[str, Any]]:
        """Return of each user `items`, each an `item` (and `name`), `rating`, `low` and `high`, the highest first, and
        `unknown`: which of the items that were named the model does not know.

        They are the items that were asked for, or the `top` of all that were not given. Raises InputError for a rating
        outside those that were learned from.
        """
        assert isinstance(model, Rater)
        vocabulary, of = model.trunk.vocabulary, Range(*model.on_top.scale.tolist())
        found = []
        for one in values:
            one.check(of.least, of.largest)
            given = {vocabulary.numbers[item]: r for item, r in one.rated.items() if item in vocabulary.numbers}
            if one.asked is None:
                wanted = [number for number in range(len(vocabulary)) if number not in given]
            else:
                wanted = [vocabulary.numbers[item] for item in one.asked if item in vocabulary.numbers]
            told = model.rate(given, wanted)
            order = np.argsort(-told, kind="stable")[: self._params.top if one.asked is None else None]
            named = [*one.rated, *(one.asked or ())]
            found.append(
                {
                    "items": [_item(model, wanted[place], float(told[place]), of) for place in order.tolist()],
                    "unknown": [item for item in named if item not in vocabulary.numbers],
                }
            )
        return found

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        told = [
            f"{one.get('name', one['item'])} {one['rating']:.4g}"
            + (f" ({one['low']:.4g} to {one['high']:.4g})" if "low" in one else "")
            for one in answer["items"]
        ]
        return ", ".join(told), ", ".join(answer["unknown"])

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> Rater:
        return Rater(load_trunk(trunk, weights=not scratch), self._params)

    def joint(self, trunk: Path, model: Model[Rated], unlabelled: Rated, batch: int, *, scratch: bool) -> Joint:
        assert isinstance(model, Rater)
        params = MaskedItemsParams.model_validate(read_config(trunk, KIND)["objective"])
        return JointItems(MaskedItems(model.trunk, params, model.dtype), unlabelled, batch)

    def load(self, folder: Path, facts: dict[str, Any]) -> Rater:
        trunk = load_joined(folder, ItemsParams.model_validate(facts["trunk"]))
        model = Rater(trunk, self._params)
        load_weights(model.on_top, folder / _HEAD, fix="run finetune again")
        half = facts["half_width"]
        model.reach = None if half is None else float(half)
        return model.eval()


def _item(model: Rater, number: int, rating: float, of: Range) -> dict[str, Any]:
    item, names = model.trunk.vocabulary.items[number], model.trunk.vocabulary.names
    found: dict[str, Any] = {"item": item, **({"name": names[item]} if item in names else {}), "rating": rating}
    if model.reach is not None:
        found |= {"low": max(of.least, rating - model.reach), "high": min(of.largest, rating + model.reach)}
    return found


def _drawn(lengths: torch.Tensor, draw: torch.Generator, largest: float) -> torch.Tensor:
    """Return (ratings,) bool, user after user: what `hide` draws of users of (n,) lengths, in bounded memory."""
    width, counts = int(lengths.max()), hidden_counts(lengths, draw, largest)
    keys = [
        torch.rand(len(part), width, generator=draw)[torch.arange(width) < part[:, None]]
        for part in lengths.split(max(1, _DRAWN // width))
    ]
    of = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    order = torch.from_numpy(np.lexsort((torch.cat(keys).numpy(), of.numpy())))
    places = torch.empty_like(order).scatter(0, order, torch.arange(len(of)))
    return places - (lengths.cumsum(0) - lengths)[of] < counts[of]
