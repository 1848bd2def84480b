"""The documents that a text trunk learns from: corpus, tokenizer, token files, and which are held out."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.component import Context
from graftline.dataset import UNLABELLED, Schema
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.learning import distributed
from graftline.records.model import CORPUS, Dependency
from graftline.tasks.pretrain import PretrainParams
from graftline.text.batches import Packed, pack
from graftline.text.corpus import Shard, iterate_documents, list_shards, read_documents
from graftline.text.tokenizer import TokenizerParams, load_tokenizer, save_tokenizer, train_tokenizer
from graftline.text.tokens import TokenFiles, open_tokens, tokenise
from graftline.trunks.rootstock import Rootstock
from graftline.trunks.text.parameters import TextParams
from graftline.values.text import TextColumn
from graftline.values.words import TokensColumn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SEES = (TextColumn, TokensColumn)
"""The kinds of columns that a trunk learns from."""
_LONGEST = 512
"""Tokens of a document for a rootstock that could take longer ones."""


@dataclass(frozen=True)
class Documents:
    """Tokenised documents on disk, mapped into memory."""

    files: TokenFiles
    tokenizer: PreTrainedTokenizerFast
    max_length: int
    """Tokens of the longest document."""
    train: np.ndarray
    """(n,) int64 numbers of the documents to learn from."""
    held_out: np.ndarray
    """(m,) int64 numbers of those to measure the loss on."""

    @property
    def lengths(self) -> np.ndarray:
        """(documents,) int32 tokens of each."""
        return self.files.lengths

    @property
    def tokens(self) -> int:
        """Tokens in an epoch."""
        return int(self.lengths[self.train].sum())

    @property
    def mean_length(self) -> float:
        return float(self.lengths[self.train].mean())

    def pack(self, documents: np.ndarray) -> Packed:
        """Return documents as a packed row, the shortest first."""
        ordered = documents[np.argsort(self.lengths[documents], kind="stable")]
        ids, lengths = self.files.gather(ordered)
        return pack(ids, lengths, ordered)

    def held_out_batches(self, tokens: int) -> list[Packed]:
        """Return the held-out documents in packed rows of about so many tokens, the shortest first."""
        ordered = self.held_out[np.argsort(self.lengths[self.held_out], kind="stable")]
        parts = max(1, round(int(self.lengths[ordered].sum()) / tokens))
        return [self.pack(part) for part in np.array_split(ordered, parts) if len(part)]

    def rows(self, documents: np.ndarray) -> list[str]:
        """Return where documents come from: shard and row."""
        return [str(row) for row in self.files.rows(documents)]


def open_documents(context: Context, params: PretrainParams, schema: Schema, rootstock: Rootstock | None) -> Documents:
    """Return the tokenised corpus; what an earlier try of this run has tokenised is not tokenised again.

    Raises:
        InputError: the corpus cannot be read, or has too few documents to hold any out.
    """
    with distributed.leader_first():
        shards, column = _corpus(context, params, schema)
        tokenizer = _tokenizer(context, params, shards, column, rootstock)
        max_length = _max_length(params, tokenizer)
        files = _token_files(context, shards, column, tokenizer, max_length)
    if params.corpus is not None:
        context.draft.dependencies.append(Dependency(CORPUS, files.digest))
    count = min(params.held_out, len(files) // 10)
    if count == 0:
        raise InputError(
            context.paths["dataset"],
            f"{len(files)} documents to pretrain on",
            expected="at least 10, of which a tenth is held out",
            fix="give more documents",
        )
    # Not by the seed: runs with other seeds are measured on the same documents.
    order = np.random.default_rng(0).permutation(len(files))
    return Documents(files, tokenizer, max_length, np.sort(order[count:]), np.sort(order[:count]))


def _token_files(
    context: Context, shards: list[Shard], column: str, tokenizer: PreTrainedTokenizerFast, max_length: int
) -> TokenFiles:
    """Return the token files: one process of each machine makes them, unless the machines share the leader's."""
    folder, here = context.work / "tokens", distributed.world()

    def make() -> TokenFiles:
        return tokenise(
            shards, column, tokenizer, folder, workers=context.threads, max_length=max_length, report=_report
        )

    if here.leads:
        return make()
    if here.local_rank == 0:
        with suppress(InputError):
            return open_tokens(folder)
        return make()
    return open_tokens(folder)


def _report(documents: int, tokens: int) -> None:
    if sys.stderr.isatty():
        print(f"\rtokenise: {documents:,} documents, {tokens:,} tokens", end="", file=sys.stderr, flush=True)


def _corpus(context: Context, params: PretrainParams, schema: Schema) -> tuple[list[Shard], str]:
    if params.corpus is not None:
        url = params.corpus.url
        return list_shards(url if "://" in url else ROOT / url), params.corpus.column
    # Of sentences in words, a list column, the reader makes texts: the words with blanks between.
    shards, names = list_shards(context.paths["dataset"] / f"{UNLABELLED}.parquet"), text_columns(schema)
    return (shards, names[0]) if len(names) == 1 else (_together(shards, names, context.work), names[0])


def text_columns(schema: Schema) -> list[str]:
    """Return the names of the columns of text that a model sees: each text of a row is a document of its own."""
    return [feature.name for feature in schema.features if isinstance(feature, SEES)]


def _together(shards: list[Shard], names: list[str], work: Path) -> list[Shard]:
    """Return the texts of several columns as one shard, with a column of the first one's name."""
    file = work / "texts.parquet"
    if distributed.world().leads or not file.is_file():  # on a machine without the leader's folder, its own
        work.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(file, pa.schema([(names[0], pa.string())])) as writer:
            for name in names:
                for texts in read_documents(shards[0], name):
                    writer.write_table(pa.table({names[0]: texts}))
    return list_shards(file)


def _tokenizer(
    context: Context, params: PretrainParams, shards: list[Shard], column: str, rootstock: Rootstock | None
) -> PreTrainedTokenizerFast:
    if rootstock is not None:
        return load_tokenizer(rootstock.folder)
    folder = context.work / "tokenizer"
    kind = params.objective.tokens
    chosen = params.tokenizer or TokenizerParams(kind=kind)
    if chosen.kind != kind:
        raise InputError(
            f"{context.where}: pretrain.tokenizer.kind",
            chosen.kind,
            expected=kind,
            fix=f"objective {params.objective.name} needs the special tokens that {kind} has",
        )
    if distributed.world().leads or not folder.is_dir():  # on a machine without the leader's folder, its own
        save_tokenizer(train_tokenizer(iterate_documents(shards, column), chosen), folder)
    return load_tokenizer(folder)


def _max_length(params: PretrainParams, tokenizer: PreTrainedTokenizerFast) -> int:
    if isinstance(params.trunk, TextParams):
        return params.trunk.max_length
    return min(int(tokenizer.model_max_length), _LONGEST)
