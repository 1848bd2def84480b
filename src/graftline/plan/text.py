"""Pretraining on text, for a plan."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graftline.dataset import UNLABELLED
from graftline.environment import ROOT
from graftline.learning.precision import arithmetic
from graftline.plan.measure import Step
from graftline.plan.parts import Fit, Part
from graftline.plan.sample import Sample
from graftline.tasks.pretrain import PretrainParams
from graftline.text.corpus import Shard, list_shards, read_documents
from graftline.text.tokenizer import TokenizerParams, load_tokenizer, save_tokenizer, train_tokenizer
from graftline.text.tokens import tokenise
from graftline.trunks import write_config
from graftline.trunks.text.documents import Documents
from graftline.trunks.text.parameters import CausalLMParams, TextParams
from graftline.trunks.text.pretraining import training
from graftline.trunks.text.rootstock import Rootstock, RootstockParams, check_loads, resolve
from graftline.trunks.text.trunk import (
    KIND,
    build_config,
    build_model,
    load_model,
    quiet,
    save_model,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_SAMPLE = 2048
_LOOKS = 17
"""How often pretraining measures the held-out loss."""
_LONGEST = 512


@dataclass(frozen=True)
class _Corpus:
    """Some documents of the corpus, and how many there are in all."""

    texts: list[str]
    rows: int


def pretrain_text(
    sample: Sample, params: PretrainParams, trunk: Path, work: Path
) -> Iterator[tuple[Part, Step]]:
    """Yield the pretraining of each text trunk, and write the main one, untrained, into the folder `trunk`."""
    quiet()
    rootstock = (
        resolve(params.trunk, where="pretrain.trunk") if isinstance(params.trunk, RootstockParams) else None
    )
    corpus = _corpus(sample, params)
    began, own = time.perf_counter(), time.process_time()
    tokenizer, vocabulary = _tokenizer(corpus, params, rootstock, work)
    documents = _tokenised(corpus, params, tokenizer, work)
    took = min(time.perf_counter() - began, time.process_time() - own)  # without the wait for a busy machine
    ahead = took * corpus.rows / len(corpus.texts)
    decodes = isinstance(params.objective, CausalLMParams)
    if rootstock is not None:
        check_loads(rootstock.folder)
        model = load_model(rootstock.folder, decodes=decodes)
    else:
        assert isinstance(params.trunk, TextParams)
        model = _untrained(params.trunk, tokenizer, vocabulary)
    save_model(model, trunk)
    save_tokenizer(tokenizer, trunk)
    write_config(trunk, KIND, params.trunk.model_dump(mode="json"), params.objective.model_dump(mode="json"))
    yield _part("", params.epochs, model, params, documents, corpus, ahead)
    for name, size in params.sizes.items():
        shape = size.trunk.model_copy(update={"max_length": documents.max_length})
        model = _untrained(shape, tokenizer, vocabulary)
        yield _part(name, size.epochs, model, params, documents, corpus, 0.0)


def _corpus(sample: Sample, params: PretrainParams) -> _Corpus:
    if params.corpus is None:
        shards = list_shards(sample.folder / f"{UNLABELLED}.parquet")
        return _Corpus(_first(shards, sample.schema.feature.name), sample.rows[UNLABELLED])
    url = params.corpus.url
    shards = list_shards(url if "://" in url else ROOT / url)
    texts = _first(shards, params.corpus.column)
    return _Corpus(texts, _count(shards, texts))


def _first(shards: list[Shard], column: str) -> list[str]:
    return list(islice((text for batch in read_documents(shards[0], column) for text in batch), _SAMPLE))


def _count(shards: list[Shard], texts: list[str]) -> int:
    """Return how many documents the shards hold: exactly in Parquet on a disk, else by the size of some of them."""
    import pyarrow.parquet as pq

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
    kind = "bpe" if isinstance(params.objective, CausalLMParams) else "wordpiece"
    chosen = params.tokenizer or TokenizerParams.model_validate({"kind": kind})
    save_tokenizer(train_tokenizer(corpus.texts, chosen), work / "tokenizer")
    return load_tokenizer(work / "tokenizer"), chosen.vocabulary


def _tokenised(
    corpus: _Corpus, params: PretrainParams, tokenizer: PreTrainedTokenizerFast, work: Path
) -> Documents:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(params.trunk, TextParams):
        longest = params.trunk.max_length
    else:
        longest = min(int(tokenizer.model_max_length), _LONGEST)
    pq.write_table(pa.table({"text": corpus.texts}), work / "texts.parquet")
    files = tokenise(
        list_shards(work / "texts.parquet"), "text", tokenizer, work / "tokens", max_length=longest
    )
    return Documents(files, tokenizer, longest, np.arange(len(files)), np.arange(0))


def _untrained(shape: TextParams, tokenizer: PreTrainedTokenizerFast, vocabulary: int) -> PreTrainedModel:
    config = build_config(shape, tokenizer)
    config.vocab_size = max(vocabulary, len(tokenizer))  # a few documents may not fill it
    return build_model(config, decodes=shape.decodes)


def _part(
    name: str, epochs: float, model: PreTrainedModel, params: PretrainParams, documents: Documents,
    corpus: _Corpus, ahead: float,
) -> tuple[Part, Step]:  # fmt: skip
    """Return the pretraining of one trunk; `ahead` is the time before its first step, in seconds."""
    made = training(params, documents, model, epochs, arithmetic(params.precision))
    share = corpus.rows / len(corpus.texts)
    pieces, tokens = len(documents.files) * share, documents.tokens * share
    held_out = min(params.held_out, pieces / 10)
    trained = 1 - held_out / pieces
    per_epoch = max(1, round(trained * tokens / params.batch_tokens))
    steps = math.ceil(epochs * per_epoch)
    docs = trained * pieces / per_epoch
    per_epoch = made.batches.per_epoch
    step = Step(made.run, len(documents.files) / per_epoch, documents.tokens / per_epoch)
    fits = (Fit(steps, docs, _LOOKS * held_out),)
    return Part("pretrain", name, fits, "documents", other_seconds=ahead), step
