"""Token classification: one class (a tag) a word, by transformers' own head on the trunk.

A word's first token is asked and learned; its other tokens are read only (Devlin et al., 2019, section 5.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

from graftline.dataset import Schema
from graftline.problems.classification import TextClassification, TextClassifier
from graftline.problems.deciding import DecidingProblem
from graftline.problems.documents import IGNORED, Documents, by_length, documents_of, padded, token_positions
from graftline.problems.problem import LABEL, Model
from graftline.problems.token_classification.parameters import TokenClassificationParams
from graftline.problems.transformer import longest
from graftline.text.tokenizer import document_marks, load_tokenizer
from graftline.values.splits import read_tagged
from graftline.values.strings import words_of
from graftline.values.tags import TagLabel
from graftline.values.words import TokensColumn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SHOWN_WORDS = 8  # on each side of a word that was mistaken


@dataclass(frozen=True, kw_only=True)
class Sentences(Documents):
    """Sentences as tokens; one of more tokens than the model takes is several examples, cut between words."""

    words: torch.Tensor
    """(tokens,) int64: the number of the word in its row at each word's first token, -1 elsewhere."""
    tags: torch.Tensor | None = None
    """(tokens,) int64 class indices at each word's first token, `IGNORED` elsewhere; None without labels."""
    word_weights: torch.Tensor | None = None
    """(tokens,) float32 at each word's first token; None where words count as their rows do."""

    @classmethod
    def token_arrays(cls) -> tuple[str, ...]:
        return ("ids", "words", "tags", "word_weights")

    @property
    def unit_classes(self) -> torch.Tensor | None:
        return None if self.tags is None else self.tags[self.first]

    def unit_weights(self) -> torch.Tensor | None:
        if self.word_weights is not None:
            return self.word_weights[self.first]
        return None if self.weights is None else torch.repeat_interleave(self.weights, self.lengths)[self.first]

    def weighted(self, weights: torch.Tensor) -> Self:
        """Return the sentences with weights, of each part of a row or of each word."""
        if len(weights) == len(self):
            return super().weighted(weights)
        of_tokens = torch.zeros(len(self.ids))
        of_tokens[self.first] = weights
        return replace(self, word_weights=of_tokens)

    @property
    def first(self) -> torch.Tensor:
        """(tokens,) bool: where a word begins. Answers are about these, in order."""
        return self.words >= 0

    def units(self) -> dict[str, np.ndarray]:
        rows = torch.repeat_interleave(self.rows, self.lengths)
        return {"row": rows[self.first].numpy(), "word": self.words[self.first].numpy()}


class TokenClassifier(TextClassifier[Sentences]):
    """Sentences to (words, classes) logits."""

    def forward(self, sentences: Sentences) -> torch.Tensor:
        logits = self.network(**self.inputs(sentences)).logits
        asked = padded(sentences.words, sentences.lengths, -1, logits.shape[1]) >= 0
        chosen: torch.Tensor = logits[asked.to(logits.device)].float()
        return chosen

    @staticmethod
    def targets(examples: Sentences) -> torch.Tensor:
        assert examples.tags is not None
        return examples.tags[examples.first]

    def logits(self, examples: Sentences, *, fast: bool = False) -> torch.Tensor:
        self.eval()
        number = examples.first.cumsum(0) - 1
        found = torch.empty(int(examples.first.sum()), len(self.network.config.id2label or {}))
        with torch.inference_mode(), self.answering(fast=fast):
            for chosen in by_length(examples.lengths):
                tokens = token_positions(examples.offsets[chosen], examples.lengths[chosen])
                found[number[tokens[examples.first[tokens]]]] = self(examples.take(chosen)).cpu()
        return found


class TokenClassification(DecidingProblem[Sentences], TextClassification[Sentences, TokenClassificationParams]):
    """Learns one class a word."""

    roles: ClassVar = {"words": TokensColumn, LABEL: TagLabel}
    examples, model = Sentences, TokenClassifier
    plural, amount = "sentences", "sentences"
    header = ("words and tags",)

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification

    def read(self, dataset: Path, split: str, folder: Path) -> Sentences:
        found = read_tagged(dataset, split)
        return self.encode(folder, found.words, found.rows, found.tags)

    def encode(
        self, folder: Path, sentences: list[list[str]], rows: np.ndarray, tags: list[np.ndarray] | None = None
    ) -> Sentences:
        """Return sentences as the trunk or model in `folder` takes them."""
        tokenizer = load_tokenizer(folder)
        before, after = document_marks(tokenizer)
        room = longest(folder, self._params.max_tokens) - len(before) - len(after)
        encoded, of_row, numbers, targets = [], [], [], []
        for place, pieces in enumerate(_word_ids(tokenizer, sentences, room)):
            for first, piece in _parts(pieces, room):
                encoded.append([*before, *(token for word in piece for token in word), *after])
                of_row.append(rows[place])
                starts = np.cumsum([len(before), *(len(word) for word in piece)])[:-1]
                marks = np.full(len(encoded[-1]), -1)
                marks[starts] = np.arange(first, first + len(piece))
                numbers.append(marks)
                if tags is not None:
                    targets.append(np.where(marks >= 0, tags[place][marks], IGNORED))
        arrays = documents_of(encoded, np.array(of_row, dtype=np.int64), None)
        arrays["words"] = np.concatenate(numbers)
        if tags is not None:
            arrays["tags"] = np.concatenate(targets)
        return Sentences.from_arrays(arrays)

    def show(self, dataset: Path, split: str, examples: Sentences, units: np.ndarray) -> list[str]:
        """Return each word between angle quotes, with some words on each side."""
        found, about = read_tagged(dataset, split), examples.units()
        place = {int(row): number for number, row in enumerate(found.rows)}
        shown = []
        for row, at in zip(about["row"][units], about["word"][units], strict=True):
            words = found.words[place[int(row)]]
            left, right = words[max(0, at - _SHOWN_WORDS) : at], words[at + 1 : at + 1 + _SHOWN_WORDS]
            shown.append(" ".join([*left, f"»{words[at]}«", *right]))
        return shown

    def ask(
        self, folder: Path, model: Model[Sentences], values: list[str | list[str]], schema: Schema
    ) -> list[dict[str, Any]]:
        """Return `words` of each text: `word`, `label`, `probability`. White space divides a string into words.

        With sets that were asked for each word has `set`, `known` and `coverage` besides.
        """
        assert isinstance(model, TokenClassifier)
        sentences = [words_of(text) for text in values]
        examples = self.encode(folder, sentences, np.arange(len(values)))
        answers = iter(model.decide(examples).told(schema.classes, model.asked))
        return [{"words": [_tagged(word, next(answers)) for word in words]} for words in sentences]

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return ("  ".join(_shown(word) for word in answer["words"]),)


def _word_ids(tokenizer: PreTrainedTokenizerFast, sentences: list[list[str]], room: int) -> Iterator[list[list[int]]]:
    """Yield each sentence's token ids word by word, 1 to `room` of them a word.

    Where the tokenizer's tokens hold the space before a word, every word but a sentence's first gets one.
    """
    spaced = len(tokenizer.tokenize("a")) == 1 and tokenizer.tokenize(" a") != tokenizer.tokenize("a")
    known: dict[str, list[int]] = {}
    unknown = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.eos_token_id
    for words in sentences:
        forms = [f" {word}" if spaced and place else word for place, word in enumerate(words)]
        new = [form for form in dict.fromkeys(forms) if form not in known]
        if new:
            ids = tokenizer(new, add_special_tokens=False)["input_ids"]
            known |= {form: found[:room] or [unknown] for form, found in zip(new, ids, strict=True)}
        yield [known[form] for form in forms]


def _parts(words: list[list[int]], room: int) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield parts of a sentence of at most `room` tokens, each with the number of its first word."""
    first, used = 0, 0
    for place, word in enumerate(words):
        if used + len(word) > room:
            yield first, words[first:place]
            first, used = place, 0
        used += len(word)
    yield first, words[first:]


def _tagged(word: str, told: dict[str, Any]) -> dict[str, Any]:
    probability = told.pop("probabilities")[str(told["label"])]
    return {"word": word, "label": told.pop("label"), "probability": probability, **told}


def _shown(word: dict[str, Any]) -> str:
    """Return a word with its tag; with all that it may be, and a question mark, where that is not known."""
    known = word.get("known", True)
    return f"{word['word']}/{word['label']}" if known else f"{word['word']}/{'|'.join(map(str, word['set']))}?"
