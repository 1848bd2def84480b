"""Stores for the pages: 12 releases made by publishing, of tiny files; and the same with markup in every string."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graftline.digests import ENVELOPE, RECORD, FileDigest, digest_files, sha256_bytes
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.records.folder import Draft, read_record, write_record
from graftline.records.model import Dependency
from graftline.releases.catalogue import champion, resolve
from graftline.releases.promotion import rollback
from graftline.releases.provenance import Provenance, keep
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.runs import Attempt, End, Source, Start, add_attempt, conclude
from graftline.score import Estimate, as_metrics
from graftline.signing.keyring import load_keyring
from graftline.store import Store
from graftline.store.opening import open_store

LOCK = b"numpy==2.1.0\ntorch==2.13.0\n"
PARTS = ("dataset", "trunk", "model", "evaluation")


def picture(red: int) -> bytes:
    """Return a PNG of 24 by 16 pixels."""
    rows = b"".join(b"\0" + bytes([red, 9 * row, 120]) * 24 for row in range(16))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 24, 16, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@dataclass
class Maker:
    """Makes outputs with records below `home`, and releases of them in `home`/store."""

    home: Path
    mark: str = ""
    """Put into every string that a record or a release may hold freely."""
    made: dict[tuple[str, ...], Path] = field(default_factory=dict)

    def output(
        self,
        component: str,
        task: str,
        name: str,
        content: str,
        inputs: list[Dependency],
        files: dict[str, bytes] | None = None,
        **facts: Any,
    ) -> Path:
        """Return the folder of an output; the same content of the same task is made once."""
        key = (component, task, name, content)
        if key not in self.made:
            folder = self.home / "outputs" / f"{len(self.made):03}"
            folder.mkdir(parents=True)
            for path, data in (files or {}).items():
                (folder / path).write_bytes(data)
            (folder / f"{_file_name(name)}{_file_name(self.mark)}.txt").write_text(content)
            code = [
                {"name": "code", "digest": {"gitCommit": sha256_bytes(f"commit {content}".encode())[:40]}},
                {"name": "requirements.lock", "digest": {"sha256": sha256_bytes(LOCK)}},
            ]
            write_record(folder, Draft(component, task, name, dependencies=inputs, code=code, **facts))
            self.made[key] = folder
        return self.made[key]

    def raw(self, task: str, day: int) -> Dependency:
        files = [
            FileDigest(f"part-{part}.parquet{self.mark}", 100, sha256_bytes(f"{task} {day} {part}".encode()))
            for part in range(2)
        ]
        annotations: dict[str, Any] = {"files": [file.as_dict() for file in files], "source": f"the lake {self.mark}"}
        return Dependency("raw", digest_files(files), annotations=annotations)

    def stray(self) -> Dependency:
        """Return a checkpoint to begin with whose record has the mark for component, task and name."""
        folder = self.output(
            self.mark, self.mark, self.mark, "stray", [], parameters={self.mark: {self.mark: [self.mark]}}
        )
        record = read_record(folder)
        signed = Provenance({"stray": (folder / RECORD).read_bytes()}, {"stray": (folder / ENVELOPE).read_bytes()})
        keep(open_store(str(self.home / "store")), signed, load_keyring())
        return Dependency(self.mark, record.content, record.sha256, {self.mark: self.mark, "licence": self.mark})

    def release(self, task: str, version: int, metrics: dict[str, float]) -> None:
        """Publish one release whose data is a new one every third version."""
        day = version // 3
        given = [self.raw(task, day), *([self.stray()] if self.mark else [])]
        dataset = self.output(
            "validate",
            task,
            "dataset",
            f"{task} {day}",
            given,
            metrics={f"rows{self.mark}": 1000 + day, "note": self.mark},
        )
        parameters = {"pretrain": {"epochs": 10 + version, f"name{self.mark}": self.mark}}
        trunk = self.output(
            "pretrain", task, "trunk", f"{task} trunk {version // 2}", [_of("dataset", dataset)], parameters=parameters
        )
        made_of = [_of("dataset", dataset), _of("trunk", trunk)]
        model = self.output(
            "finetune",
            task,
            "model",
            f"{task} model {version}",
            made_of,
            {"model.safetensors": f"{task} {version}".encode()},
            environment={"torch": "2.13.0", "isa": f"x86_64{self.mark}"},
        )
        made_of.append(_of("model", model))
        store = open_store(str(self.home / "store"))
        before = champion(store, task)
        if before:
            made_of.append(Dependency("champion", before.digest))
        evaluation = self.output(
            "evaluate",
            task,
            "evaluation",
            f"{task} evaluation {version}",
            made_of,
            {"confusion.png": picture(17 * version)},
            metrics=metrics,
        )
        self.publish(task, version, metrics, dict(zip(PARTS, (dataset, trunk, model, evaluation), strict=True)))

    def publish(self, task: str, version: int, metrics: dict[str, float], parts: dict[str, Path]) -> None:
        store = open_store(str(self.home / "store"))
        before = champion(store, task)
        folder = self.home / "files" / task / str(version)
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(card(task, self.mark))
        draft = ReleaseDraft(
            task, {path.name: path for path in (
                folder / "README.md", parts["model"] / "model.safetensors", parts["evaluation"] / "confusion.png",
            )},
            {name: (path / RECORD).read_bytes() for name, path in parts.items()}, metrics,
            before and {"version": before.version, "digest": before.digest},
            envelopes={name: (path / ENVELOPE).read_bytes() for name, path in parts.items()},
            locks={sha256_bytes(LOCK): LOCK},
        )  # fmt: skip
        publish(store, draft, Publication(f"a-run-{version:016x}"))


def card(task: str, mark: str) -> str:
    return "\n".join(
        ["---", 'license: "MIT"', "---", f"# {task} {mark}", "", f"For tests. {mark}", "", "| metric | value |",
         "| --- | --- |", f"| accuracy {mark} | 0.97 |", "", f"- one {mark}", "- two `code`", "",
         "![confusion](confusion.png)", "", f"![{mark}](javascript:alert(1))", ""]
    )  # fmt: skip


def _file_name(text: str) -> str:
    return text.replace("/", "|")


def _of(name: str, folder: Path) -> Dependency:
    record = read_record(folder)
    return Dependency(name, record.content, record.sha256)


def measured(version: int, mark: str = "") -> dict[str, float]:
    accuracy = 0.90 + 0.006 * version - (0.02 if version == 4 else 0)
    found = {"accuracy": accuracy, "accuracy_low": accuracy - 0.011, "accuracy_high": accuracy + 0.009}
    for labels in (5, 10):
        lift = 0.05 / labels * 5 + 0.002 * version
        found |= {f"lift_{labels}": lift, f"lift_{labels}_low": lift - 0.01, f"lift_{labels}_high": lift + 0.012}
    return found | {"ece": 0.08 - 0.004 * version, "n_test": 941, f"min_class_recall{mark}": 0.85 + 0.004 * version}


def make_store(home: Path, mark: str = "", *, digits: int = 8, glosses: int = 4) -> Path:
    """Return a store with so many releases of two tasks, and one rollback."""
    maker = Maker(home, mark)
    for version in range(1, digits + 1):
        maker.release("digits", version, measured(version, mark))
    for version in range(1, glosses + 1):
        perplexity, accuracy, _ = TextGenerationParams.scores
        value = 60.0 - version
        scores = {accuracy: Estimate(0.2, 0.1, 0.3), perplexity: Estimate(value, value - 1, value + 1)}
        maker.release("glosses", version, as_metrics(scores) | {"primary": perplexity.name})
    store = open_store(str(home / "store"))
    rollback(store, "digits", digits - 1)
    start = Start("a-run", "b" * 64, f"digits{mark}", f"retrain{mark}", f"main{mark}", "", {f"by{mark}": mark})
    moments = ("2026-11-28T23:10:00Z", "2026-11-28T23:10:21Z")
    given = {f"model{mark}": Source("c" * 64, f"earlier{mark}")}
    for number, (code, line) in enumerate(((75, f"pre-empted{mark}"), (0, ""))):
        attempt = Attempt("a-run", "evaluate", code, line, *moments, pod=f"pod-{number}{mark}", node=f"n{mark}")
        add_attempt(store, replace(attempt, image=f"sha256:{'e' * 64}{mark}", inputs=given))
    conclude(store, End(start, "SUCCEEDED", line=f"in time{mark}", ended=moments[1]))
    write_report(store, home / "runs" / "digits", mark)
    return home / "store"


def write_report(store: Store, outputs: Path, mark: str) -> None:
    """Write the report of the run that made the champion, as if it was made on this machine."""
    (outputs / "release").mkdir(parents=True)
    receipt = {"manifest": resolve(store, "digits").manifest}
    (outputs / "release" / "release.json").write_text(json.dumps(receipt))
    style = "<style>p { color: rgb(1, 2, 3) }</style>"
    (outputs / "report.html").write_text(f"<!doctype html>{style}<p>The report of digits</p>{mark}")
