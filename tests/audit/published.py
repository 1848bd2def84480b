"""A store as real publishing leaves it: two tasks, three releases, a rollback, a rotated key, a second trusted key."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.audit.erase.erasing import ErasurePlan, Target, erase
from graftline.digests import ENVELOPE, RECORD, sha256_bytes
from graftline.ledger.checkpoint import TreeHead, make_checkpoint
from graftline.ledger.log import Ledger, key_event
from graftline.records.folder import Draft, read_record, write_record
from graftline.records.model import Dependency
from graftline.releases.catalogue import champion
from graftline.releases.promotion import rollback
from graftline.releases.publishing import Publication, Receipt, publish
from graftline.releases.publishing import ReleaseDraft as Release
from graftline.rows.building import build
from graftline.rows.erasing import shards_with
from graftline.rows.finding import find
from graftline.runs import End, Start, conclude
from graftline.signing import keyring, rotation
from graftline.signing.keyring import keys_folder, load_keyring
from graftline.signing.keys import Signer, make_private, read_signer
from graftline.store import Store

LOCK = b"numpy==2.0\nrich==14\n"
MADE_FROM = {"dataset": (), "model": ("dataset",), "evaluation": ("dataset", "model")}
COMPONENTS = {"dataset": "validate", "model": "finetune", "evaluation": "evaluate"}
METRICS = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.95}


def new_signer(folder: Path) -> Signer:
    """Return what signs with a new key that no keyring has."""
    pem, public = make_private()
    path = folder / f"{public.keyid}.pem"
    path.write_bytes(pem)
    return read_signer(path)


@dataclass
class Publisher:
    """A machine that makes records and publishes them. What it makes is a pure function of what it is told."""

    folder: Path
    store: Store
    made: int = 0
    reused: dict[str, Path] = field(default_factory=dict)
    """Outputs of earlier runs, by what they were made of."""

    def outputs(self, task: str, told: str, signer: Signer | None = None) -> dict[str, Path]:
        """Return the outputs of a run; a dataset of the same task is made once."""
        self.made += 1
        made: dict[str, Path] = {}
        for name, inputs in MADE_FROM.items():
            key = f"{task} {name}" if name == "dataset" else f"{task} {name} {told} {self.made}"
            if key not in self.reused:
                self.reused[key] = self._make(task, name, told, [made[of] for of in inputs], signer)
            made[name] = self.reused[key]
        return made

    def _make(self, task: str, name: str, told: str, inputs: list[Path], signer: Signer | None) -> Path:
        out = self.folder / f"{self.made} {task}" / name
        out.mkdir(parents=True)
        if name == "dataset":
            self._write_rows(out, task)
            (out / "schema.json").write_text("{}")
            (out / "profile.json").write_text(json.dumps({"task": task}))
        elif name == "evaluation":
            (out / "metrics.json").write_text(json.dumps(METRICS))
        else:
            (out / "model.safetensors").write_bytes(sha256_bytes(f"{task} {name} {told}".encode()).encode() * 20)
        draft = Draft(COMPONENTS[name], task, name, {COMPONENTS[name]: {"seed": 0, "told": told}})
        draft.dependencies = [_dependency(path) for path in inputs]
        if name == "dataset":
            draft.dependencies.append(Dependency("raw", sha256_bytes(f"raw of {task}".encode())))
        code = [
            {"name": "code", "digest": {"gitCommit": "c" * 40}},
            {"name": "requirements.lock", "digest": {"sha256": sha256_bytes(LOCK)}},
        ]
        write_record(out, replace(draft, code=code), signer)
        return out

    def _write_rows(self, out: Path, task: str) -> None:
        digests = [bytes.fromhex(sha256_bytes(f"{task} {row}".encode())) for row in range(20)]
        columns = {"row": pa.array(range(20), pa.int64()), "digest": pa.array(digests, pa.binary(32))}
        pq.write_table(pa.table(columns | {"split": ["train"] * 20}), out / "rows.parquet")

    def draft(self, task: str, told: str, signer: Signer | None = None) -> Release:
        """Return a release as the publish component drafts it."""
        made = self.outputs(task, told, signer)
        card = self.folder / f"{self.made} card.md"
        card.write_text(f"# {task}\n")
        current = champion(self.store, task)
        return Release(
            task=task,
            files={
                "README.md": card,
                "metrics.json": made["evaluation"] / "metrics.json",
                "model.safetensors": made["model"] / "model.safetensors",
                "profile.json": made["dataset"] / "profile.json",
                "schema.json": made["dataset"] / "schema.json",
            },
            records={name: (path / RECORD).read_bytes() for name, path in made.items()},
            envelopes={name: (path / ENVELOPE).read_bytes() for name, path in made.items()},
            locks={sha256_bytes(LOCK): LOCK},
            metrics=METRICS,
            compared_with=current and {"version": current.version, "digest": current.digest},
        )

    def release(self, task: str, told: str, signer: Signer | None = None) -> Receipt:
        receipt = publish(self.store, self.draft(task, told, signer), Publication(f"{task}-{told}"))
        dataset = self.reused[f"{task} dataset"]
        record = json.loads((dataset / RECORD).read_bytes())
        build(dataset / "rows.parquet", self.store, task, record["subject"][0]["digest"]["sha256"])
        return receipt


def _dependency(path: Path) -> Dependency:
    record = read_record(path)
    return Dependency(record.name, record.content, record.sha256)


def rotate(store: Store) -> None:
    keyring.rotate(keys_folder())
    rotation.hand_over(store, load_keyring())


def erase_row(store: Store, work: Path, task: str, row: int) -> None:
    """Erase a row of a task's first release, where no checkout holds its data."""
    digest = sha256_bytes(f"{task} {row}".encode())
    hits = [asdict(hit) for hit in find(store, "rows", bytes.fromhex(digest))]
    shards = shards_with(store, "rows", bytes.fromhex(digest))
    plan = ErasurePlan(
        f"{digest[:16]}-1",
        "row",
        [digest],
        hits=hits,
        digests=[digest],
        shards=shards,
        tasks=[task],
        releases=[{"task": task, "version": 1}],
    )
    erase(store, work, plan, Target(frozenset({bytes.fromhex(digest)})), {})


def fill(store: Store, work: Path) -> TreeHead:
    """Make the store what the module describes; return a checkpoint of its ledger."""
    work.mkdir(parents=True, exist_ok=True)
    publisher = Publisher(work, store)
    publisher.release("digits", "one")
    rotate(store)
    second = new_signer(work)
    load_keyring().add_trusted(second.public.pem)
    key_event(store, "trust", second.public)
    publisher.release("digits", "two")
    publisher.release("letters", "one", second)
    erase_row(store, work, "letters", 3)
    rollback(store, "digits", 1)
    conclude(store, End(Start("r1", "k1", "digits"), "SUCCEEDED"))
    return make_checkpoint(Ledger(store))
