"""Words that a model may not write, and words that it should.

transformers 5 no longer searches under constraints (`force_words_ids` is a setting without code), so required words are
chosen by among the texts that are found. Banned words are kept out token by token, and looked for in the text besides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from graftline.problems.documents import Documents
from graftline.problems.transformer import TextModel
from graftline.problems.writing_parameters import WritingParams
from graftline.text.tokenizer import tokenizer_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

D = TypeVar("D", bound=Documents)


@dataclass(frozen=True)
class Demands:
    """What a text may and must hold."""

    banned: tuple[str, ...]
    required: tuple[str, ...]

    @classmethod
    def of(cls, params: WritingParams) -> Self:
        return cls(params.banned, params.required)

    def __bool__(self) -> bool:
        return bool(self.banned or self.required)

    def settings(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
        """Return what transformers' generation is told: the tokens of each banned word, alone and after a space."""
        forms = [f"{space}{form}" for word in self.banned for form in _cases(word) for space in ("", " ")]
        ids = tokenizer(forms, add_special_tokens=False)["input_ids"] if forms else []
        known = {tuple(one): None for one in ids if one and tokenizer.unk_token_id not in one}
        return {"bad_words_ids": [list(one) for one in known]} if known else {}

    def broken(self, text: str) -> dict[str, list[str]]:
        """Return the words that are `missing` and those that are there though `banned`; nothing if all is well."""
        missing = [word for word in self.required if not _holds(text, word)]
        there = [word for word in self.banned if _holds(text, word)]
        return {**({"missing": missing} if missing else {}), **({"banned": there} if there else {})}

    def best(self, texts: Sequence[str]) -> int:
        """Return the place of the text that breaks least, a banned word before a missing one; the first of equals."""
        broken = [self.broken(text) for text in texts]
        return min(
            range(len(texts)),
            key=lambda place: (len(broken[place].get("banned", ())), len(broken[place].get("missing", ())), place),
        )


class WritingModel(TextModel[D]):
    """A model that writes, and what its texts may and must hold."""

    def __init__(self, network: Any, tokenizer: PreTrainedTokenizerFast, new: frozenset[str], params: Any) -> None:
        super().__init__(network, tokenizer, new, params)
        self.demands = Demands.of(params)

    def save(self, folder: Path) -> dict[str, Any]:
        return {**super().save(folder), "vocabulary": tokenizer_digest(self.tokenizer)}


def _cases(word: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((word, word.lower(), word.upper(), word.capitalize())))


def _holds(text: str, word: str) -> bool:
    """Return whether a text holds a word as one by itself, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
