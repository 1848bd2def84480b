"""Answers about texts and their parts, the words: for every problem that a transformer reads texts for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from graftline.problems.documents import Documents, by_length, token_positions
from graftline.problems.explained import Attention, Explained, Floats, Line, Places, Sets, log_of_target, shades
from graftline.problems.transformer import TextModel
from graftline.text.tokenizer import document_marks
from graftline.trunks.layout import keeping_attention
from graftline.values.strings import string_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_WORD = re.compile(r"\S+")
_MARK = -1
"""The part of a token that is of no word."""
_GRADIENT_TOKENS = 512
"""Tokens, padding included, of examples whose lines are walked together: some points of each are computed at once."""


@dataclass(frozen=True)
class Side:
    """Words of one of the texts that an example is made of, as far as the model sees it."""

    words: list[str]
    of_token: NDArray[np.int64]
    """(tokens,) the place of each token's word."""
    begins: NDArray[np.int64]
    """(tokens,) characters of the text before each."""

    def seen(self, count: int, start: int = 0) -> Side:
        """Return `count` tokens from one on."""
        of_token, begins = (of[start : start + count] for of in (self.of_token, self.begins))
        if not len(of_token):
            return Side([], of_token, begins)
        first, last = int(of_token[0]), int(of_token[-1])
        return Side(self.words[first : last + 1], of_token - first, begins)


def sides(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[Side]:
    """Return the words of texts, what white space divides, and of which word each token is; no marks."""
    found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [_side(text, np.array(at).reshape(-1, 2)) for text, at in zip(texts, found["offset_mapping"], strict=True)]


def _side(text: str, offsets: NDArray[np.int64]) -> Side:
    """Return the side of a text whose tokens lie at these (tokens, 2) characters."""
    words = list(_WORD.finditer(text))
    of_token = np.searchsorted([word.end() for word in words], offsets[:, 1]).clip(max=max(0, len(words) - 1))
    return Side([word.group() for word in words], np.maximum.accumulate(of_token), offsets[:, 0])


@dataclass(frozen=True)
class Laid:
    """How an example's tokens are made of its sides: marks before, between and after them."""

    sides: tuple[Side, ...]
    before: int
    """Marks before the first."""
    between: int = 0

    def of_token(self, length: int) -> NDArray[np.int32]:
        """Return (length,) the part of each token of the example; `_MARK` of marks."""
        found = np.full(length, _MARK, dtype=np.int32)
        place, words = self.before, 0
        for side in self.sides:
            found[place : place + len(side.of_token)] = side.of_token + words
            place, words = place + len(side.of_token) + self.between, words + len(side.words)
        return found


def laid_alone(
    tokenizer: PreTrainedTokenizerFast, documents: Documents, values: Sequence[str | list[str]]
) -> list[Laid]:
    """Return how documents are laid out that are one text each, as the tokenizer itself marks and cuts it."""
    before, marks = len(document_marks(tokenizer)[0]), tokenizer.num_special_tokens_to_add()
    found = zip(sides(tokenizer, [string_of(text) for text in values]), documents.lengths.tolist(), strict=True)
    return [Laid((side.seen(length - marks),), before) for side, length in found]


@dataclass(frozen=True, eq=False)
class ExplainedTexts(Explained):
    """One class a document; a document is one text or several, between marks."""

    part: ClassVar[str] = "word"

    documents: Documents
    targets: torch.Tensor
    """(n, ...) int64: which output is the answer."""
    of_token: torch.Tensor
    """(tokens,) int32: the part of each token in its document."""
    words: list[list[list[str]]]
    """The words of each side of each document."""
    mask: int
    """The id of the token that hides another."""

    @classmethod
    def of(
        cls,
        model: TextModel[Any],
        documents: Documents,
        laid: Sequence[Laid],
        targets: torch.Tensor,
        answers: list[str],
    ) -> Self:
        """Return what explains these answers.

        Args:
            model: whose answers they are.
            documents: n examples.
            laid: of which words each is made.
            targets: (n, ...) as above.
            answers: n, for people.
        """
        mask = _hiding(model.tokenizer)
        lengths = documents.lengths.tolist()
        of_token = [one.of_token(length) for one, length in zip(laid, lengths, strict=True)]
        words = [[side.words for side in one.sides] for one in laid]
        return cls(
            model, np.array([max(1, sum(map(len, sides))) for sides in words]), answers,
            str(model.tokenizer.convert_ids_to_tokens(mask)), documents, targets,
            torch.from_numpy(np.concatenate(of_token)), words, mask,
        )  # fmt: skip

    told_of = staticmethod(log_of_target)

    def log_probabilities(self, places: Places, kept: Sets) -> Floats:
        found = np.empty(len(places))
        self.model.eval()
        chosen = torch.from_numpy(places)
        with torch.inference_mode(), self.model.answering(fast=False):
            for batch in by_length(self.documents.lengths[chosen]):
                documents = self._hide(chosen[batch], torch.from_numpy(kept[batch.numpy()]))
                targets = self.targets[chosen[batch]].to(self.model.network.device)
                found[batch.numpy()] = self.told_of(self.model(documents), targets).cpu().numpy()
        return found

    def _hide(self, places: torch.Tensor, kept: torch.Tensor) -> Documents:
        """Return the documents at (k,) places with the mask in place of the words that the (k, most) do not keep."""
        documents = self.documents.take(places)
        parts, owners = self._parts(places)
        gone = (parts != _MARK) & ~kept[owners, parts.clamp(min=0)]
        return replace(documents, ids=documents.ids.masked_fill(gone, self.mask))

    def _parts(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return of the tokens of the documents at (k,) places the part, int64, and the number of the document."""
        lengths = self.documents.lengths[places]
        tokens = token_positions(self.documents.offsets[places], lengths)
        return self.of_token[tokens].long(), torch.repeat_interleave(torch.arange(len(places)), lengths)

    def windows(self, place: int) -> Sets:
        return np.eye(int(self.parts[place]), self.most, dtype=bool)

    def lines(self) -> Iterator[Line]:
        self.model.eval()
        network = self.model.network
        embedding = network.get_input_embeddings()
        for places in by_length(self.documents.lengths, _GRADIENT_TOKENS):
            nothing = torch.zeros(len(places), self.most, dtype=torch.bool)
            with torch.no_grad():
                full, empty = (
                    embedding(self.model.inputs(documents)["input_ids"])
                    for documents in (self.documents.take(places), self._hide(places, nothing))
                )

            def output(points: torch.Tensor, numbers: torch.Tensor, places: torch.Tensor = places) -> torch.Tensor:
                chosen = places[numbers.cpu()]
                hook = embedding.register_forward_hook(lambda *_: points)
                try:
                    with self.model.answering(fast=False):
                        outputs = self.model(self.documents.take(chosen))
                finally:
                    hook.remove()
                return self.told_of(outputs, self.targets[chosen].to(outputs.device))

            def by_part(found: torch.Tensor, places: torch.Tensor = places) -> Floats:
                return self._by_part(places, found.sum(dim=-1))

            yield Line(places.numpy(), empty, full, output, by_part)

    def _by_part(self, places: torch.Tensor, found: torch.Tensor) -> Floats:
        """Return (k, most): the sums over each part's tokens of (k, width) numbers."""
        parts, owners = self._parts(places)
        inside = torch.arange(found.shape[1]) < self.documents.lengths[places][:, None]
        sums = torch.zeros(len(places), self.most, dtype=torch.float64)
        words = parts != _MARK
        sums.index_put_((owners[words], parts[words]), found.cpu().double()[inside][words], accumulate=True)
        return sums.numpy()

    def attention(self) -> Iterator[Attention] | str:
        if not self._layers(self.model.inputs(self.documents.take(torch.zeros(1, dtype=torch.int64)))):
            return "the trunk shows no attention"
        return self._attention()

    def _attention(self) -> Iterator[Attention]:
        for places in by_length(self.documents.lengths):
            inputs = self.model.inputs(self.documents.take(places))

            def by_part(found: torch.Tensor, places: torch.Tensor = places) -> Floats:
                return self._by_part(places, found)

            mixed = [layer.float().mean(dim=1).cpu() for layer in self._layers(inputs)]
            readers = self.readers(inputs["attention_mask"].float().cpu(), places)
            yield Attention(places.numpy(), mixed, readers, by_part)

    def _layers(self, inputs: dict[str, torch.Tensor]) -> Sequence[torch.Tensor]:
        """Return each layer's (k, heads, width, width) attention; none of an architecture that keeps none."""
        network = self.model.network
        self.model.eval()
        with keeping_attention(network), torch.inference_mode():
            return network.base_model(**inputs, output_attentions=True).attentions or ()

    def readers(self, mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the share of each token in what the head reads, of (k, width) with 1 where a document has a token."""
        network = self.model.network
        if getattr(network.config, "model_type", "") == "modernbert" and network.config.classifier_pooling == "mean":
            return mask / mask.sum(dim=1, keepdim=True)
        last = hasattr(network, "score")  # decoders' heads read the last token, BERT's the first
        at = mask.sum(dim=1).long() - 1 if last else torch.zeros(len(mask), dtype=torch.int64)
        return torch.nn.functional.one_hot(at, mask.shape[1]).float()

    def vectors(self) -> NDArray[np.float32]:
        self.model.eval()
        network = self.model.network
        found = np.empty((len(self), network.config.hidden_size), dtype=np.float32)
        with torch.inference_mode(), self.model.answering(fast=False):
            for places in by_length(self.documents.lengths):
                inputs = self.model.inputs(self.documents.take(places))
                mask = inputs["attention_mask"][..., None]
                hidden = (network.base_model(**inputs).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
                found[places.numpy()] = hidden.float().cpu().numpy()
        return found

    def told(self, place: int, found: Floats, count: int) -> str:
        words = [word for side in self.words[place] for word in side]
        order = np.argsort(-found[: len(words)], kind="stable")[:count]
        return ", ".join(f"{words[part]} ({found[part]:+.2f})" for part in order)

    def values(self, place: int, found: Floats) -> list[dict[str, Any]]:
        """Return `word`, `text` (which of the texts it is of, from 0) and `value` of each word."""
        words = [(word, number) for number, side in enumerate(self.words[place]) for word in side]
        numbers = found[: len(words)].tolist()
        return [{"word": word, "text": of, "value": value} for (word, of), value in zip(words, numbers, strict=True)]

    def marked(self, place: int, found: Floats) -> Markup:
        shade = iter(shades(found).tolist())
        return Markup(" <b>·</b> ").join(
            Markup(" ").join(_colour(word, next(shade)) for word in side) for side in self.words[place]
        )

    def shown(self, place: int) -> Markup:
        return Markup(" <b>·</b> ").join(" ".join(side) for side in self.words[place])


def _colour(word: str, shade: float) -> Markup:
    """Return a word on green where it speaks for the answer, on red where against."""
    colour = "47,111,79" if shade > 0 else "180,83,42"
    return Markup('<span style="background:rgba({},{:.2f})">{}</span>').format(colour, abs(shade) * 0.7, word)


def _hiding(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id of the token that hides another: the mask of a masked language model, else one that says little."""
    for name in ("mask_token_id", "unk_token_id", "pad_token_id", "eos_token_id"):
        if (found := getattr(tokenizer, name)) is not None:
            return int(found)
    return 0
