"""diff: the smallest set of causes between two models, each at the step where it begins."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from graftline.cli.diff import diff as diff_command
from graftline.digests import sha256_bytes
from graftline.errors import InputError
from graftline.lineage.diff import Cause, Change, compare, diff
from graftline.lineage.diff_code import changed_files
from graftline.lineage.diff_rows import compare_rows
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.problems.token_classification.parameters import TokenClassificationParams
from graftline.records.folder import Draft, write_record
from graftline.records.model import Dependency, Record
from graftline.releases.catalogue import Release, resolve
from graftline.releases.chain import ReleaseChain, read_release_chain
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.rows import shards
from graftline.rows.building import MERGED, build
from graftline.score import Estimate, as_metrics
from graftline.store.opening import open_store

MADE_FROM = {"dataset": (), "trunk": ("dataset",), "model": ("dataset", "trunk"), "evaluation": ("dataset", "model")}
COMPONENTS = {"dataset": "validate", "trunk": "pretrain", "model": "finetune", "evaluation": "evaluate"}
METRICS = {"accuracy": 0.90, "accuracy_low": 0.88, "accuracy_high": 0.92, "n_test": 1000}


def digest(text: str) -> str:
    return sha256_bytes(text.encode())


def code(commit: str = "a", dirty: str = "", lock: str = "lock", image: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": "code", "digest": {"gitCommit": commit * 40}}]
    if dirty:
        found[0]["annotations"] = {"dirty": digest(dirty)}
    found.append({"name": "requirements.lock", "digest": {"sha256": digest(lock)}})
    return found + ([{"name": "image", "digest": {"sha256": digest(image)}}] if image else [])


class Run:
    """One run of the four steps: what each gives depends on its inputs and on what it was told, as in a real one."""

    def __init__(self, folder: Path, **told: Any) -> None:
        self.folder, self.told = folder, {"raw": "rows", "code": code()} | told
        self.records: dict[str, Record] = {}
        for name in MADE_FROM:
            self.records[name] = self._step(name)

    def _step(self, name: str) -> Record:
        parameters = {COMPONENTS[name]: {"seed": 0, "head": {"width": 8}} | self.told.get(name, {})}
        inputs = [self.records[of] for of in MADE_FROM[name]]
        dependencies = [Dependency(record.name, record.content, record.sha256) for record in inputs]
        if name == "dataset":
            dependencies.append(Dependency("raw", digest(self.told["raw"])))
            dependencies += self.told.get("outside", [])
        environment = {"threads": 1, "torch": "2.13"} | self.told.get("environment", {})
        environment = environment if name in ("trunk", "model") else {}
        given = [(dependency.name, dependency.sha256) for dependency in dependencies]
        whole = f"{given} {parameters} {self.code(name)} {environment} {self.told.get(f'{name} luck')}"
        out = self.folder / name
        out.mkdir(parents=True)
        (out / "content").write_text(self.told.get(f"{name} content", digest(whole)))
        draft = Draft(COMPONENTS[name], "digits", name, parameters, dependencies, environment=environment)
        return write_record(out, replace(draft, code=self.code(name)))

    def code(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.told.get(f"{name} code", self.told["code"])
        return found

    def chain(self, **facts: Any) -> ReleaseChain:
        parts = {name: record.sha256 for name, record in self.records.items()}
        manifest = {"metrics": METRICS, "compared_with": None, "records": parts} | facts
        release = Release("digits", 1, "", self.records["model"].content, "", (), "")
        return ReleaseChain(release, manifest, {record.sha256: record for record in self.records.values()}, {})


def compared(champion: ReleaseChain) -> dict[str, Any]:
    return {"version": champion.release.version, "digest": champion.release.digest}


@pytest.fixture
def runs(tmp_path: Path) -> Any:
    numbers = iter(range(100))
    return lambda **told: Run(tmp_path / f"run-{next(numbers)}", **told)


def causes(one: Run, two: Run, **given: Any) -> list[tuple[str, str, str]]:
    return [(c.step, c.kind, c.name) for c in compare(one.chain(), two.chain(), **given).causes]


def test_equal_runs_have_no_causes_and_are_said_to_be_equal(runs: Any) -> None:
    found = compare(runs().chain(), runs().chain())
    assert found.causes == ()
    assert found.notes == ("the same bits: every file of the two releases is equal",)


def test_a_manifest_that_tells_of_no_metrics_is_compared_all_the_same(runs: Any) -> None:
    old = runs().chain()
    bare = replace(old, manifest={"records": old.manifest["records"]})
    assert {change.after for change in compare(old, bare).metrics} == {None}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"raw": "other rows"}, [("dataset", "data", "raw")]),
        ({"trunk": {"seed": 1}}, [("trunk", "parameter", "pretrain.seed")]),
        ({"model": {"head": {"width": 9}}}, [("model", "parameter", "finetune.head.width")]),
        ({"evaluation": {"seed": 1}}, [("evaluation", "parameter", "evaluate.seed")]),
        ({"code": code("b")}, [("dataset", "code", "commit")]),
        ({"code": code(dirty="x")}, [("dataset", "code", "commit")]),
        ({"trunk code": code("b")}, [("trunk", "code", "commit")]),
        ({"code": code(lock="other")}, [("dataset", "packages", "requirements.lock")]),
        ({"model code": code(image="other")}, [("model", "image", "image")]),
        ({"environment": {"threads": 2}}, [("trunk", "environment", "threads")]),
        ({"model luck": "bad"}, [("model", "unexplained", "output")]),
    ],
)
def test_one_change_is_one_cause_at_the_step_where_it_begins(
    runs: Any, told: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert causes(runs(), runs(**told)) == expected


def test_a_change_that_did_not_change_a_steps_output_is_no_cause(runs: Any) -> None:
    one = runs(**{"dataset content": "equal"})
    two = runs(**{"dataset content": "equal", "dataset": {"seed": 7}, "model": {"seed": 7}})
    assert causes(one, two) == [("model", "parameter", "finetune.seed")]


def test_several_changes_are_each_listed_once_in_the_order_of_the_steps(runs: Any) -> None:
    two = runs(raw="other rows", model={"seed": 3}, code=code("b"), environment={"threads": 2})
    assert causes(runs(), two) == [
        ("dataset", "data", "raw"),
        ("dataset", "code", "commit"),
        ("trunk", "environment", "threads"),
        ("model", "parameter", "finetune.seed"),
    ]


def test_a_cause_holds_both_sides(runs: Any) -> None:
    (cause,) = compare(runs().chain(), runs(trunk={"seed": 1, "epochs": 2}).chain()).causes[1:]
    assert cause == Cause("trunk", "parameter", "pretrain.seed", 0, 1)


def test_changed_raw_files_and_base_checkpoints_are_named(runs: Any) -> None:
    def outside(*files: tuple[str, str], **kinds: str) -> list[Any]:
        listed: Any = [{"path": path, "size": 1, "sha256": digest(text)} for path, text in files]
        given = Dependency("letters", digest(str(files)), annotations={"files": listed})
        return [given, Dependency("rootstock", digest(kinds["base"]))]

    one = runs(outside=outside(("a.csv", "1"), ("b.csv", "1"), base="bert"))
    two = runs(outside=outside(("a.csv", "2"), ("c.csv", "1"), base="modernbert"))
    letters, base = compare(one.chain(), two.chain()).causes
    assert letters.kind == "data"
    assert letters.details == (
        Change("a.csv", digest("1"), digest("2")),
        Change("b.csv", digest("1"), None),
        Change("c.csv", None, digest("1")),
    )
    assert (base.kind, base.before, base.after) == ("base checkpoint", digest("bert"), digest("modernbert"))


def test_changed_packages_are_named_and_explain_the_environments_version(runs: Any) -> None:
    locks = {digest("lock"): {"torch": "2.13", "numpy": "1"}, digest("new"): {"torch": "2.14", "rich": "3"}}
    two = runs(code=code(lock="new"), environment={"torch": "2.14"})
    (cause,) = compare(runs().chain(), two.chain(), packages=locks.get).causes
    assert cause.kind == "packages"
    assert cause.details == (Change("numpy", "1", None), Change("rich", None, "3"), Change("torch", "2.13", "2.14"))


def git(repository: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(["git", "-C", repository, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, list[str]]:
    """A repository of three commits: the second changes code, the third only a page."""
    folder, commits = tmp_path / "repository", []
    (folder / "src/graftline").mkdir(parents=True)
    git(folder, "init", "-q")
    for path, text in (("src/graftline/a.py", "1"), ("src/graftline/a.py", "2"), ("README.md", "page")):
        (folder / path).write_text(text)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "change")
        commits.append(git(folder, "rev-parse", "HEAD"))
    return folder, commits


def at_commit(commit: str) -> list[dict[str, Any]]:
    return [{"name": "code", "digest": {"gitCommit": commit}}]


def test_the_files_that_commits_differ_in_are_listed(runs: Any, repository: tuple[Path, list[str]]) -> None:
    folder, (first, second, third) = repository
    chains = [runs(code=at_commit(commit)).chain() for commit in (first, second, third)]

    def files(a: str, b: str) -> list[tuple[str, str]] | None:
        return changed_files(folder, a, b)

    (cause,) = compare(chains[0], chains[2], files=files).causes
    assert (cause.kind, cause.before, cause.after) == ("code", first, third)
    assert cause.details == (Change("src/graftline/a.py", "there", "changed"),)
    only_a_page = compare(chains[1], chains[2], files=files)
    assert [c.kind for c in only_a_page.causes] == ["unexplained"], "other bits, though nothing that runs changed"
    assert "none of which runs in a step" in only_a_page.notes[0]


def test_a_commit_that_is_none_is_not_given_to_git(repository: tuple[Path, list[str]]) -> None:
    folder, (first, *_) = repository
    assert changed_files(folder, "--output=x", first) is None
    assert changed_files(folder, "0" * 40, first) is None
    assert not (folder / "x").exists()


def test_metrics_have_a_difference_and_its_interval(runs: Any) -> None:
    after = {"accuracy": 0.95, "accuracy_low": 0.93, "accuracy_high": 0.96, "n_test": 1000, "ece": 0.1}
    accuracy, ece, rows = compare(runs().chain(), runs().chain(metrics=after)).metrics
    assert (accuracy.name, ece.name, rows.name) == ("accuracy", "ece", "n_test")
    # square and add: 0.05 - sqrt(0.02^2 + 0.02^2), 0.05 + sqrt(0.01^2 + 0.02^2)
    assert (accuracy.difference, accuracy.low, accuracy.high) == pytest.approx((0.05, 0.02172, 0.07236), abs=1e-5)
    assert accuracy.significant and accuracy.method == "independent"
    assert (ece.before, ece.after, ece.difference, ece.low) == (None, 0.1, None, None)
    assert (rows.difference, rows.low) == (0, None)


def test_a_model_that_was_evaluated_against_the_other_has_the_paired_difference(runs: Any) -> None:
    one = runs().chain()
    paired = {"champion_difference": 0.04, "champion_difference_low": 0.03, "champion_difference_high": 0.05}
    metrics = METRICS | {"accuracy": 0.94} | paired
    changes = compare(one, runs().chain(metrics=metrics, compared_with=compared(one))).metrics
    accuracy = next(change for change in changes if change.name == "accuracy")
    assert (accuracy.method, accuracy.low, accuracy.high) == ("paired", 0.03, 0.05)
    assert not [change for change in changes if change.name.startswith("champion")]


def test_the_paired_difference_is_that_of_the_primary_score_and_less_may_be_better(runs: Any) -> None:
    perplexity, accuracy, _ = TextGenerationParams.scores
    first = as_metrics({perplexity: Estimate(50.0, 48.0, 52.0), accuracy: Estimate(0.2, 0.1, 0.3)})
    second = as_metrics({perplexity: Estimate(40.0, 38.0, 42.0), accuracy: Estimate(0.6, 0.5, 0.7)})
    second |= {"champion_difference": -10.0, "champion_difference_low": -11.0, "champion_difference_high": -9.0}
    one = runs().chain(metrics=first)
    changes = compare(one, runs().chain(metrics=second, compared_with=compared(one))).metrics
    found = {change.name: (change.method, change.verdict) for change in changes}
    assert found == {"perplexity": ("paired", "better"), "accuracy": ("independent", "better")}
    before = runs().chain()  # metrics that name no scores
    after = as_metrics({TokenClassificationParams.scores[0]: Estimate(0.94, 0.92, 0.96)})
    after |= {"champion_difference": 0.04, "champion_difference_low": 0.03, "champion_difference_high": 0.05}
    mixed = compare(before, runs().chain(metrics=after, compared_with=compared(before))).metrics
    assert [(m.name, m.method, m.verdict) for m in mixed if m.after] == [("accuracy", "paired", "better")]
    back = compare(runs().chain(metrics=second), runs().chain(metrics=first)).metrics
    assert {change.name: change.verdict for change in back} == {"perplexity": "worse", "accuracy": "worse"}


def release(store_url: Path, run: Run, identity: str, metrics: Mapping[str, float] = METRICS) -> None:
    files = {"model.safetensors": run.folder / "model" / "content"}
    records = {name: (run.folder / name / "record.json").read_bytes() for name in run.records}
    publish(open_store(str(store_url)), ReleaseDraft("digits", files, records, metrics), Publication(identity))


@pytest.fixture
def store(tmp_path: Path, runs: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with two releases of different raw data and seed."""
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    folder = tmp_path / "store"
    release(folder, runs(), "one")
    hostile = "[red]\x1b[2J"
    release(folder, runs(raw="other", model={"seed": hostile}), "two", METRICS | {"accuracy": 0.91})
    return folder


def run_command(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(diff_command)
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_tables_or_json(store: Path) -> None:
    found = json.loads(run_command("digits@1", "digits@2", "--json", "--store", str(store)))
    assert [(c["step"], c["name"]) for c in found["causes"]] == [("dataset", "raw"), ("model", "finetune.seed")]
    assert found["metrics"][0]["name"] == "accuracy"
    table = run_command("digits@1", "digits@2", "--store", str(store))
    for text in ("digits@1", "digits@2", "finetune.seed", "+0.0100", "digests only"):
        assert text in table
    assert "[red]\\x1b[2J" in table and "\x1b" not in table, "values are shown and never obeyed"


def test_a_record_that_was_changed_or_is_missing_is_named(store: Path) -> None:
    opened = open_store(str(store))
    record = "releases/digits/1/records/model.json"
    (store / record).write_bytes(b"{}")
    with pytest.raises(InputError, match=f"{record}: sha256 "):
        diff(opened, "digits@1", "digits@2", store)
    (store / record).unlink()
    with pytest.raises(InputError, match=f"{record}: missing"):
        read_release_chain(opened, resolve(opened, "digits@1"))
    with pytest.raises(InputError, match="no version 7"):
        diff(opened, "digits@7", "digits@2", store)


def indexed(store: Any, folder: Path, name: str, rows: list[str], splits: Mapping[str, str] = {}) -> str:
    """Put a data set of these rows into the store's row index; return its content digest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "row": pa.array(range(len(rows)), pa.int64()),
            "digest": pa.array([bytes.fromhex(digest(row)) for row in rows], pa.binary(32)),
            "split": [splits.get(row, "train") for row in rows],
        }
    )
    pq.write_table(table, folder / f"{name}.parquet")
    build(folder / f"{name}.parquet", store, "digits", digest(name))
    return digest(name)


def test_rows_are_compared_by_the_row_index(runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    store = open_store(str(tmp_path / "store"))
    rows = [f"row {number}" for number in range(500)]
    other = ["new at the top", *rows[:100], "changed", *rows[101:200], *rows[202:], "new at the end"]
    one = indexed(store, tmp_path, "one", rows)
    two = indexed(store, tmp_path, "two", other, {"row 7": "test"})
    assert compare_rows(store, one, two) == {
        "rows added": 2,
        "rows removed": 2,
        "rows changed": 1,
        "rows in another split": 1,
    }
    assert compare_rows(store, one, one) == {}
    assert compare_rows(store, one, indexed(store, tmp_path, "shuffled", rows[::-1])) == {}
    assert compare_rows(store, one, digest("a data set without an index")) is None
    (cause,) = compare(runs().chain(), runs(raw="x").chain(), rows=lambda a, b: {"rows added": 2}).causes
    assert cause.details == (Change("rows added", 0, 2),)


def test_rows_in_several_shards_and_in_a_merged_segment_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr(shards, "SHARD_BYTES", 1024)
    store = open_store(str(tmp_path / "store"))
    rows = [f"row {number}" for number in range(200)]
    names = [indexed(store, tmp_path, f"data {n}", rows[n:]) for n in range(MERGED + 1)]
    assert compare_rows(store, names[0], names[3]) == {"rows removed": 3}
    assert compare_rows(store, names[MERGED], names[0]) == {"rows added": MERGED}
