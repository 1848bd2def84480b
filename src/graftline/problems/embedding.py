"""The head that nothing is learned for: vectors of what a trunk or a release reads.

A text's vector is the mean of its tokens' last hidden states (Reimers and Gurevych, 2019, arXiv:1908.10084), a user's
the state that its items are recommended by.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from graftline.dataset import Schema
from graftline.errors import InputError, brief
from graftline.learning.device import device, send
from graftline.problems.documents import Documents, by_length, padded
from graftline.problems.model import read_facts
from graftline.problems.reading import lost_tokens
from graftline.problems.recommendation.embedding import embed_histories, embed_items
from graftline.problems.transformer import encode
from graftline.text.tokenizer import load_tokenizer
from graftline.trunks import CONFIG, read_config
from graftline.trunks.items.trunk import KIND as ITEMS
from graftline.trunks.layout import quiet
from graftline.trunks.text.trunk import KIND
from graftline.values.column import Question
from graftline.values.items import ItemsColumn, history_of
from graftline.values.strings import read_texts, string_of, words_of
from graftline.values.text import TextColumn
from graftline.values.words import TokensColumn

_MOST_TOKENS = 8192
"""Of a document, where the model itself sets no limit."""


def check_kind(folder: Path, where: str) -> str:
    """Return the kind of trunk that the folder's trunk or model is: of text or of items.

    Raises:
        InputError: it is of another; `where` is what a person called it.
    """
    if (folder / CONFIG).is_file():
        return str(read_config(folder, KIND, ITEMS)["kind"])
    feature = Schema.from_dict(read_facts(folder)).feature
    if isinstance(feature, ItemsColumn):
        return ITEMS
    if not isinstance(feature, TextColumn | TokensColumn):
        raise InputError(where, f"a model of {feature.plural}", expected="one of text or of histories")
    return KIND


def read_values(paths: list[Path], texts: list[str], column: str, kind: str) -> list[Question]:
    """Return the texts or histories of files, then `texts`. Raises InputError as `read_texts` does."""
    return read_texts(paths, texts, column, history_of if kind == ITEMS else None)


def embed_values(folder: Path, values: list[str | list[str]], kind: str) -> np.ndarray:
    """Return (n, width) float32 vectors of texts or histories, by the trunk or model in the folder. Raises InputError.

    `kind` is what `check_kind` returned.
    """
    if kind == ITEMS:
        return embed_histories(folder, [words_of(value) for value in values])
    return embed(folder, [string_of(value) for value in values])


def embed_own(folder: Path, kind: str, where: str) -> tuple[list[str], np.ndarray]:
    """Return what the trunk or model itself knows, such as items, and its (n, width) float32 vectors.

    Raises:
        InputError: it knows nothing by itself.
    """
    if kind != ITEMS:
        raise InputError(where, "a model of text", expected="one of histories, which has vectors of items")
    return embed_items(folder)


def embed(folder: Path, texts: list[str]) -> np.ndarray:
    """Return (n, width) float32 vectors of texts: the mean over a text's own tokens, none of the padding.

    Args:
        folder: a trunk or a model of kind text, in the Hugging Face layout.
        texts: n documents; what is beyond the model's positions is cut off.

    Raises:
        InputError: the folder holds no text model.
    """
    from transformers import AutoModel

    quiet()
    tokenizer = load_tokenizer(folder)
    documents = Documents.from_arrays(encode(folder, texts, _MOST_TOKENS, np.arange(len(texts))))
    if (lost := lost_tokens(documents)) and lost.examples:
        print(f"embed: {lost.told('texts')}", file=sys.stderr)
    try:
        network = AutoModel.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, local_files_only=True
        ).eval()
        if network.config.is_encoder_decoder:  # what it reads, not what it would write
            network = network.get_encoder()
        network.to(device())
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(folder, f"no model that loads ({brief(error)})") from None
    vectors = np.empty((len(texts), network.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for chosen in by_length(documents.lengths):
            part = documents.take(chosen)
            ids = padded(part.ids, part.lengths, int(tokenizer.pad_token_id or 0))
            mask = padded(torch.ones(len(part.ids)), part.lengths, 0)
            ids, mask = send(ids, network.device), send(mask, network.device)
            hidden = network(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
            vectors[chosen.numpy()] = (hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)).cpu().numpy()
    return vectors
