"""trace and impact: the same answers from a directory and from S3, as tables and as JSON, and how they end."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
sys.path.insert(0, str(Path(__file__).parents[1] / "index"))

from servers import moto_endpoint, moto_url, real_url, store_url
from workshop import COMMITS, IMAGE, LOCK_DIGEST, Workshop

from graftline.audit.raw_row import digests_of
from graftline.audit.verify.verifying import verify
from graftline.cli import impact as impact_module
from graftline.cli.impact import impact as impact_command
from graftline.cli.index import index as index_command
from graftline.cli.trace import trace as trace_command
from graftline.digests import digest_path, sha256_bytes, sha256_file
from graftline.errors import InputError
from graftline.index.opening import open_index
from graftline.index.queries import Index
from graftline.lineage import impact
from graftline.lineage.trace import trace
from graftline.records.model import UNKNOWN_CHANGES
from graftline.rows.building import build
from graftline.rows.finding import RowHit
from graftline.rows.subjects import hash_subject, load_key
from graftline.runs import Attempt, End, Source, Start, add_attempt, begin, begin_again, conclude
from graftline.store import Store
from graftline.store.opening import open_store
from graftline.values.contract import load_contract

__all__ = ["moto_endpoint", "moto_url", "real_url", "store_url"]


RUN = "5a6bdf78-41d3-4c1e-9f10-0a8d3d4dfb4b"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "outputs")


def two_tasks(store: Store, shop: Workshop) -> None:
    """Release two versions of `digits` from data with one file in common, and `letters` from the first one's trunk."""
    shop.all_of(store, "digits", 1, shop.raw("one", a="common", b="first"), "nightly-7-" + "a" * 16)
    reason = {"kind": "schedule", "schedule": "nightly", "slot": "2026-01-31"}
    conclude(store, End(Start("nightly-7", "k" * 64, "digits", "retrain-1", "main", reason=reason), "SUCCEEDED"))
    shop.commit = COMMITS["second"]
    shop.all_of(store, "digits", 2, shop.raw("two", a="common", b="second"))
    shop.dataset("letters-dataset", "letters", shop.raw("three", c="letters"))
    shop.trunk("letters-trunk", "letters", "letters-dataset", shop.made["digits-1-trunk"].content)
    shop.model("letters-model", "letters", "letters-dataset", "letters-trunk")
    shop.evaluation("letters-evaluation", "letters", "letters-dataset", "letters-trunk", "letters-model", store)
    parts = {part: f"letters-{part}" for part in ("dataset", "trunk", "model", "evaluation")}
    shop.release(store, "letters", "letters-1", **parts)


def reached(found: impact.Impact) -> list[str]:
    return [release.reference for release in found.reached.releases]


def test_a_trace_ends_at_raw_files_and_says_who_asked(store_url: str, shop: Workshop) -> None:
    store = open_store(store_url)
    two_tasks(store, shop)
    with open_index(store) as index:
        found = trace(index, "digits@1")
        assert found.release is not None and found.release.reference == "digits@1"
        assert [step.name for step in found.steps] == ["dataset", "trunk", "model", "evaluation"]
        raw = found.steps[0].inputs[0]
        assert [(file.path, file.sha256) for file in raw.files] == [
            ("a.csv", sha256_bytes(b"common")),
            ("b.csv", sha256_bytes(b"first")),
        ]
        assert found.run is not None and found.run.reason == "schedule nightly, slot 2026-01-31"
        assert [entry.event for entry in found.history] == ["release", "promote"]
        assert found.commits == (COMMITS["first"] + "+dirty",) and not found.missing
        assert all(found.keyids[step.sha256] for step in found.steps)
        letters = trace(index, "letters")
        assert [s.task for s in letters.steps if s.name == "trunk"] == ["digits", "letters"]
        second = trace(index, "digits")
        assert list(second.compared.values()) == [("digits@1",)]


def clustered(store: Store, shop: Workshop) -> None:
    """Let digits@1 be of a run on a cluster that took its data and trunk from an earlier one and failed once."""
    shop.all_of(store, "digits", 1, shop.raw("one", a="common"), f"{RUN}-{'a' * 16}")
    made = {part: shop.made[f"digits-1-{part}"].sha256 for part in ("dataset", "trunk", "model", "evaluation")}
    cached = {name: Source(made[name], "earlier") for name in ("dataset", "trunk")}
    own = cached | {"model": Source(made["model"], RUN)}
    for run, step, code, at, record, inputs in (
        ("earlier", "validate", 0, "22:00", made["dataset"], {}),
        ("earlier", "pretrain", 0, "22:10", made["trunk"], {"dataset": Source(made["dataset"], "earlier")}),
        (RUN, "finetune", 1, "23:10", "", cached),
        (RUN, "finetune", 0, "23:20", made["model"], cached),
        (RUN, "evaluate", 0, "23:30", made["evaluation"], own),
        (RUN, "publish", 0, "23:40", "", own),
    ):
        moments = (f"2026-11-28T{at}:00Z", f"2026-11-28T{at}:42Z")
        attempt = Attempt(run, step, code, "no room" if code else "", *moments, record=record, inputs=inputs)
        place = {"pod": f"{step}-pod", "node": "gpu-7", "image": f"registry.example.org/train@sha256:{IMAGE}"}
        add_attempt(store, replace(attempt, **place))


def test_a_trace_tells_of_the_clusters_run(store_url: str, shop: Workshop) -> None:
    """K28: the release carries Kubeflow's id of the run, and so does all that the store knows of it."""
    store = open_store(store_url)
    clustered(store, shop)
    at = ("--store", store_url)
    assert f"run {RUN}: the store has no record of its end" in run("trace", "digits@1", *at)

    reason = {"kind": "person", "who": "ada"}
    start = Start(RUN, "e0f2384ca7de8d8c", "digits", "retrain-digits-c4415d", COMMITS["first"], reason=reason)
    begin(store, start)
    tree = run("trace", "digits@1", *at)
    assert f"run {RUN}: at work" in tree and "started by person, who ada; commit 111111111111" in tree

    conclude(store, End(start, "FAILED", "finetune", "no room", "2026-11-28T23:11:00Z"))
    begin_again(store, RUN)
    tree = run("trace", "digits@1", *at)
    assert f"run {RUN}: at work" in tree and "before it was tried again: FAILED" in tree
    conclude(store, End(start, "SUCCEEDED", ended="2026-11-28T23:41:00Z"))
    tree = run("trace", "digits@1", *at)
    for said in (
        f"run {RUN}: SUCCEEDED at 2026-11-28T23:41:00Z",
        "before it was tried again: FAILED at 2026-11-28T23:11:00Z; finetune: no room",
        "finetune 1: exit code 1, 42 s, pod finetune-pod, node gpu-7, image aaaaaaaaaaaa: no room",
        "finetune 2: exit code 0, 42 s",
        "trunk from the cache: run earlier made it",
        "ran 2026-11-28T22:10:00Z for 42 s, pod pretrain-pod, node gpu-7, image aaaaaaaaaaaa, in run earlier",
        "ran 2026-11-28T23:30:00Z for 42 s, pod evaluate-pod",
    ):
        assert said in tree
    value = json.loads(run("trace", "digits@1", "--json", *at))["run"]
    assert (value["id"], value["start"]["reason"], value["at_work"]) == (RUN, reason, False)
    assert [end["state"] for end in value["ends"]] == ["FAILED", "SUCCEEDED"]
    assert [(one["step"], one["number"], one["code"]) for one in value["attempts"]] == [
        ("finetune", 1, 1),
        ("finetune", 2, 0),
        ("evaluate", 1, 0),
        ("publish", 1, 0),
    ]
    assert value["cached"]["trunk"]["run"] == "earlier" and "model" not in value["cached"]


def test_a_note_of_a_run_that_somebody_changed_hides_nothing_else(store: Store, shop: Workshop) -> None:
    clustered(store, shop)
    store.put_if_absent(f"runs/{RUN}.json", b'{"run": 1}')
    store.put_if_absent(f"runs/steps/{RUN}/evaluate.9.json", b"[]")
    with open_index(store) as index:
        found = trace(index, "digits@1")
    assert len(found.steps) == 4 and found.run is not None and not found.run.attempts
    assert f"runs/{RUN}.json: not the start of a run" in found.run.state


def test_a_record_of_an_image_with_changes_is_traced_as_verify_sees_it(store: Store, shop: Workshop) -> None:
    """K29: such images named their code `<commit>-dirty`; the index left their records out."""
    shop.code = [{"name": "code", "digest": {"gitCommit": f"{COMMITS['first']}-dirty"}}]
    shop.all_of(store, "digits", 1, shop.raw("one", a="common"))
    with open_index(store) as index:
        found = trace(index, "digits@1")
        assert index.records_of_commit(COMMITS["first"]) and not index.problems()
    assert len(found.steps) == 4 and not found.missing
    assert {(step.commit, step.dirty) for step in found.steps} == {(COMMITS["first"], UNKNOWN_CHANGES)}
    assert f"commit {COMMITS['first'][:12]} with changes unknown" in run("trace", "digits", "--store", store.url)
    assert not [finding for finding in verify(store).findings if finding.place.startswith("records/")]


def test_a_record_that_the_index_left_out_is_not_said_to_be_missing_from_the_store(
    store: Store, shop: Workshop
) -> None:
    shop.code = [{"name": "code", "digest": {"gitCommit": "main"}}]
    shop.all_of(store, "digits", 1, shop.raw("one", a="common"))
    with open_index(store) as index:
        found = trace(index, "digits@1")
    assert set(found.left_out) == set(found.missing) and len(found.missing) == 4
    said = run("trace", "digits@1", "--store", store.url)
    assert "in the store, and left out of the index: a commit that is not hexadecimal" in said


def test_an_index_is_made_without_reading_what_steps_said(store: Store, shop: Workshop) -> None:
    clustered(store, shop)

    class Counted(type(store)):  # type: ignore[misc]
        def get(self, key: str) -> Any:
            assert not key.startswith("runs/")
            return super().get(key)

    store.__class__ = Counted
    with open_index(store, rebuild=True) as index:
        assert index.release("digits", 1) is not None


def test_a_model_is_named_in_many_ways(store: Store, shop: Workshop) -> None:
    two_tasks(store, shop)
    model = shop.made["digits-2-model"]
    with open_index(store) as index:
        release = index.resolve("digits@champion")
        for name in ("digits", "digits@2", release.manifest, release.content[:16]):
            assert trace(index, name).release == release
        upwards = trace(index, model.sha256).steps
        assert [step.name for step in upwards] == ["dataset", "trunk", "model"]
        weights = sha256_file(shop.home / "digits-2-model" / "model.bin")
        for name in (model.content, model.sha256[:10], weights):
            assert trace(index, name).steps == upwards
        beside = trace(index, str(shop.home / "digits-2-model"))
        assert [step.sha256 for step in beside.steps] == [step.sha256 for step in upwards]
        shutil.rmtree(shop.home / "digits-2-dataset")
        assert [s.sha256 for s in trace(index, str(shop.home / "digits-2-model")).steps] == [s.sha256 for s in upwards]
        for wrong, said in (
            ("digits@9", "no release '9'"),
            ("digitz", "did you mean 'digits'"),
            ("0" * 12, "nothing in"),
            (digest_path(shop.home / "raw" / "one"), "it names an input"),
            (LOCK_DIGEST, "it names a lock"),
        ):
            with pytest.raises(InputError, match=said):
                trace(index, wrong)


def test_a_missing_record_is_named(tmp_path: Path, shop: Workshop) -> None:
    store = open_store(str(tmp_path / "store"))
    two_tasks(store, shop)
    gone = shop.made["digits-1-dataset"].sha256
    store.delete(f"records/{gone}.json")
    with open_index(store, full=True) as index:
        assert trace(index, "digits@1").missing == (gone,)


def test_what_a_file_reached_goes_through_pretraining_and_fine_tuning(store: Store, shop: Workshop) -> None:
    two_tasks(store, shop)
    with open_index(store) as index:
        common = impact.of_digest(index, sha256_bytes(b"common"))
        assert reached(common) == ["digits@1", "digits@2", "letters@1"]
        assert common.reached.aliases == {("digits", "champion"): 2, ("letters", "champion"): 1}
        assert {(holder.path, holder.input) for holder in common.holders} == {("a.csv", "raw")}
        assert common.reached.counts["trunk", "letters"] == 1 and common.reached.counts["dataset", "digits"] == 2
        assert ("dataset", "letters") not in common.reached.counts
        assert reached(impact.of_digest(index, sha256_bytes(b"second")[:12])) == ["digits@2"]
        assert reached(impact.of_path(index, shop.home / "raw" / "two")) == ["digits@2"]
        assert reached(impact.of_path(index, shop.home / "raw" / "two" / "b.csv")) == ["digits@2"]
        trunk = impact.of_digest(index, shop.made["digits-1-trunk"].content)
        assert reached(trunk) == ["digits@1", "letters@1"]
        assert reached(impact.of_digest(index, shop.made["letters-model"].sha256)) == ["letters@1"]
        assert reached(impact.of_digest(index, index.resolve("letters").content)) == ["letters@1"]
        weights = sha256_file(shop.home / "digits-1-trunk" / "trunk.bin")
        assert reached(impact.of_digest(index, weights)) == ["digits@1", "letters@1"]
        some = impact.of_digest(index, sha256_bytes(b"common"), limit=1).reached
        assert some.counts == common.reached.counts and some.release_count == 3 and len(some.releases) == 1


def test_what_code_and_its_surroundings_reached(store: Store, shop: Workshop) -> None:
    two_tasks(store, shop)
    with open_index(store) as index:
        assert reached(impact.of_commit(index, COMMITS["second"][:8])) == ["digits@2", "letters@1"]
        # letters began from the trunk of digits@1
        assert reached(impact.of_commit(index, COMMITS["first"])) == ["digits@1", "letters@1"]
        assert len(reached(impact.of_image(index, f"registry/train@sha256:{IMAGE}"))) == 3
        assert len(reached(impact.of_package(index, "torch==2.13.0"))) == 3
        strange = shop.home / "strange.csv"
        strange.write_text("nobody has it")
        with pytest.raises(InputError, match=r"strange\.csv: nothing in .* has its sha256"):
            impact.of_path(index, strange)
        for ask, what, said in (
            (impact.of_commit, "f" * 40, "no record"),
            (impact.of_commit, "HEAD~1", "not a commit"),
            (impact.of_image, "e" * 64, "nothing in"),
            (impact.of_package, "torch==1", "no lock"),
            (impact.of_package, "-", "not a package"),
            (impact.of_digest, "d" * 64, "nothing in"),
            (impact.of_digest, "no-such-file", "neither a file"),
            *(
                (impact.of_image, name, "no digest; expected 8 to 64 hex digits")
                for name in ("foo:latest", "sha256:xyz", "registry/train@sha256:" + "g" * 64, "", "a" * 7, "a" * 65)
            ),
            *(
                (impact.of_commit, name, "not a commit; expected at least 7 hex digits")
                for name in ("foo:latest", "sha256:xyz", "", "a" * 6, "a" * 65)
            ),
            (Index.match, "sha256:xyz", "8 to 64 hex digits"),
        ):
            with pytest.raises(InputError, match=said):
                ask(index, what)


def test_a_lock_without_its_text_is_said_to_be_missing(tmp_path: Path, shop: Workshop) -> None:
    store = open_store(str(tmp_path / "store"))
    two_tasks(store, shop)
    store.delete(f"locks/{LOCK_DIGEST}.txt")
    with open_index(store, full=True) as index, pytest.raises(InputError, match=f"not covered: 1 .*{LOCK_DIGEST}"):
        impact.of_package(index, "torch==2.13.0")


def test_what_rows_reached_is_told_by_split(tmp_path: Path, shop: Workshop) -> None:
    store = open_store(str(tmp_path / "store"))
    two_tasks(store, shop)
    one, two = shop.made["digits-1-dataset"].content, shop.made["digits-2-dataset"].content
    hits = [RowHit("digits", one, 3, "train"), RowHit("digits", one, 4, "train"), RowHit("digits", two, 3, "test")]
    with open_index(store) as index:
        found = impact.of_rows(index, "a row", hits)
        assert found.splits == {one: {"train": 2}, two: {"test": 1}}
        by_name = {shop.made[name].sha256: name for name in shop.made}
        splits = {
            by_name[r.sha256]: found.splits_of(r.content, [i.sha256 for i in r.inputs]) for r in found.reached.records
        }
        assert splits["digits-1-model"] == ("train",) and splits["digits-2-model"] == ("test",)
        with pytest.raises(InputError, match="no row"):
            impact.of_rows(index, "a row", [])


CONTRACT = """\
columns:
  text: {type: text}
  topic: {type: string, role: label, classes: [cat, dog]}
"""


def test_the_command_finds_a_row_and_a_person_by_the_row_index(
    tmp_path: Path, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr(impact_module, "ROOT", tmp_path)
    contract = tmp_path / "data" / "digits" / "expectations.yaml"
    contract.parent.mkdir(parents=True)
    contract.write_text(CONTRACT)
    row = tmp_path / "row.json"
    row.write_text(json.dumps({"text": "a purr", "topic": "cat"}))
    store = open_store(str(tmp_path / "store"))
    two_tasks(store, shop)
    (digest,) = digests_of(row, load_contract(contract))
    columns = {
        "row": pa.array([7], pa.int64()),
        "digest": pa.array([digest], pa.binary(32)),
        "split": ["train"],
        "subject": pa.array([hash_subject("ada", load_key(create=True))], pa.binary(16)),
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    build(tmp_path / "rows.parquet", store, "digits", shop.made["digits-2-dataset"].content)
    for asked in (["--row", str(row)], ["--row", str(row), "--task", "digits"], ["--subject", "ada"]):
        value = json.loads(run("impact", *asked, "--json", "--store", store.url))
        assert [(r["task"], r["version"]) for r in value["reached"]["releases"]] == [("digits", 2)]
        assert value["splits"] == {shop.made["digits-2-dataset"].content: {"train": 1}}
    assert "1 in train" in run("impact", "--subject", "ada", "--store", store.url)
    row.write_text(json.dumps({"text": "a bark", "topic": "dog"}))
    for asked in (["--row", str(row)], ["--subject", "bob"]):
        with pytest.raises(InputError, match="no row of it"):
            run("impact", *asked, "--store", store.url)


def app() -> typer.Typer:
    made = typer.Typer()
    for name, command in (("trace", trace_command), ("impact", impact_command), ("index", index_command)):
        made.command(name)(command)
    return made


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app(), arguments, catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_the_commands_print_a_tree_tables_and_json(tmp_path: Path, shop: Workshop) -> None:
    store = open_store(str(tmp_path / "store"))
    two_tasks(store, shop)
    at = ("--store", store.url)
    tree = run("trace", "digits@1", *at)
    for shown in ("digits@1", "nightly", "a.csv", COMMITS["first"][:12], "finetune", "promote champion"):
        assert shown in tree
    whole = json.loads(run("trace", "letters", "--json", *at))
    assert [step["task"] for step in whole["steps"]].count("digits") == 2 and whole["steps"][0]["keyids"]
    table = run("impact", sha256_bytes(b"common"), *at)
    assert "letters@1" in table and "digits@champion (2)" in table
    value: dict[str, Any] = json.loads(run("impact", "--commit", COMMITS["second"][:7], "--json", *at))
    assert [release["task"] for release in value["reached"]["releases"]] == ["digits", "letters"]
    assert {"task": "letters", "alias": "champion", "version": 1} in value["reached"]["aliases"]
    assert "0 problems" in run("index", "--rebuild", *at)
    (tmp_path / "store" / "records" / f"{'0' * 64}.json").write_text("[bold]{")
    left_out = json.loads(run("index", "--json", *at))["left_out"]
    assert [problem["key"] for problem in left_out] == [f"records/{'0' * 64}.json"]
    for wrong in (
        ["trace", "nobody"],
        ["impact", "deadbeef"],
        ["impact"],
        ["impact", "x", "--commit", "1234567"],
        ["impact", "--image", "foo:latest"],
        ["impact", "--image", "sha256:xyz"],
        ["impact", "--commit", "foo:latest"],
        ["impact", "--commit", "sha256:xyz"],
    ):
        with pytest.raises(InputError) as error:
            run(*wrong, *at)
        assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_markup_in_a_record_is_shown_as_it_is(tmp_path: Path, shop: Workshop) -> None:
    store = open_store(str(tmp_path / "store"))
    two_tasks(store, shop)
    hostile = shop.home / "[red]bold\x1b[31m"
    shutil.copytree(shop.home / "digits-1-model", hostile)
    shown = run("trace", str(hostile), "--store", store.url)
    assert "[red]bold" in shown and "\x1b" not in shown
