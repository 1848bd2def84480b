"""Text trunks on a sample of the corpus, for a plan."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.dataset import UNLABELLED
from graftline.environment import ROOT
from graftline.tasks.pretrain import PretrainParams
from graftline.text.batches import Batches
from graftline.text.corpus import Shard, list_shards, read_documents
from graftline.text.tokenizer import TokenizerParams, load_tokenizer, save_tokenizer, train_tokenizer
from graftline.text.tokens import tokenise
from graftline.trunks.layout import quiet
from graftline.trunks.rootstock import Rootstock
from graftline.trunks.text.documents import Documents, text_columns
from graftline.trunks.text.parameters import TextParams
from graftline.trunks.text.recipe import Recipe, training
from graftline.trunks.text.rootstock import RootstockParams, check_learns
from graftline.trunks.text.trunk import build_config, build_model, load_model
from graftline.trunks.training import Planned, start_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from graftline.plan.sample import Sample
    from graftline.tasks.pretrain import PretrainParams

_SAMPLE = 2048
_LOOKS = 17
"""How often pretraining measures the held-out loss: at most once a step, and once where there is none."""
_LONGEST = 512
_HELD_OUT = 16


@dataclass(frozen=True)
class _Corpus:
    """Some documents of the corpus, and how many there are in all."""

    texts: list[str]
    rows: int


def plan(sample: Sample, params: PretrainParams, trunk: Path, work: Path) -> Iterator[Planned]:
    """Yield the training of each trunk, and write the main one, untrained, into the folder `trunk`."""
    quiet()
    rootstock = start_of(params)
    corpus = _corpus(sample, params)
    began, own = time.perf_counter(), time.process_time()
    tokenizer, vocabulary = _tokenizer(corpus, params, rootstock, work)
    documents = _tokenised(corpus, params, tokenizer, work)
    took = min(time.perf_counter() - began, time.process_time() - own)  # without the wait for a busy machine
    ahead = took * corpus.rows / len(corpus.texts)
    if rootstock is not None:
        check_learns(rootstock.folder, params.objective.name)
        assert isinstance(params.trunk, RootstockParams)
        load = partial(load_model, rootstock.folder, decodes=params.objective.decodes)
        main = Recipe("", params.epochs, load, params.trunk)
    else:
        assert isinstance(params.trunk, TextParams)
        build = partial(_untrained, params.trunk, tokenizer, vocabulary)
        main = Recipe("", params.epochs, build, params.trunk)
    yield _planned(main, params, documents, corpus, ahead, trunk)
    for name, size in params.sizes.items():
        shape = size.trunk.model_copy(update={"max_length": documents.max_length})
        recipe = Recipe(name, size.epochs, partial(_untrained, shape, tokenizer, vocabulary), shape)
        yield _planned(recipe, params, documents, corpus, 0.0, None)


def _planned(
    recipe: Recipe, params: PretrainParams, documents: Documents, corpus: _Corpus, ahead: float, trunk: Path | None
) -> Planned:
    """Return the training of one trunk, written into the folder `trunk`; `ahead` is the time before its first step."""
    made = training(documents, params, recipe)
    if trunk is not None:
        made.write(trunk)
    share = corpus.rows / len(corpus.texts)
    pieces, tokens = len(documents.files) * share, documents.tokens * share
    held_out = min(params.held_out, pieces / 10)
    trained = 1 - held_out / pieces
    per_epoch = max(1, round(trained * tokens / params.batch_tokens))
    here = Batches(documents.lengths, params.batch_tokens, params.seed).per_epoch
    steps = math.ceil(recipe.epochs * per_epoch)
    return Planned(
        made,
        examples=len(documents.files) / here,
        tokens=documents.tokens / here,
        steps=steps,
        batch=trained * pieces / per_epoch,
        answered=min(_LOOKS, max(1, steps)) * held_out,
        ahead=ahead,
    )


def _corpus(sample: Sample, params: PretrainParams) -> _Corpus:
    if params.corpus is None:
        shards = list_shards(sample.folder / f"{UNLABELLED}.parquet")
        names = text_columns(sample.schema)
        return _Corpus([text for name in names for text in _first(shards, name)], sample.rows[UNLABELLED] * len(names))
    url = params.corpus.url
    shards = list_shards(url if "://" in url else ROOT / url)
    texts = _first(shards, params.corpus.column)
    return _Corpus(texts, _count(shards, texts))


def _first(shards: list[Shard], column: str) -> list[str]:
    return list(islice((text for batch in read_documents(shards[0], column) for text in batch), _SAMPLE))


def _count(shards: list[Shard], texts: list[str]) -> int:
    """Return how many documents the shards hold: exactly in Parquet on a disk, else by the size of some of them."""
    if all(shard.name.endswith(".parquet") and "://" not in shard.url for shard in shards):
        return sum(pq.read_metadata(shard.url).num_rows for shard in shards)
    mean = sum(len(text.encode()) for text in texts) / len(texts)
    return max(len(texts), int(sum(shard.size for shard in shards) / mean))


def _tokenizer(
    corpus: _Corpus, params: PretrainParams, rootstock: Rootstock | None, work: Path
) -> tuple[PreTrainedTokenizerFast, int]:
    """Return a tokenizer of a few documents, or the rootstock's, and the size of a run's vocabulary."""
    if rootstock is not None:
        tokenizer = load_tokenizer(rootstock.folder)
        return tokenizer, len(tokenizer)
    chosen = params.tokenizer or TokenizerParams(kind=params.objective.tokens)
    save_tokenizer(train_tokenizer(corpus.texts, chosen), work / "tokenizer")
    return load_tokenizer(work / "tokenizer"), chosen.vocabulary


def _tokenised(corpus: _Corpus, params: PretrainParams, tokenizer: PreTrainedTokenizerFast, work: Path) -> Documents:
    if isinstance(params.trunk, TextParams):
        longest = params.trunk.max_length
    else:
        longest = min(int(tokenizer.model_max_length), _LONGEST)
    pq.write_table(pa.table({"text": corpus.texts}), work / "texts.parquet")
    files = tokenise(list_shards(work / "texts.parquet"), "text", tokenizer, work / "tokens", max_length=longest)
    held_out = np.arange(min(_HELD_OUT, len(files)))  # what is written says a loss on some
    return Documents(files, tokenizer, longest, np.arange(len(files)), held_out)


def _untrained(shape: TextParams, tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> PreTrainedModel:
    config = build_config(shape, tokenizer)
    config.vocab_size = max(vocabulary, len(tokenizer))  # a few documents may not fill it
    return build_model(config, decodes=shape.decodes)
