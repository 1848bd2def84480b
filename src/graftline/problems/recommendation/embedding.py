"""Vectors of users and of items, out of a trunk of histories or a model on one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from graftline.problems.documents import by_length
from graftline.problems.model import read_facts
from graftline.problems.recommendation.examples import of_questions
from graftline.trunks import CONFIG
from graftline.trunks.items.parameters import ItemsParams
from graftline.trunks.items.trunk import ItemTrunk, load_joined, load_trunk, padded


def embed_histories(folder: Path, histories: list[list[str]]) -> np.ndarray:
    """Return (n, width) float32 vectors of users: the last hidden state at [MASK] after what each has.

    Items that the model does not know are left out, and it is said how many.
    """
    trunk = _open(folder)
    vocabulary = trunk.vocabulary
    unknown = sum(item not in vocabulary.numbers for history in histories for item in history)
    if unknown:
        print(f"embed: {unknown:,} of {sum(map(len, histories)):,} items are unknown: left out", file=sys.stderr)
    asked = of_questions([vocabulary.known(history) for history in histories])
    vectors = np.empty((len(histories), trunk.params.width), dtype=np.float32)
    with torch.inference_mode():
        table, _ = trunk.table()
        for chosen in by_length(asked.lengths):
            ids = padded(asked.take(chosen).given(), vocabulary.padding, table.device)
            vectors[chosen.numpy()] = trunk.states(ids, table).cpu().numpy()
    return vectors


def embed_items(folder: Path) -> tuple[list[str], np.ndarray]:
    """Return all items that the model knows, and their (items, width) float32 vectors, words included."""
    trunk = _open(folder)
    with torch.inference_mode():
        vectors, _ = trunk.table()
    found: np.ndarray = vectors.cpu().numpy()
    return list(trunk.vocabulary.items), found


def _open(folder: Path) -> ItemTrunk:
    if (folder / CONFIG).is_file():
        return load_trunk(folder).eval()
    return load_joined(folder, ItemsParams.model_validate(read_facts(folder)["trunk"])).eval()
