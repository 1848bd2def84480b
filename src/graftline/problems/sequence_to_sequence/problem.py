"""Sequence to sequence: learns to write a text of another one, by transformers' own models with encoder and decoder.

What the two texts are, the data say: a translation, a summary, a correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from graftline.dataset import Schema, read_schema, read_split
from graftline.errors import InputError
from graftline.learning.distributed import World, share
from graftline.learning.randomness import generator
from graftline.problems.answers import Answers
from graftline.problems.documents import Documents, bounds, by_length
from graftline.problems.joint import JointLanguageModel
from graftline.problems.problem import Joint, Model
from graftline.problems.reading import with_cut
from graftline.problems.sections import Section, write_sections
from graftline.problems.sequence_to_sequence.pairs import Pairs
from graftline.problems.sequence_to_sequence.parameters import SequenceToSequenceParams
from graftline.problems.sequence_to_sequence.scores import CHRF, KEPT, bleu_rows, chrf_rows, kept_rows, signatures
from graftline.problems.texts import TextProblem, check_objective
from graftline.problems.transformer import TextModel, encode, longest
from graftline.problems.writing import WritingModel
from graftline.score import RowStatistics, Score
from graftline.text.tokenizer import document_marks, load_tokenizer
from graftline.trunks.text.encoder_decoder import read_table, written_loss
from graftline.values.column import Questions
from graftline.values.strings import string_of
from graftline.values.text import TextColumn

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerFast

KINDS = (TextColumn, TextColumn)
_AT_ONCE = 8192
"""Tokens read at once to write of them, padding included, times the beams."""


@dataclass(frozen=True, eq=False)
class Written(Answers):
    """Texts that a model wrote."""

    read: Sequence[str]
    """n texts."""
    texts: Sequence[str]
    """What was written of each."""
    wanted: Sequence[str]
    """What was to be written."""
    ended: np.ndarray
    """(n,) bool: whether it ended by itself, before the longest text that the model may write."""

    def statistics(self, score: Score) -> RowStatistics:
        if score == KEPT:
            return kept_rows(self.rows, self.read, self.texts, self.wanted)
        return (chrf_rows if score == CHRF else bleu_rows)(self.rows, self.texts, self.wanted)

    def columns(self, schema: Schema) -> dict[str, Any]:
        return {"written": list(self.texts), "ended": self.ended}


class Writer(WritingModel[Pairs]):
    """Pairs to the probability of each token of the text to write."""

    narrow_on_cpu: ClassVar[bool] = False  # as in denoising: batches of many shapes

    def __init__(
        self, network: Any, tokenizer: PreTrainedTokenizerFast, new: frozenset[str], params: SequenceToSequenceParams
    ) -> None:
        super().__init__(network, tokenizer, new, params)
        self.network.generation_config = self._search(params.beams, params, **self.demands.settings(tokenizer))
        self._greedy = self._search(1, params)

    def _search(self, beams: int, params: SequenceToSequenceParams, **settings: Any) -> GenerationConfig:
        """Return how a text is looked for: no draws, so the same text each time."""
        from transformers import GenerationConfig

        config = self.network.config
        return GenerationConfig(
            num_beams=beams,
            do_sample=False,
            early_stopping=False,
            length_penalty=params.length_penalty if beams > 1 else 1.0,  # transformers saves no other one
            no_repeat_ngram_size=params.no_repeat,
            max_new_tokens=min(params.max_tokens, config.max_position_embeddings),
            decoder_start_token_id=config.decoder_start_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
            **settings,
        )

    def freeze_trunk(self) -> None:
        raise InputError(
            "finetune.freeze_trunk",
            "true",
            expected="false",
            fix="the head sequence_to_sequence has no layer of its own to learn",
        )

    def loss(self, examples: Pairs, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean cross entropy of the tokens to write, each after the right ones before it."""
        mine = examples if part is None else examples.take(share(torch.arange(len(examples)), part))
        with self.learning(mine, seed, step, part):
            total = written_loss(self.network, mine.to_write())
        return total / len(examples.target)

    def answer(self, examples: Pairs, *, fast: bool = False) -> Written:
        """Return what the model writes: with `fast` the most probable token each time, else by beam search."""
        self.eval()
        total = 0.0
        with torch.inference_mode(), self.answering(fast=fast):
            for chosen in by_length(examples.seen):
                total += float(written_loss(self.network, examples.take(chosen).to_write()))
        read, wanted = examples.texts()
        texts, ended = self.write(examples, fast=fast)
        rows = examples.rows.numpy()
        return Written(self.scores, rows, total / len(examples.target), read, texts, wanted, ended)

    def write(self, documents: Documents, *, fast: bool = False) -> tuple[list[str], np.ndarray]:
        """Return the text written of each document, and whether it ended by itself, (n,) bool.

        Where words are banned or required, of all texts that the beams end with, the one that breaks least.
        """
        self.eval()
        search = self._greedy if fast else self.network.generation_config
        assert search is not None
        found_each = search.num_beams if self.demands and not fast else 1
        sources = documents.ids.split(documents.lengths.tolist())
        texts, ended = [""] * len(sources), np.zeros(len(sources), dtype=bool)
        with torch.inference_mode(), self.answering(fast=fast):
            for chosen in by_length(documents.lengths, _AT_ONCE // search.num_beams):
                batch = read_table(self.network, [sources[place] for place in chosen])
                found = self.network.generate(  # type: ignore[operator]
                    **batch, generation_config=search, num_return_sequences=found_each
                ).cpu()
                ends = (found[:, 1:] == search.eos_token_id).any(dim=1).tolist()
                each = [str(self.tokenizer.decode(ids, skip_special_tokens=True)) for ids in found.tolist()]
                for number, place in enumerate(chosen.tolist()):
                    first = number * found_each
                    best = first + self.demands.best(each[first : first + found_each])
                    texts[place], ended[place] = each[best], ends[best]
        return texts, ended


class SequenceToSequence(TextProblem[Pairs, SequenceToSequenceParams]):
    """Learns to write the second text of the first."""

    roles: ClassVar = {"source": TextColumn, "target": TextColumn}
    examples, model = Pairs, Writer
    header = ("text", "tokens cut", "ended")
    amount = plural = "pairs"
    spoiled = (0,)  # the second text is what is to be written
    loss_unit = "nats a token"
    weighs = False

    def environment(self, trunk: Path) -> dict[str, str]:
        return {**super().environment(trunk), **signatures()}

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForSeq2SeqLM

        return AutoModelForSeq2SeqLM

    def settings(self, schema: Schema) -> dict[str, Any]:
        return dict.fromkeys(("dropout", "activation_dropout"), self._params.dropout)

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> TextModel[Pairs]:
        check_objective(trunk, "denoising")
        return super().build(trunk, schema, scratch=scratch)

    def joint(self, trunk: Path, model: Model[Pairs], unlabelled: Pairs, batch: int, *, scratch: bool) -> Joint:
        """Go on with denoising, on both texts of each pair as documents of their own."""
        assert isinstance(model, Writer)
        lengths = torch.cat([unlabelled.lengths, unlabelled.target_offsets.diff()])
        both = Documents(
            torch.cat([unlabelled.ids, unlabelled.target]),
            torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
            unlabelled.rows.repeat(2),
        )
        return JointLanguageModel(trunk, model, both, batch, scratch=scratch)

    def read(self, dataset: Path, split: str, folder: Path) -> Pairs:
        """Return a split's pairs. Of a text to write that is too long only the beginning is learned, without an end."""
        found = read_split(dataset, split, KINDS)
        sources, wanted = found.features
        documents = encode(folder, list(sources), self._params.max_tokens, found.rows)
        tokenizer, most = load_tokenizer(folder), longest(folder, self._params.max_tokens)
        _, end = document_marks(tokenizer)
        whole = [[*ids, *end] for ids in tokenizer(list(wanted), add_special_tokens=False, verbose=False)["input_ids"]]
        target = [ids[:most] for ids in whole]
        text = [f"{source}\0{other}".encode() for source, other in zip(sources, wanted, strict=True)]
        lost = np.array([max(0, len(ids) - most) for ids in whole], dtype=np.int32)
        return Pairs.from_arrays(
            {
                **documents,
                "cut": documents["cut"] + lost,
                "target": np.fromiter((number for ids in target for number in ids), np.int32),
                "target_offsets": bounds(target),
                "text": np.frombuffer(bytearray(b"".join(text)), np.uint8),
                "text_offsets": bounds(text),
            }
        )

    def questions(self, schema: Schema, paths: list[Path], texts: list[str]) -> Questions:
        return schema.feature.questions(paths, texts)

    def ask(self, folder: Path, model: Model[Pairs], values: list[Any], schema: Schema) -> list[dict[str, Any]]:
        """Return the `text` that is written of each, and whether it `ended` before the longest that there may be.

        Of required words those that are `missing`, and of banned ones those that are there though `banned`.
        """
        assert isinstance(model, Writer)
        asked = [string_of(text) for text in values]
        documents = Documents.from_arrays(encode(folder, asked, self._params.max_tokens, np.arange(len(asked))))
        texts, ended = model.write(documents)
        found = [
            {"text": text, "ended": bool(end), **model.demands.broken(text)}
            for text, end in zip(texts, ended, strict=True)
        ]
        return with_cut(found, documents)

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return answer["text"], str(answer["cut"]), "yes" if answer["ended"] else "no"

    def present(self, answers: Written, examples: Pairs, dataset: Path, out: Path, mistakes: int) -> None:
        """Write what was written of some test rows, drawn at random, and of those furthest from what was wanted."""
        drawn = torch.randperm(len(answers), generator=generator(0, 0, "shown"))[:mistakes].sort().values.tolist()
        counts = answers.statistics(CHRF)
        assert CHRF.value is not None
        by_row = dict(zip(counts.rows.tolist(), CHRF.value(counts.statistics.astype(np.float64)).tolist(), strict=True))
        values = [by_row[row] for row in answers.rows.tolist()]
        worst = sorted(range(len(answers)), key=lambda place: (values[place], place))[:mistakes]
        header = (*(feature.name for feature in read_schema(dataset).features), "written", "chrF")
        endless = int((~answers.ended).sum())
        how = " ".join(f"{name}: {signature}." for name, signature in signatures().items())

        def lines(places: list[int]) -> tuple[tuple[str, ...], ...]:
            return tuple(
                (answers.read[i], answers.wanted[i], answers.texts[i], f"{100 * values[i]:.1f}") for i in places
            )

        random = (
            f"{len(drawn)} test rows, drawn at random. {endless} of all {len(answers)} texts did not end before the "
            f"longest that the model may write. How scores count, by sacrebleu: {how}"
        )
        far = f"The {len(worst)} test rows of {len(answers)} that are furthest from what was wanted."
        sections = [
            Section("What the model writes", random, header=header, lines=lines(drawn)),
            Section("Furthest from what was wanted", far, header=header, lines=lines(worst)),
        ]
        write_sections(sections, out)
