"""Small releases for tests: the chain of four records that a run makes, without any training."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from graftline.canonical import canonical_json
from graftline.digests import ENVELOPE, RECORD, FileDigest, digest_files
from graftline.records.folder import Draft, write_record
from graftline.records.model import Dependency, Record
from graftline.releases.catalogue import champion
from graftline.releases.publishing import Publication, Receipt, ReleaseDraft, publish
from graftline.store import Store

COMMIT = "5" * 40
LOCK = b"numpy==2.1.0 \\\n    --hash=sha256:00\ntorch==2.13.0+cpu\ntyping_extensions==4.12.2 # via torch\n"
LOCK_DIGEST = sha256(LOCK).hexdigest()
IMAGE = "1" * 64
RAW = [FileDigest("part-1.parquet", 5, "a" * 64), FileDigest("part-2.parquet", 6, "b" * 64)]
SCHEMA = {
    "feature": {"type": "image", "name": "image", "shape": [28, 28], "maximum": 255.0},
    "label": "label",
    "classes": [0, 1],
}
PROFILE = {"version": 1, "rows": 7, "histograms": {"label": {"bins": [0, 1], "counts": [4, 3]}}}
METRICS = {"accuracy": 0.97, "accuracy_low": 0.95, "accuracy_high": 0.98, "n_test": 941}
CARD = """---
license: "Apache-2.0"
tags: [graftline]
---

# digits

Reads digits, and nothing else.

Licence: Apache-2.0. What the data is and where it is from: `data/digits/README.md`.
"""


def code() -> list[dict[str, Any]]:
    return [
        {"name": "code", "digest": {"gitCommit": COMMIT}, "annotations": {"dirty": "d" * 64}},
        {"name": "requirements.lock", "digest": {"sha256": LOCK_DIGEST}},
        {"name": "image", "digest": {"sha256": IMAGE}},
    ]


def make_step(folder: Path, files: dict[str, bytes], **draft: Any) -> Record:
    """Write an output folder with its signed record."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return write_record(folder, Draft(task="digits", output=folder.name, code=code(), **draft))


def made_from(**records: Record) -> list[Dependency]:
    return [Dependency(name, record.content, record.sha256) for name, record in records.items()]


def make_run(folder: Path, salt: str = "") -> dict[str, Record]:
    """Write dataset, trunk, model and evaluation, as four components would; return their records by name."""
    raw = Dependency("raw", digest_files(RAW), annotations={"files": [file.as_dict() for file in RAW]})
    dataset = make_step(
        folder / "dataset",
        {
            "schema.json": json.dumps(SCHEMA).encode(),
            "profile.json": json.dumps(PROFILE).encode(),
            **{f"{split}.parquet": f"{split} {salt}".encode() for split in ("train", "val", "test", "unlabelled")},
        },
        component="validate",
        parameters={"validate": {"test_fraction": 0.2}},
        dependencies=[raw, Dependency("expectations", "e" * 64)],
        metrics={"rows": 7, "rows_train": 3, "rows_quarantined": 0},
    )
    trunk = make_step(
        folder / "trunk",
        {"model.safetensors": b"trunk" + salt.encode()},
        component="pretrain",
        parameters={"pretrain": {"objective": {"name": "masked_autoencoder"}, "seed": 0}},
        dependencies=made_from(dataset=dataset),
        metrics={"loss": 0.25},
        environment={"threads": 1, "torch": "2.13.0+cpu"},
    )
    model = make_step(
        folder / "model",
        {
            "model.safetensors": b"model" + salt.encode() * 9,
            "head.json": b"{}",
            "config.json": b'{"model_type": "conv"}',
        },
        component="finetune",
        parameters={"finetune": {"epochs": 12, "head": {"name": "image_classification"}, "learning_rate": 0.003}},
        dependencies=made_from(dataset=dataset, trunk=trunk),
        metrics={"train_loss": 0.1},
        environment={"threads": 1, "torch": "2.13.0+cpu"},
    )
    evaluation = make_step(
        folder / "evaluation",
        {"metrics.json": canonical_json(METRICS), "reliability.png": b"\x89PNG not really"},
        component="evaluate",
        parameters={"evaluate": {"gate": {"min_accuracy": 0.9}}},
        dependencies=made_from(dataset=dataset, trunk=trunk, model=model),
        metrics=METRICS,
    )
    return {"dataset": dataset, "trunk": trunk, "model": model, "evaluation": evaluation}


def release(store: Store, folder: Path, *, salt: str = "", signed: bool = True) -> Receipt:
    """Make a run in `folder` and publish it."""
    records = make_run(folder, salt)
    card = folder / "README.md"
    card.write_text(CARD)
    of = {
        "model.safetensors": "model",
        "head.json": "model",
        "config.json": "model",
        "schema.json": "dataset",
        "profile.json": "dataset",
        "metrics.json": "evaluation",
        "reliability.png": "evaluation",
    }
    before = champion(store, "digits")
    draft = ReleaseDraft(
        task="digits",
        files={name: folder / output / name for name, output in of.items()} | {"README.md": card},
        records={name: (folder / name / RECORD).read_bytes() for name in records},
        metrics=METRICS,
        compared_with=None if before is None else {"version": before.version, "digest": before.digest},
        envelopes={name: (folder / name / ENVELOPE).read_bytes() for name in records} if signed else {},
        locks={LOCK_DIGEST: LOCK},
    )
    return publish(store, draft, Publication(f"publication-{folder.name}"))
