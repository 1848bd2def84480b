"""The index: the same answers from both kinds of store, however it came to be, and from damaged stores too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
sys.path.insert(0, str(Path(__file__).parent))

from bench.lineage_records import Shop, write_store
from servers import moto_endpoint, moto_url, real_url, store_url
from workshop import IMAGE, LOCK_DIGEST, Workshop

from graftline.digests import RECORD, sha256_bytes, sha256_file
from graftline.index import reading
from graftline.index.opening import index_path, open_index
from graftline.index.queries import Index
from graftline.releases.promotion import rollback
from graftline.store import Store
from graftline.store.opening import open_store

__all__ = ["moto_endpoint", "moto_url", "real_url", "store_url"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "outputs")


def answers(index: Index) -> dict[str, Any]:
    """Return everything that the index knows, by its own questions."""
    records = index.records()
    contents = sorted({record.content for record in records} | {i.sha256 for r in records for i in r.inputs})
    files = sorted({file.sha256 for record in records for file in record.files})
    return {
        "counts": index.counts(),
        "tasks": index.tasks(),
        "records": records,
        "releases": index.releases(),
        "aliases": index.aliases(),
        "history": index.history(),
        "problems": index.problems(),
        "holders": [index.holders(file) for file in files],
        "matches": [index.match(digest[:12]) for digest in (*contents, *files, *(r.sha256 for r in records))],
        "up": [index.ancestors([record.sha256]) for record in records],
        "down": [index.reached([record.sha256]) for record in records],
        "dependents": [index.dependents(content) for content in contents],
        "locks": [index.packages(record.lock) for record in records if record.lock],
    }


def fresh_answers(store: Store) -> dict[str, Any]:
    with open_index(store, rebuild=True) as index:
        return answers(index)


def test_what_publishing_stored_is_found_in_the_same_way_on_both_stores(store_url: str, shop: Workshop) -> None:
    store = open_store(store_url)
    shop.all_of(store, "digits", 1, shop.raw("one", a="1", b="2"))
    shop.all_of(store, "digits", 2, shop.raw("two", a="1", b="3"))
    rollback(store, "digits", 1)
    with open_index(store) as index:
        assert index.counts()["records"] == 8
        assert [r.version for r in index.releases("digits")] == [2, 1]
        assert index.aliases() == {("digits", "champion"): 1}
        assert index.resolve("digits").version == index.resolve("digits@champion").version == 1
        release = index.resolve("digits@2")
        steps = index.ancestors(release.records.values())
        assert [step.name for step in steps] == ["dataset", "trunk", "model", "evaluation"]
        assert [file.path for file in steps[0].inputs[0].files] == ["a.csv", "b.csv"]
        assert steps[2].parameters == {"finetune": {"seed": 0}} and steps[2].metrics == {}
        assert {(s.commit, s.dirty, s.lock, s.image) for s in steps} == {("1" * 40, "d" * 64, LOCK_DIGEST, IMAGE)}
        assert [(step.stored, step.folder) for step in steps] == [(True, None)] * 4
        assert index.packages(LOCK_DIGEST) == {"numpy": "2.1.0", "torch": "2.13.0", "safe-tensors": "0.5"}
        assert index.locks_with("Safe_Tensors", "0.5") == [LOCK_DIGEST] and not index.locks_with("torch", "1")
        assert [e.event for e in index.history("digits")][-1] == "rollback"
        assert [len(index.keyids(step.sha256)) for step in steps] == [1] * 4


def test_a_champion_that_was_compared_with_is_no_ancestor(store: Store, shop: Workshop) -> None:
    shop.all_of(store, "digits", 1, shop.raw("one", a="1"))
    shop.all_of(store, "digits", 2, shop.raw("two", a="2"))
    with open_index(store) as index:
        first, second = index.resolve("digits@1"), index.resolve("digits@2")
        evaluation = index.record(second.records["evaluation"])
        assert evaluation is not None
        assert [i.sha256 for i in evaluation.inputs if i.name == "champion"] == [first.content]
        below = index.descendants(first.records.values())
        assert set(below) == set(first.records.values())


def test_the_index_follows_new_releases_without_listing_the_store(
    store: Store, shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.all_of(store, "digits", 1, shop.raw("one", a="1"))
    open_index(store).close()
    shop.all_of(store, "digits", 2, shop.raw("two", a="2"))
    shop.all_of(store, "letters", 1, shop.raw("three", a="3"))
    monkeypatch.setattr(type(store), "list", None)
    monkeypatch.setattr("graftline.index.opening.SMALL", 0)
    with open_index(store) as index:
        followed = answers(index)
    monkeypatch.undo()
    monkeypatch.setenv("GRAFTLINE_CACHE", str(shop.home.parent / "another"))
    assert followed == fresh_answers(store)


def test_what_was_removed_or_rewritten_is_noticed(tmp_path: Path, shop: Workshop) -> None:
    store = open_store(str(tmp_path / "store"))
    shop.all_of(store, "digits", 1, shop.raw("one", a="1"))
    shop.all_of(store, "digits", 2, shop.raw("two", a="2"))
    with open_index(store) as index:
        gone = index.resolve("digits@2").records["dataset"]
    (tmp_path / "store" / "records" / f"{gone}.json").unlink()
    shutil.rmtree(tmp_path / "store" / "releases" / "digits" / "2")
    last = max((tmp_path / "store" / "ledger").iterdir())
    last.unlink()
    with open_index(store) as index:
        assert index.record(gone) is None
        assert [release.version for release in index.releases()] == [1]
        assert index.aliases() == {("digits", "champion"): 1}
        assert len(index.history()) == int(last.stem) - 1
        kept = answers(index)
    assert kept == fresh_answers(store)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    records=st.integers(8, 30),
    cuts=st.lists(st.floats(0, 1), max_size=3),
    gone=st.sets(st.integers(0, 200), max_size=5),
    full=st.booleans(),
)
def test_brought_up_to_date_and_made_anew_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, seed: int, records: int, cuts: list[float], gone: set[int], full: bool
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = open_store(str(folder))
    objects = list(Shop(records, tasks=3, seed=seed).objects())
    at = 0
    for cut in [*sorted(cuts), 1.0]:
        until = round(cut * len(objects))
        for key, data in objects[at:until]:
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(data)
        at = until
        open_index(store, full=full).close()
    for number in gone:
        (folder / objects[number % len(objects)][0]).unlink(missing_ok=True)
    with open_index(store, full=True) as index:
        kept = answers(index)
    assert kept == fresh_answers(store)


def test_damaged_and_hostile_objects_are_left_out_and_listed(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    write_store(folder, 12)
    whole = {path.stem: json.loads(path.read_bytes()) for path in (folder / "records").iterdir()}
    for change in _hostile(next(iter(whole.values()))):
        data = change if isinstance(change, bytes) else json.dumps(change).encode()
        (folder / "records" / f"{sha256_bytes(data)}.json").write_bytes(data)
    one = folder / "records" / f"{list(whole)[1]}.json"  # none of the hostile ones, which a file system may list first
    flipped = bytearray(one.read_bytes())
    flipped[10] ^= 1
    one.write_bytes(flipped)
    (folder / "records" / f"{'e' * 64}.json").symlink_to("/etc/passwd")
    (folder / "records" / f"{'f' * 64}.json").mkdir()
    manifest = next((folder / "releases").glob("*/1/manifest.json"))
    manifest.write_bytes(b"[" * 100_000)
    (folder / "ledger" / "00000002.json").write_bytes(b'{"sequence": 2, "event": {}}')
    (folder / "locks" / f"{'9' * 64}.txt").write_bytes(b"torch==1\n")
    with open_index(open_store(str(folder))) as index:
        problems = {problem.key: problem.reason for problem in index.problems()}
        hostile = sum(1 for _ in _hostile(next(iter(whole.values()))))
        assert len([key for key in problems if key.startswith("records/")]) == hostile + 3
        assert len(problems) == hostile + 6
        assert {record.sha256 for record in index.records()} <= set(whole)
        assert all(len(reason) < 200 for reason in problems.values())
        answers(index)


def _hostile(record: dict[str, Any]) -> Iterator[Any]:
    """Give records that are not what they should be, one way each."""

    def changed(*path: Any, value: Any) -> dict[str, Any]:
        copy: Any = json.loads(json.dumps(record))
        place = copy
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        return dict(copy)

    definition = ("predicate", "buildDefinition")
    external, dependency = (*definition, "externalParameters"), (*definition, "resolvedDependencies", 0)
    files = ("predicate", "runDetails", "byproducts", 2, "annotations", "files")
    yield b""
    yield b"null"
    yield b"\xff\xfe"
    yield b'{"a":' * 5000
    yield b'"' + b"\\ud800" + b'"'
    yield changed("_type", value="https://in-toto.io/Statement/v2")
    yield changed("subject", value=[])
    yield changed("subject", 0, "digest", "sha256", value="zz")
    yield changed("subject", 0, "name", value=["trunk"])
    yield changed(*external, "task", value=7)
    yield changed(*external, "parameters", value="none")
    yield changed(*dependency, "digest", value={"sha256": None})
    yield changed(*dependency, "name", value={})
    yield changed(*dependency, "annotations", value={"record": "../../etc"})
    yield changed(*dependency, "annotations", value={"record": "A" * 64})
    yield changed(*files, 0, "size", value=-1)
    yield changed(*files, 0, "size", value=2**70)
    yield changed(*files, 0, "path", value=None)
    yield changed(*files, 0, "sha256", value=" " + "a" * 63)


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "old"])
def test_a_damaged_or_old_database_is_made_again(tmp_path: Path, damage: str) -> None:
    import sqlite3

    write_store(tmp_path / "store", 30)
    store = open_store(str(tmp_path / "store"))
    with open_index(store) as index:
        before = answers(index)
    path = index_path(store)
    data = path.read_bytes()
    if damage == "old":
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE meta SET value = '0' WHERE name = 'version'")
    else:
        made = {"empty": b"", "cut": data[: len(data) // 2], "noise": data[:8192] + bytes(len(data) - 8192)}
        path.write_bytes(made[damage])
    with open_index(store) as index:
        assert answers(index) == before


def test_what_a_killed_rebuild_left_is_swept(tmp_path: Path) -> None:
    write_store(tmp_path / "store", 12)
    store = open_store(str(tmp_path / "store"))
    made = """
import os, signal, sys
from graftline.index.opening import open_index
from graftline.store.opening import open_store
open_index(open_store(sys.argv[1]), rebuild=True, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""
    killed = subprocess.run([sys.executable, "-c", made, store.url], check=False)
    folder = index_path(store).parent
    assert killed.returncode < 0 and [path for path in folder.iterdir() if path.name.startswith(".aside-")]
    with open_index(store) as index:
        assert index.counts()["records"] == 12
    assert {path.suffix for path in folder.iterdir()} == {".sqlite", ".lock"}
    assert [path.name[0] for path in folder.iterdir()].count(".") == 0


@pytest.mark.parametrize("helps", [False, True], ids=["all by workers", "with the writer's help"])
def test_very_many_records_are_read_by_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    write_store(tmp_path / "store", 60)
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "store" / "records" / f"{'0' * 64}.json").write_text("{}")
    alone = fresh_answers(store)
    monkeypatch.setattr(reading, "MANY", 0)
    monkeypatch.setattr(reading, "CHUNK", 7)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    parsed_here: list[str] = []
    plain = reading.parse_chunk
    monkeypatch.setattr(reading, "parse_chunk", lambda s, g, k: parsed_here.append(g) or plain(s, g, k))  # type: ignore[func-returns-value]
    if not helps:
        monkeypatch.setattr(reading, "_begin", lambda folder, job: False)
    assert fresh_answers(store) == alone
    assert bool(parsed_here) == helps, "workers take longer to start than the writer to parse"
    assert not list(index_path(store).parent.glob(".parts*"))


KILLED_WORKER = """
import os, signal, sys, time
from multiprocessing import parent_process
from pathlib import Path
from graftline.errors import GraftlineError
from graftline.index import reading

class Dying:
    shareable = True
    def read(self, keys):
        time.sleep(0.05)
        if parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return iter(())

if __name__ == "__main__":
    os.sched_getaffinity = lambda _: {0, 1, 2}
    keys = {"records": [f"records/{number:064x}.json" for number in range(60 * reading.CHUNK)]}
    try:
        with reading.parsed(Dying(), keys, Path(sys.argv[1])) as found:
            print(sum(1 for _ in found))
    except GraftlineError as error:
        print(error)
"""


def test_a_killed_worker_ends_the_rebuild_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(KILLED_WORKER)
    command = [sys.executable, str(tmp_path / "dying.py"), str(tmp_path / "parts")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("a process that read the store for the index was killed")
    assert not (tmp_path / "parts").exists()


def test_processes_that_open_it_at_once_all_get_it_whole(tmp_path: Path) -> None:
    write_store(tmp_path / "store", 400)
    code = (
        "import sys; from graftline.index.opening import open_index; from graftline.store.opening import open_store\n"
        "for turn in range(4):\n"
        "    index = open_index(open_store(sys.argv[1]), rebuild=turn % 2 == int(sys.argv[2]) % 2, full=True)\n"
        "    counts = index.counts(); print(counts['records'], counts['releases'])"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "store", str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    lines = [line for racer in racers for line in racer.communicate()[0].splitlines()]
    assert len(lines) == 12 and len(set(lines)) == 1 and lines[0].startswith("40")
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    left = {path.suffix for path in index_path(open_store(str(tmp_path / "store"))).parent.iterdir()}
    assert left == {".sqlite", ".lock"}


def test_outputs_that_were_never_published_come_and_go_with_their_folders(tmp_path: Path, shop: Workshop) -> None:
    store = open_store(str(tmp_path / "store"))
    shop.all_of(store, "digits", 1, shop.raw("one", a="1"))
    shop.model("another", "digits", "digits-1-dataset", "digits-1-trunk")
    with open_index(store, folders=[shop.home]) as index:
        made = index.record(shop.made["another"].sha256)
        assert made is not None and not made.stored and made.folder == str(shop.home / "another")
        both = index.record(shop.made["digits-1-trunk"].sha256)
        assert both is not None and both.stored and both.folder == str(shop.home / "digits-1-trunk")
        assert made.sha256 in index.descendants([both.sha256])
        assert [h.record for h in index.holders(sha256_file(shop.home / "another" / "model.bin"))] == [made.sha256]
    shutil.rmtree(shop.home / "another")
    (shop.home / "digits-1-trunk" / RECORD).write_bytes(b"{}")
    with open_index(store, folders=[shop.home]) as index:
        assert index.record(made.sha256) is None
        still = index.record(both.sha256)
        assert still is not None and still.stored and still.folder is None
        assert [problem.key for problem in index.problems()] == [str(shop.home / "digits-1-trunk" / RECORD)]
    with open_index(store) as index:
        assert index.counts()["problems"] == 0
