"""Two texts that a trunk reads as one sequence: the marks around them, and of which text each token is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from graftline.learning.device import send
from graftline.problems.documents import Documents, padded
from graftline.problems.transformer import TextModel
from graftline.text.tokenizer import plain_backend
from graftline.values.strings import string_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, kw_only=True)
class JoinedTexts(Documents):
    """Documents of two texts each, and the marks around them."""

    segments: torch.Tensor
    """(tokens,) int32: of which text a token is, in the architecture's own numbers, such as 0 and 1."""

    @classmethod
    def token_arrays(cls) -> tuple[str, ...]:
        return ("ids", "segments")


D = TypeVar("D", bound=Documents)


class JoinedTextModel(TextModel[D]):
    """A model that is told the segments, where its architecture has them."""

    def __init__(self, network: Any, tokenizer: PreTrainedTokenizerFast, *parts: Any, **settings: Any) -> None:
        super().__init__(network, tokenizer, *parts, **settings)
        self._segmented = getattr(network.config, "type_vocab_size", 1) > 1
        if self._segmented:  # so that transformers alone passes them on, too
            names = ["input_ids", "token_type_ids", "attention_mask"]
            tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names

    def inputs(self, documents: Documents) -> dict[str, torch.Tensor]:
        found = super().inputs(documents)
        if self._segmented:
            assert isinstance(documents, JoinedTexts)
            segments = padded(documents.segments, documents.lengths, 0, found["input_ids"].shape[1])
            found["token_type_ids"] = send(segments, self.network.device)
        return found


@dataclass(frozen=True)
class PairFrame:
    """The marks before, between and after two texts, and the segments of the five parts."""

    before: list[int]
    between: list[int]
    after: list[int]
    segments: tuple[list[int], int, list[int], int, list[int]]

    @property
    def marks(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def around(self, first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
        """Return the token ids of a pair, and the segment of each."""
        before, one, between, two, after = self.segments
        segments = [*before, *[one] * len(first), *between, *[two] * len(second), *after]
        return [*self.before, *first, *self.between, *second, *self.after], segments


def pairs_of(values: Iterable[tuple[Any, Any]]) -> list[tuple[str, str]]:
    """Return questions' values of two columns as pairs of strings."""
    return [(string_of(first), string_of(second)) for first, second in values]


def pair_frame(tokenizer: PreTrainedTokenizerFast) -> PairFrame:
    """Return what the tokenizer itself puts around two texts.

    Where it would put nothing between them, as decoders' do, its separator or end mark stands there: else the end of
    the one text and the beginning of the other could not be told.
    """
    found = plain_backend(tokenizer).encode("a", "a")
    owners, ids, types = found.sequence_ids, found.ids, found.type_ids
    first, second = owners.index(0), owners.index(1)
    end, last = first + owners.count(0), second + owners.count(1)
    between, of_between = ids[end:second], types[end:second]
    if not between:
        mark = tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id
        between = [] if mark is None else [int(mark)]
        of_between = [types[first]] * len(between)
    segments = types[:first], types[first], of_between, types[second], types[last:]
    return PairFrame(ids[:first], between, ids[last:], segments)
