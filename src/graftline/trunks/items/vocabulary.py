"""The items that a trunk of histories knows, and what is known of them: items.json beside its weights."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from graftline.canonical import read_json
from graftline.durable import write_new
from graftline.errors import InputError
from graftline.values.items import Catalogue

ITEMS = "items.json"
_NAMED = 5
"""How many items a message names."""


@dataclass(frozen=True)
class Vocabulary:
    """Items by number, from 0 on, the most frequent first: `Vocabulary.from_dict(v.as_dict()) == v`."""

    items: tuple[str, ...]
    users: tuple[int, ...]
    """In how many histories of the pool each stands."""
    min_users: int
    """From how many on an item has a vector of its own."""
    ordered: bool = False
    """Whether the order of histories counts."""
    words: tuple[str, ...] = ()
    bags: tuple[tuple[int, ...], ...] = ()
    """The words of each item, by number; empty without words."""
    names: dict[str, str] = field(default_factory=dict)
    """What items are called, for people; those without a name are called by their ids."""

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each item."""
        return {item: number for number, item in enumerate(self.items)}

    @cached_property
    def counts(self) -> np.ndarray:
        """(items,) int64 users."""
        return np.array(self.users, np.int64)

    @cached_property
    def shown(self) -> np.ndarray:
        """(items,) bool: which some history of the pool holds; the others are known by their words alone."""
        return self.counts > 0

    @cached_property
    def own(self) -> np.ndarray:
        """(items,) bool: which have a vector of their own."""
        return self.counts >= self.min_users

    @property
    def mask(self) -> int:
        """The number of the mark that asks for items."""
        return len(self.items)

    @property
    def padding(self) -> int:
        return len(self.items) + 1

    def known(self, history: Sequence[str]) -> list[int]:
        """Return the numbers of a history's items, those that are not known left out; of sets in ascending order."""
        found = [self.numbers[item] for item in history if item in self.numbers]
        return found if self.ordered else sorted(found)

    def as_dict(self) -> dict[str, Any]:
        return {
            "items": self.items, "users": self.users, "min_users": self.min_users, "ordered": self.ordered,
            "words": self.words, "bags": self.bags, "names": self.names,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Vocabulary:
        """Raises KeyError, TypeError or ValueError for what is none."""
        made = cls(
            tuple(map(str, values["items"])), tuple(map(int, values["users"])), int(values["min_users"]),
            bool(values["ordered"]), tuple(map(str, values["words"])),
            tuple(tuple(map(int, bag)) for bag in values["bags"]), dict(values["names"]),
        )  # fmt: skip
        if len(made.items) != len(made.users) or len(made.bags) not in (0, len(made.items)):
            raise ValueError(f"{len(made.items)} items, {len(made.users)} counts, {len(made.bags)} bags of words")
        return made

    def save(self, folder: Path) -> None:
        write_new(folder / ITEMS, (json.dumps(self.as_dict(), ensure_ascii=False) + "\n").encode())


def load_vocabulary(folder: Path) -> Vocabulary:
    """Return the vocabulary of the trunk or model in `folder`. Raises InputError."""
    values = read_json(folder / ITEMS)
    try:
        return Vocabulary.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(folder / ITEMS, f"no vocabulary ({error})", fix="run pretrain again") from None


def build_vocabulary(
    histories: Sequence[Sequence[str]], catalogue: Catalogue, where: Path, *, min_users: int, words: bool, ordered: bool
) -> Vocabulary:
    """Return the items of the pool's histories and of the catalogue, and say what is left out.

    Raises:
        InputError: no item stands in two histories: nothing can be learned of which go together.
    """
    users = Counter(item for history in histories for item in set(history))
    if max(users.values(), default=0) < 2:
        raise InputError(
            where, f"{len(users):,} items in {len(histories):,} histories, none of them in two",
            expected="items that several users share", fix="give more histories, or join items that are alike",
        )  # fmt: skip
    of_item = catalogue.words if words else {}
    used = Counter(word for bag in of_item.values() for word in bag)
    shared = tuple(sorted(word for word, count in used.items() if count > 1))  # a word of one item tells of no other
    told = {item for item, bag in of_item.items() if any(used[word] > 1 for word in bag)}
    kept = sorted({item for item, count in users.items() if count >= min_users} | told, key=lambda i: (-users[i], i))
    known = set(kept)
    rare = sorted(users.keys() - known)
    if rare:
        print(
            f"items: {len(rare):,} of {len(users):,} items stand in fewer than {min_users} histories and are left out: "
            f"{', '.join(rare[:_NAMED])}{', ...' if len(rare) > _NAMED else ''}",
            file=sys.stderr,
        )
    number = {word: place for place, word in enumerate(shared)}
    bags = tuple(tuple(number[w] for w in of_item.get(item, ()) if w in number) for item in kept) if shared else ()
    names = {item: name for item, name in catalogue.names.items() if item in known}
    return Vocabulary(tuple(kept), tuple(users[item] for item in kept), min_users, ordered, shared, bags, names)
