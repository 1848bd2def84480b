"""Text generation: a causal language model goes on learning, on the documents of the task; no labels are needed.

An answer is about a token: the class is the token that follows, out of the whole vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from graftline.dataset import Schema
from graftline.learning.distributed import World
from graftline.learning.randomness import generator
from graftline.problems.classes import TokenAnswers
from graftline.problems.documents import Documents, by_length, documents_of, token_positions
from graftline.problems.problem import Model
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.problems.texts import TextProblem, check_objective
from graftline.problems.transformer import TextModel, cut_tokens, longest
from graftline.problems.writing import WritingModel
from graftline.text.attention import packed
from graftline.text.batches import Packed, pack
from graftline.text.tokenizer import document_marks, load_tokenizer
from graftline.trunks.text.causal_lm import CausalLM
from graftline.values.splits import read_texts
from graftline.values.strings import string_of
from graftline.values.text import TextColumn

_ANSWER_TOKENS = 2048  # at once: each has a probability for every token of the vocabulary
_DRAWS = 8  # texts that are drawn at most until one holds the required words


@dataclass(frozen=True)
class Writing(Documents):
    """Documents to go on with: a model is asked at each token that another follows."""

    @property
    def followed(self) -> torch.Tensor:
        """(tokens,) bool: all but each document's last token. Answers are about these, in order."""
        followed = torch.ones(len(self.ids), dtype=torch.bool)
        followed[self.offsets[1:] - 1] = False
        return followed

    def units(self) -> dict[str, np.ndarray]:
        rows = torch.repeat_interleave(self.rows, self.lengths)
        places = torch.arange(len(self.ids)) - torch.repeat_interleave(self.offsets[:-1], self.lengths)
        return {"row": rows[self.followed].numpy(), "token": places[self.followed].numpy()}


class TextGenerator(WritingModel[Writing]):
    """Documents to the next token's logits."""

    def __init__(self, network: Any, tokenizer: Any, new: frozenset[str], params: TextGenerationParams) -> None:
        super().__init__(network, tokenizer, new, params)
        self._objective = [
            CausalLM(self.network, self.tokenizer, self.dtype)
        ]  # a list: no second module of the weights

    def loss(self, examples: Writing, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        """Return the mean cross entropy of the tokens that follow, over packed documents."""
        with self.learning(examples, seed, step, part):
            return self._objective[0].loss(_packed(examples), generator(seed, step, "unused"), part)

    def answer(self, examples: Writing, *, fast: bool = False) -> TokenAnswers:
        """Return the answers at each token that another follows."""
        self.eval()
        followed = examples.followed
        number = followed.cumsum(0) - 1
        labels = examples.ids.long().roll(-1)[followed]
        predicted, confidence, surprise = (torch.empty(len(labels)) for _ in range(3))
        predicted = predicted.long()
        with torch.inference_mode(), self.answering(fast=fast):
            for chosen in by_length(examples.lengths, _ANSWER_TOKENS):
                part = examples.take(chosen)
                tokens = token_positions(examples.offsets[chosen], examples.lengths[chosen])
                places = number[tokens[followed[tokens]]]
                shares = self._logits(part).log_softmax(dim=1).cpu()
                best = shares.max(dim=1)
                predicted[places], confidence[places] = best.indices, best.values.exp()
                surprise[places] = -shares.gather(1, labels[places, None])[:, 0]
        return TokenAnswers(
            self.scores,
            examples.units()["row"],
            float(surprise.mean(dtype=torch.float64)),
            labels.numpy(),
            predicted.numpy(),
            confidence.numpy(),
            surprise.numpy(),
        )

    def _logits(self, documents: Writing) -> torch.Tensor:
        """Return (k, vocabulary) float32 logits at the k tokens that another follows."""
        batch, device = _packed(documents), self.network.device
        with packed(self.network):
            hidden = self.network.base_model(
                input_ids=batch.ids.to(device),
                position_ids=batch.positions.to(device),
                runs=batch.runs,
                use_cache=False,
            ).last_hidden_state[0]
        network: Any = self.network
        logits: torch.Tensor = network.get_output_embeddings()(hidden[documents.followed.to(device)])
        return logits.float()

    def go_on(self, prompts: list[str], tokens: int, temperature: float, seed: int) -> list[str]:
        """Return what the model writes after each prompt: a pure function of the weights and the arguments.

        Where words are banned or required, of several texts the one that breaks least.
        """
        self.eval()
        words = self.demands.settings(self.tokenizer)
        written = []
        for number, prompt in enumerate(prompts):
            found: list[str] = []
            while not found or (len(found) < _DRAWS and self.demands.broken(found[-1])):
                purpose = f"sample {len(found)}" if found else "sample"
                torch.manual_seed(generator(seed, number, purpose).initial_seed())
                found.append(self._draw(prompt, tokens, temperature, words))
            written.append(found[self.demands.best(found)])
        return written

    def _draw(self, prompt: str, tokens: int, temperature: float, words: dict[str, Any]) -> str:
        """Return a text drawn from torch's global generator."""
        before = torch.tensor([self.tokenizer(prompt)["input_ids"]], device=self.network.device)
        with torch.inference_mode(), self.answering(fast=False):
            found = self.network.generate(  # type: ignore[operator]
                before,
                attention_mask=torch.ones_like(before),
                do_sample=True,
                temperature=temperature,
                max_new_tokens=tokens,
                pad_token_id=self.tokenizer.pad_token_id or 0,
                top_k=0,
                **words,
            )
        return str(self.tokenizer.decode(found[0, before.shape[1] :].tolist(), skip_special_tokens=True))


class TextGeneration(TextProblem[Writing, TextGenerationParams]):
    """Learns to go on with a text."""

    roles: ClassVar = {"text": TextColumn}
    examples, model = Writing, TextGenerator
    header = ("text",)
    amount = "documents"
    spoiled = ()  # a document's words are what is to be told
    weighs = False

    def read(self, dataset: Path, split: str, folder: Path) -> Writing:
        """Return a split's documents; labels are not looked at."""
        found = read_texts(dataset, split)
        tokenizer = load_tokenizer(folder)
        before, after = document_marks(tokenizer)
        room = longest(folder, self._params.max_tokens) - len(before) - len(after)
        encoded = tokenizer(found.texts, add_special_tokens=False, truncation=True, max_length=room)["input_ids"]
        whole = [[*before, *ids, *after] for ids in encoded]
        # A document of one token asks nothing.
        kept = [place for place, ids in enumerate(whole) if len(ids) > 1]
        cut = cut_tokens(tokenizer, found.texts, encoded, room, add_special_tokens=False)
        arrays = documents_of([whole[place] for place in kept], found.rows[kept], None)
        return Writing.from_arrays({**arrays, "cut": cut[kept]})

    def present(self, answers: TokenAnswers, examples: Writing, dataset: Path, out: Path, mistakes: int) -> None:
        answers.write(out)

    def ask(
        self, folder: Path, model: Model[Writing], values: list[str | list[str]], schema: Schema
    ) -> list[dict[str, Any]]:
        """Return `prompt` and the `text` that the model goes on with; the same at each call.

        Of required words those that are `missing`, and of banned ones those that are there though `banned`.
        """
        assert isinstance(model, TextGenerator)
        prompts = [string_of(text) for text in values]
        written = model.go_on(prompts, self._params.sample_tokens, self._params.temperature, seed=0)
        return [
            {"prompt": prompt, "text": text, **model.demands.broken(text)}
            for prompt, text in zip(prompts, written, strict=True)
        ]

    def line(self, answer: dict[str, Any]) -> tuple[str, ...]:
        return (answer["prompt"] + answer["text"],)

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> TextModel[Writing]:
        check_objective(trunk, "causal_lm")
        return super().build(trunk, schema, scratch=scratch)

    def samples(self, model: Model[Writing], seed: int) -> list[dict[str, str]]:
        assert isinstance(model, TextGenerator)
        prompts = [self._params.prompts[n % len(self._params.prompts)] for n in range(self._params.samples)]
        texts = model.go_on(prompts, self._params.sample_tokens, self._params.temperature, seed)
        return [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]


def _packed(documents: Writing) -> Packed:
    """Return documents, sorted by length, as a packed row."""
    numbers = np.arange(len(documents))
    return pack(documents.ids.numpy(), documents.lengths.numpy(), numbers)
