"""What the text measurements work on: the glosses as tokens, the shapes of the models, and their first weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from graftline.environment import ROOT
from graftline.problems.documents import Documents as Labelled
from graftline.problems.documents import documents_of
from graftline.text.corpus import iterate_documents, list_shards
from graftline.text.tokenizer import TokenizerParams, load_tokenizer, save_tokenizer, train_tokenizer
from graftline.text.tokens import open_tokens, tokenise
from graftline.trunks.text.documents import Documents
from graftline.trunks.text.parameters import TextParams
from graftline.trunks.text.trunk import build_config, build_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

GLOSSES = ROOT / "data/glosses"
RAW = GLOSSES / "raw/glosses.parquet"
LENGTH = 128
"""Tokens of the longest document, and of each block where texts are grouped."""
BATCH_TOKENS = 4096
"""Tokens a step, about."""
SHAPES = {
    "bert 4x256": TextParams(architecture="bert", layers=4, width=256, heads=4, hidden=1024, max_length=LENGTH),
    "modernbert 2x128": TextParams(max_length=LENGTH),
    "gpt2 4x256": TextParams(architecture="gpt2", layers=4, width=256, heads=4, hidden=1024, max_length=LENGTH),
    # 688: gated layers have three matrices where gpt2's have two
    "llama 4x256": TextParams(architecture="llama", layers=4, width=256, heads=4, hidden=688, max_length=LENGTH),
}
_HELD_OUT = 1000


def prepare(folder: Path) -> None:
    """Write the glosses' token files into `folder`, by a tokenizer for encoders and by one for decoders."""
    shards = list_shards(RAW)
    for kind in ("wordpiece", "bpe"):
        home = folder / kind
        texts = iterate_documents(shards, "text")
        save_tokenizer(train_tokenizer(texts, TokenizerParams(kind=kind)), home / "tokenizer")
        tokenise(shards, "text", load_tokenizer(home / "tokenizer"), home / "tokens", workers=2, max_length=LENGTH)
    _prepare_labelled(folder)


def _prepare_labelled(folder: Path) -> None:
    contract = yaml.safe_load((GLOSSES / "expectations.yaml").read_text(encoding="utf-8"))
    number = {name: place for place, name in enumerate(contract["columns"]["label"]["classes"])}
    table = pq.read_table(RAW, columns=["text", "label"])
    labels = np.array([number.get(label, -1) for label in table["label"].to_pylist()], np.int64)
    rows = np.flatnonzero(labels >= 0)
    texts = table["text"].take(rows).to_pylist()
    tokenizer = load_tokenizer(folder / "wordpiece/tokenizer")
    ids = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
    arrays: dict[str, Any] = documents_of(ids, rows, labels[rows])
    np.savez(folder / "labelled.npz", **arrays)


@dataclass(frozen=True)
class Data:
    """What `prepare` wrote, and one of the shapes."""

    folder: Path
    shape: str

    @property
    def params(self) -> TextParams:
        return SHAPES[self.shape]

    @property
    def home(self) -> Path:
        return self.folder / ("bpe" if self.params.decodes else "wordpiece")

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return load_tokenizer(self.home / "tokenizer")

    def documents(self) -> Documents:
        """Return the tokenised glosses, of which 1,000 are held out."""
        files = open_tokens(self.home / "tokens")
        order = np.random.default_rng(0).permutation(len(files))
        train, held_out = np.sort(order[_HELD_OUT:]), np.sort(order[:_HELD_OUT])
        return Documents(files, self.tokenizer(), LENGTH, train, held_out)

    def labelled(self) -> Labelled:
        """Return the glosses of the noun classes with their labels."""
        with np.load(self.folder / "labelled.npz") as arrays:
            return Labelled.from_arrays(dict(arrays))

    def config(self, *, dropout: bool) -> PreTrainedConfig:
        """Return the shape's configuration: without dropout, or with as much as its class has by default."""
        config = build_config(self.params, self.tokenizer())
        if dropout:
            usual = type(config)()
            for name in vars(usual):
                if name.endswith(("_pdrop", "_dropout", "_dropout_prob")):
                    setattr(config, name, getattr(usual, name))
        return config

    def model(self, *, dropout: bool, seed: int = 0) -> PreTrainedModel:
        """Return the untrained language model; its weights are a function of shape and seed."""
        import torch

        torch.manual_seed(seed)
        return build_model(self.config(dropout=dropout), decodes=self.params.decodes)


def grouped(documents: Documents, chosen: np.ndarray) -> np.ndarray:
    """Return (n, LENGTH) token ids: the chosen documents end to end, cut into blocks; the rest is dropped.

    It is `group_texts` of transformers' examples, but over all documents at once, so less is dropped.
    """
    ids, _ = documents.files.gather(chosen)
    return ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)
