"""Records of years of scheduled retraining: as many as asked for, valid, linked, and the same for the same seed.

Tasks are retrained daily. Data is partitioned by month and nearly always has a new version: one file of it is new, the
others stay. A model is fine-tuned each time, from the trunk of the data's version; a third of the trunks start from one
of a few shared checkpoints or from an earlier trunk of another task. Each run is released (on average of 3.8 records),
most are promoted: 263,000 releases and 500,000 ledger entries beside a million records. Shapes and
sizes are those of the shipped tasks' records. Ledger entries are linked by hash, and their signatures are not real.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2021, 1, 1, tzinfo=UTC)
LOCKS, IMAGES, ROOTSTOCKS = 30, 60, 5
COMMITS_A_DAY = 2
DATA_CHANGES = 0.9
"""Of a task's data, a day."""
MONTHS = 12
"""Files of raw data that a version has."""
SHARED, SHARED_BY = "shared.csv", 20
"""The raw file that so many tasks have in common."""
PROMOTED = 0.9

Object = tuple[str, bytes]
"""A key and what is stored under it."""

_PRETRAIN = {"batch": 128, "batch_tokens": 4096, "corpus": None, "epochs": 5, "held_out": 1000, "learning_rate": 0.003,
             "matrix_rate": 0.02, "objective": {"mask_ratio": 0.3, "name": "masked_lm"}, "optimizer": "muon",
             "precision": "auto", "seed": 0, "spike_factor": 20, "tokenizer": {"kind": "wordpiece", "lowercase": True,
             "sample_megabytes": 64, "vocabulary": 4096}, "trunk": {"architecture": "modernbert", "heads": 2,
             "hidden": 256, "layers": 2, "max_length": 128, "name": "text", "width": 128}, "warmup_steps": 20,
             "weight_decay": 0}  # fmt: skip
_FINETUNE = {"batch": 64, "epochs": 3, "freeze_trunk": False, "head": {"dropout": 0, "label_smoothing": 0, "lora": None,
             "max_tokens": 256, "name": "sequence_classification", "pooling": "mean", "precision": "auto"},
             "joint_weight": 0, "labels_per_class": None, "learning_rate": 0.003, "min_steps": 150, "patience": 4,
             "seed": 0, "trunk_rate": 0.33, "warmup_steps": 10, "weight_decay": 0.05}  # fmt: skip
_EVALUATE = {"bootstrap_resamples": 10000, "budget_labels": None, "budget_seeds": 2, "gate": {"max_champion_loss": 0,
             "max_ece": 0.15, "max_perplexity": None, "min_accuracy": 0.6, "min_class_recall": None,
             "min_lift": {"10": 0.05, "30": 0.05}}, "lift_epochs": None, "lift_labels": [10, 30, 100], "lift_seeds": 4,
             "lift_test_rows": 8000, "mistakes": 24, "seed": 0}  # fmt: skip
_VALIDATE = {"drift_warning": 0.2, "max_bad_fraction": 0.01, "test_fraction": 0.2, "val_fraction": 0.1}
_FILES = {
    "dataset": ("profile.json", "quarantine.parquet", "report.html", "rows.parquet", "schema.json", "test.parquet",
                "train.parquet", "unlabelled.parquet", "val.parquet"),
    "trunk": ("config.json", "loss.png", "metrics.json", "metrics.jsonl", "model.safetensors", "tokenizer.json",
              "tokenizer_config.json", "trunk.json"),
    "model": ("config.json", "curve.png", "head.json", "metrics.json", "metrics.jsonl", "model.safetensors",
              "tokenizer.json", "tokenizer_config.json"),
    "evaluation": ("classes.json", "confusion.csv", "confusion.png", "decision.json", "lift.csv", "lift.json",
                   "lift.png", "metrics.json", "mistakes.json", "predictions.parquet", "reliability.png"),
}  # fmt: skip
_LASTING = frozenset({"config.json", "tokenizer.json", "tokenizer_config.json", "schema.json", "trunk.json"})
"""Files that stay the same from one version to the next."""
_RELEASED = (
    ("model", ("config.json", "head.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")),
    ("evaluation", ("confusion.png", "lift.png", "metrics.json", "reliability.png")),
    ("dataset", ("profile.json", "schema.json")),
)


@dataclass
class Made:
    """An output: its record and its content, and its files' digests by name."""

    record: str
    content: str
    files: dict[str, str]


@dataclass
class _Task:
    name: str
    raw: dict[str, str]
    """The sha256 of each raw file."""
    parameters: dict[str, str] = field(default_factory=dict)
    """Canonical JSON by component."""
    dataset: Made | None = None
    trunk: Made | None = None
    version: int = 0
    champion: tuple[int, str] | None = None


class Shop:
    """Makes the objects of a store, day by day. Use once."""

    def __init__(self, records: int, *, tasks: int = 200, seed: int = 0) -> None:
        self.records = records
        self._random = random.Random(seed)  # noqa: S311  (the same for the same seed)
        self._left = records
        self.locks = [self._lock(number) for number in range(LOCKS)]
        self._images = [self._digest() for _ in range(IMAGES)]
        self._rootstocks = [self._digest() for _ in range(ROOTSTOCKS)]
        shared = [self._digest() for _ in range(-(-tasks // SHARED_BY))]
        self._tasks = [self._task(number, shared[number // SHARED_BY]) for number in range(tasks)]
        self._trunks: list[str] = []
        self._last, self._sequence = "0" * 64, 0

    def objects(self) -> Iterator[Object]:
        """Give every object of the store: locks first, then day by day."""
        for text in self.locks:
            yield f"locks/{_sha(text)}.txt", text
        day = 0
        while self._left > 0:
            commits = [self._random.randbytes(20).hex() for _ in range(COMMITS_A_DAY)]
            for task in self._tasks:
                if self._left > 0:
                    yield from self._run(task, day, self._random.choice(commits))
            day += 1

    def _run(self, task: _Task, day: int, commit: str) -> Iterator[Object]:
        lock, image = self.locks[day // 60 % LOCKS], self._images[day // 30 % IMAGES]
        code = _code(commit, _sha(lock), image)
        if task.dataset is None or self._random.random() < DATA_CHANGES:
            task.raw[f"{1 + day // 30 % MONTHS:02d}.csv"] = self._digest()
            task.dataset = yield from self._step(task, "validate", "dataset", self._raw_inputs(task) + code)
            task.trunk = yield from self._step(task, "pretrain", "trunk", self._trunk_inputs(task) + code)
        assert task.trunk is not None
        above = [_made("dataset", task.dataset), _made("trunk", task.trunk)]
        model = yield from self._step(task, "finetune", "model", above + code)
        compared = [] if task.champion is None else [_outside("champion", task.champion[1])]
        inputs = [*above, _made("model", model), *compared, *code]
        evaluation = yield from self._step(task, "evaluate", "evaluation", inputs)
        parts = {"dataset": task.dataset, "trunk": task.trunk, "model": model, "evaluation": evaluation}
        yield from self._release(task, parts, START + timedelta(days=day, seconds=self._random.randrange(86400)))

    def _step(self, task: _Task, component: str, output: str, inputs: list[str]) -> Generator[Object, None, Made]:
        """Give the output's record; return what was made (as a generator's return value)."""
        files = {
            name: _sha(f"{task.name}/{output}/{name}".encode()) if name in _LASTING else self._digest()
            for name in _FILES[output]
        }
        listing = _listing(files)
        content = _sha(listing.encode())
        environment = "{}" if output == "dataset" else _ENVIRONMENT
        text = (
            '{"_type":"https://in-toto.io/Statement/v1","predicate":{"buildDefinition":{"buildType":'
            '"https://graftline.dev/component/v1","externalParameters":{"component":"' + component
            + '","parameters":' + task.parameters[component] + ',"task":"' + task.name
            + '"},"resolvedDependencies":[' + ",".join(inputs)
            + ']},"runDetails":{"builder":{"id":"https://graftline.dev/builder/v1"},"byproducts":[{"annotations":'
            + self._metrics(output) + ',"name":"metrics"},{"annotations":' + environment
            + ',"name":"environment"},{"annotations":{"files":' + listing
            + '},"name":"files"}]}},"predicateType":"https://slsa.dev/provenance/v1","subject":[{"digest":{"sha256":"'
            + content + '"},"name":"' + output + '"}]}'
        )  # fmt: skip
        data = text.encode()
        made = Made(_sha(data), content, files)
        self._left -= 1
        yield f"records/{made.record}.json", data
        return made

    def _raw_inputs(self, task: _Task) -> list[str]:
        listing = _listing(task.raw)
        raw = f'{{"annotations":{{"files":{listing}}},"digest":{{"sha256":"{_sha(listing.encode())}"}},"name":"raw"}}'
        return [raw, _outside("expectations", _sha(f"{task.name}/expectations".encode()))]

    def _trunk_inputs(self, task: _Task) -> list[str]:
        assert task.dataset is not None
        inputs = [_made("dataset", task.dataset)]
        chance = self._random.random()
        if chance < 0.25:
            inputs.append(_outside("rootstock", self._random.choice(self._rootstocks)))
        elif chance < 0.33 and self._trunks:
            inputs.append(_outside("rootstock", self._random.choice(self._trunks)))
        return inputs

    def _release(self, task: _Task, parts: dict[str, Made], at: datetime) -> Iterator[Object]:
        task.version += 1
        if task.trunk is not None and self._random.random() < 0.01:
            self._trunks = [*self._trunks[-100:], task.trunk.content]
        files = {name: parts[of].files[name] for of, names in _RELEASED for name in names}
        files["README.md"] = self._digest()
        content = _sha(_listing(files).encode())
        records = {f"records/{name}.json": made.record for name, made in parts.items()}
        time = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        before = _pointer(task.champion)
        manifest = (
            f'{{"champion_when_published":{before},"compared_with":{before},"content":"{content}","created":"{time}",'
            f'"files":{_listing(files | records)},"metrics":{self._metrics("evaluation")},'
            f'"publication":"{task.name}-{at:%Y%m%d}-{content[:16]}","records":'
            + json.dumps({name: parts[name].record for name in sorted(parts)}, separators=(",", ":"))
            + f',"task":"{task.name}","version":{task.version}}}'
        ).encode()
        yield f"releases/{task.name}/{task.version}/manifest.json", manifest
        yield self._entry("release", task, time, _sha(manifest), None)
        if self._random.random() < PROMOTED:
            task.champion = (task.version, content)
            yield self._entry("promote", task, time, _sha(manifest), "champion")

    def _entry(self, event: str, task: _Task, at: str, digest: str, alias: str | None) -> Object:
        self._sequence += 1
        named = "null" if alias is None else f'"{alias}"'
        data = (
            f'{{"actor":"retrain","alias":{named},"at":"{at}","detail":{{}},"digest":"{digest}","event":"{event}",'
            f'"id":"{task.name}-{self._sequence}:{event}","key":"{"5" * 64}","previous":"{self._last}",'
            f'"root":"{self._last}","sequence":{self._sequence},"signature":"{"A" * 96}","task":"{task.name}",'
            f'"version":{task.version}}}'
        ).encode()
        self._last = _sha(data)
        return f"ledger/{self._sequence:08d}.json", data

    def _metrics(self, output: str) -> str:
        figure = self._random.random
        if output == "dataset":
            return (
                f'{{"bad_fraction":{figure():.4f},"duplicate_rows":0,"label_conflicts":0,"rows":117659,"rows_quarantined":'
                '626,"rows_test":16114,"rows_train":57061,"rows_unlabelled":35616,"rows_val":8242,"warnings":0}'
            )
        if output == "evaluation":
            names = ("accuracy", "accuracy_high", "accuracy_low", "ece", "lift_10", "lift_10_high", "lift_10_low",
                     "lift_30", "lift_30_high", "lift_30_low", "macro_f1", "min_class_recall")  # fmt: skip
            return "{" + ",".join([f'"{name}":{figure():.12f}1' for name in names]) + "}"
        return f'{{"examples":57061,"final_loss":{figure():.12f}1,"steps":1340,"tokens":2220964}}'

    def _task(self, number: int, shared: str) -> _Task:
        name = f"task-{number:03d}"
        own = {"seed": number}
        sections = {
            "validate": {"validate": _VALIDATE},
            "pretrain": {"pretrain": _PRETRAIN | own},
            "finetune": {"finetune": _FINETUNE | own},
            "evaluate": {"evaluate": _EVALUATE | own, "finetune": _FINETUNE | own},
        }
        raw = {f"{month:02d}.csv": self._digest() for month in range(1, MONTHS + 1)} | {SHARED: shared}
        return _Task(name, raw, {component: _json(value) for component, value in sections.items()})

    def _lock(self, number: int) -> bytes:
        names = ["torch", "transformers", "numpy", "pyarrow", "safetensors", *(f"library-{n}" for n in range(95))]
        return "".join(f"{name}==2.{number}.{at % 7}\n" for at, name in enumerate(names)).encode()

    def _digest(self) -> str:
        return self._random.randbytes(32).hex()


_ENVIRONMENT = '{"dtype":"bfloat16","isa":"x86_64 AVX512","threads":2,"torch":"2.13.0+cpu"}'


def write_store(folder: Path, records: int, *, tasks: int = 3, seed: int = 0) -> None:
    """Write a small store: one file an object."""
    for key, data in Shop(records, tasks=tasks, seed=seed).objects():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _listing(files: dict[str, str]) -> str:
    return (
        "["
        + ",".join(
            [
                f'{{"path":"{path}","sha256":"{sha256}","size":{1000 + 37 * len(path)}}}'
                for path, sha256 in sorted(files.items())
            ]
        )
        + "]"
    )


def _made(name: str, made: Made) -> str:
    return f'{{"annotations":{{"record":"{made.record}"}},"digest":{{"sha256":"{made.content}"}},"name":"{name}"}}'


def _outside(name: str, sha256: str) -> str:
    return f'{{"digest":{{"sha256":"{sha256}"}},"name":"{name}"}}'


def _code(commit: str, lock: str, image: str) -> list[str]:
    return [
        f'{{"digest":{{"gitCommit":"{commit}"}},"name":"code"}}',
        _outside("requirements.lock", lock),
        _outside("image", image),
    ]


def _pointer(champion: tuple[int, str] | None) -> str:
    return "null" if champion is None else f'{{"digest":"{champion[1]}","version":{champion[0]}}}'


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
