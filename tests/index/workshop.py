"""Small outputs with real records, and releases of them: what the index and the questions are tested on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftline.digests import ENVELOPE, RECORD, digest_files, list_files, sha256_bytes
from graftline.records.folder import Draft, write_record
from graftline.records.model import Dependency, Record
from graftline.releases.catalogue import champion
from graftline.releases.publishing import Publication, Receipt, ReleaseDraft, publish
from graftline.store import Store

COMMITS = {"first": "1" * 40, "second": "12" + "3" * 38}
LOCK = b"numpy==2.1.0\nTorch==2.13.0 ; python_version > '3'\nsafe.tensors[all]==0.5\n# comment\n"
LOCK_DIGEST = sha256_bytes(LOCK)
IMAGE = "a" * 63 + "b"


@dataclass
class Workshop:
    """Makes outputs below `home`, one folder each."""

    home: Path
    commit: str = COMMITS["first"]
    made: dict[str, Record] = field(default_factory=dict)
    """By the folder's name."""
    code: list[dict[str, Any]] | None = None
    """What records say of the code that ran, instead of `commit` with changes, a lock and an image."""

    def raw(self, name: str, **files: str) -> Path:
        folder = self.home / "raw" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / f"{file}.csv").write_text(text)
        return folder

    def dataset(self, name: str, task: str, raw: Path) -> Path:
        files = list_files(raw)
        listed = Dependency("raw", digest_files(files), annotations={"files": [f.as_dict() for f in files]})
        return self._output(name, "validate", task, "dataset", [listed], rows=3)

    def trunk(self, name: str, task: str, dataset: str, rootstock: str | None = None) -> Path:
        more = [Dependency("rootstock", rootstock, annotations={"licence": "MIT"})] if rootstock else []
        return self._output(name, "pretrain", task, "trunk", [self._from(dataset), *more])

    def model(self, name: str, task: str, dataset: str, trunk: str) -> Path:
        return self._output(name, "finetune", task, "model", [self._from(dataset), self._from(trunk)])

    def evaluation(self, name: str, task: str, dataset: str, trunk: str, model: str, store: Store) -> Path:
        before = champion(store, task)
        compared = [Dependency("champion", before.digest)] if before else []
        given = [self._from(of) for of in (dataset, trunk, model)]
        return self._output(name, "evaluate", task, "evaluation", [*given, *compared], accuracy=0.9)

    def release(self, store: Store, task: str, publication: str, **parts: str) -> Receipt:
        """Publish; `parts` are names of outputs by their part (dataset, trunk, model, evaluation)."""
        folders = {part: self.home / name for part, name in parts.items()}
        before = champion(store, task)
        draft = ReleaseDraft(
            task,
            {"model.safetensors": folders["model"] / "model.bin"},
            {part: (folder / RECORD).read_bytes() for part, folder in folders.items()},
            {"accuracy": 0.9},
            None if before is None else {"version": before.version, "digest": before.digest},
            envelopes={part: (folder / ENVELOPE).read_bytes() for part, folder in folders.items()},
            locks={LOCK_DIGEST: LOCK},
        )
        return publish(store, draft, Publication(publication))

    def all_of(self, store: Store, task: str, number: int, raw: Path, publication: str | None = None) -> Receipt:
        """Make and release everything from raw data."""
        names = {part: f"{task}-{number}-{part}" for part in ("dataset", "trunk", "model", "evaluation")}
        self.dataset(names["dataset"], task, raw)
        self.trunk(names["trunk"], task, names["dataset"])
        self.model(names["model"], task, names["dataset"], names["trunk"])
        self.evaluation(names["evaluation"], task, names["dataset"], names["trunk"], names["model"], store)
        return self.release(store, task, publication or f"{task}-{number}", **names)

    def _from(self, name: str) -> Dependency:
        record = self.made[name]
        return Dependency(record.name, record.content, record.sha256)

    def _output(
        self, name: str, component: str, task: str, output: str, inputs: list[Dependency], **metrics: float
    ) -> Path:
        folder = self.home / name
        folder.mkdir(parents=True)
        (folder / f"{output}.bin").write_text(f"{output} {name}")
        (folder / "config.json").write_text("{}")
        draft = Draft(
            component, task, output, {component: {"seed": 0}}, inputs, dict(metrics), code=self.code or self._code()
        )
        self.made[name] = write_record(folder, draft)
        return folder

    def _code(self) -> list[dict[str, Any]]:
        return [
            {"name": "code", "digest": {"gitCommit": self.commit}, "annotations": {"dirty": "d" * 64}},
            {"name": "requirements.lock", "digest": {"sha256": LOCK_DIGEST}},
            {"name": "image", "digest": {"sha256": IMAGE}},
        ]
