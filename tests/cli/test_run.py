"""`graftline run` on a real repository with DVC, git, the store and publish as they are.

The other four components are toys that take no time: what is tested is the run, not the learning.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import forked
import pytest

from graftline.durable import exclusive
from graftline.environment import ROOT
from graftline.releases.catalogue import Release, champion, list_releases, resolve
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store
from graftline.tasks.parameters import COMPONENTS

PARAMS = """\
    from graftline.tasks.parameters import Params


    class {title}Params(Params):
        learning_rate: float = 0.1
        seconds: float = 0.0
        fail: int = 0
        floor: float = 0.0
        accuracy: float = 0.9
        until: str = ""
        labels_per_class: int | None = None
"""
TOY = """\
    import json
    import time
    from pathlib import Path

    from graftline.tasks.{name} import {title}Params
    from graftline.errors import InputError


    SCHEMA = {{"feature": {{"type": "text", "name": "a"}}, "label": None, "classes": []}}


    def run(context):
        params = context.section("{name}", {title}Params)
        champion, difference = compare(context, params.accuracy)
        print("working", flush=True)
        time.sleep(params.seconds)
        while params.until and not Path(params.until).exists():
            time.sleep(0.02)
        if params.fail == 2:
            raise InputError("row 3", "a toy failure")
        if params.fail:
            raise RuntimeError("a toy defect")
        files = {{
            "model.safetensors": "toy", "schema.json": json.dumps(SCHEMA), "profile.json": "{{}}",
            "head.json": json.dumps({{"rate": params.learning_rate}}),
            "metrics.json": json.dumps({{"accuracy": params.accuracy, "accuracy_low": 0.8, "accuracy_high": 0.95}}),
            "lift.csv": "labels,trunk,scratch\\n5,0.6,0.5\\n", "confusion.csv": "actual,predicted\\n1,1\\n",
            "decision.json": json.dumps({{
                "passed": True, "reason": "toy", "champion": champion,
                "rules": [rule("accuracy", params.accuracy, params.floor), rule("difference", difference, 0.0)],
            }}),
        }}
        for name, text in files.items():
            (context.out / name).write_text(text)
        if context.component.name == "validate":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({{"row": [0, 1]}}), context.out / "train.parquet")


    def compare(context, accuracy):
        if context.component.name != "evaluate":
            return None, 0.0
        from graftline.releases.catalogue import champion
        from graftline.releases.fetching import fetch

        release = champion(context.store(), context.task)
        if release is None:
            return None, 0.0
        theirs = json.loads((fetch(context.store(), release) / "metrics.json").read_text())["accuracy"]
        return {{"version": release.version, "digest": release.digest}}, accuracy - theirs


    def rule(name, value, limit):
        return {{"name": name, "passed": value >= limit, "value": value, "limit": limit, "comparison": ">="}}
"""
REPORT = """\
    def write_report(outputs, store, out):
        out.write_text("a page")
        return out
"""
TASK = """\
    task: toy
    validate: {}
    pretrain: {}

    finetune:
      learning_rate: 0.1  # a comment that stays

    evaluate: {}
    publish: {}
"""


def git(repo: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(repo), *identity, *arguments], check=True, capture_output=True)


def environment(repo: Path) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith("GRAFTLINE_") or n == "GRAFTLINE_KEYS"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PYTHONPATH": str(repo / "src"), "PATH": path, "COLUMNS": "100", forked.STARTS: "1"}


def graftline(repo: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from graftline.cli.app import main; main()", *arguments]
    return forked.run(command, cwd=cwd or repo, env=environment(repo), text=True, timeout=120)


def dvc(repo: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = forked.run(command, cwd=repo, env=environment(repo), text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(repo: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start `graftline run toy` in its own session and wait until a component works; leave nothing behind."""
    command = [sys.executable, "-c", "from graftline.cli.app import main; main()", "run", "toy", *arguments]
    process = forked.Popen(
        command,
        cwd=repo,
        env=environment(repo),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout
        while "working" not in (line := process.stdout.readline()):
            assert line, "ended before a component worked"
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return what the table says happened to each stage."""
    rows = [line.strip("│ ").split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    return {row[0].strip(): row[-1].strip() for row in rows}


def releases(repo: Path) -> list[int]:
    return sorted(int(path.name) for path in (repo / "store/releases/toy").iterdir())


def champion_of(store: Path) -> Release:
    return resolve(open_store(str(store)), "toy")


def publish_toy(store: str, accuracy: float) -> None:
    """Publish a model from elsewhere, compared with the champion as it is."""
    opened = open_store(store)
    best = champion(opened, "toy")
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.json"
        metrics.write_text(json.dumps({"accuracy": accuracy}))
        compared = {"version": best.version, "digest": best.digest} if best else None
        draft = ReleaseDraft("toy", {"metrics.json": metrics}, {}, {"accuracy": accuracy}, compared_with=compared)
        assert publish(opened, draft, Publication("from elsewhere")).promoted


ALL_SKIPPED = dict.fromkeys(COMPONENTS, "skipped")
EVALUATED = {"evaluate": "ran", "publish": "ran"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one task after its first run."""
    repo = tmp_path_factory.mktemp("template") / "repo"
    repo.mkdir()
    for folder in ("src", "components", "pipelines"):
        shutil.copytree(ROOT / folder, repo / folder)
    (repo / ".dvc").mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore", "requirements.lock"):
        shutil.copy(ROOT / name, repo / name)
    for folder in ("components", "pipelines"):
        (repo / "src/graftline" / folder).symlink_to(f"../../{folder}")
    (repo / "src/graftline/report/__init__.py").write_text(dedent(REPORT))
    for name in COMPONENTS[:-1]:
        words = {"name": name, "title": name.capitalize()}
        (repo / f"components/{name}/{name}.py").write_text(dedent(TOY).format(**words))
        (repo / f"src/graftline/tasks/{name}.py").write_text(dedent(PARAMS).format(**words))
    task = repo / "data/toy"
    (task / "raw").mkdir(parents=True)
    (task / "raw/rows.csv").write_text("a,b\n1,2\n")
    (task / "expectations.yaml").write_text("columns: {}\n")
    (task / "params.yaml").write_text(dedent(TASK))
    shutil.copy(ROOT / "data/mnist/dvc.yaml", task / "dvc.yaml")
    (repo / "data/tasks.yaml").write_text("tasks:\n  - toy\n")
    git(repo, "init", "-q")
    dvc(repo, "add", "-q", "data/toy/raw")
    dvc(repo, "push", "-q", "data/toy/raw.dvc")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "a task")
    shutil.rmtree(task / "raw")  # a clone does not have it: the run fetches it from the remote in git
    shutil.rmtree(repo / ".dvc/cache")
    # As a person starts it: each component by a shell, a new process. What the tests start are forks.
    command = [sys.executable, "-c", "from graftline.cli.app import main; main()", "run", "toy"]
    done = subprocess.run(command, cwd=repo, env=environment(repo), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done) == dict.fromkeys(COMPONENTS, "ran")
    assert "toy@1" in done.stdout
    assert "outputs/toy/report.html" in done.stdout
    return repo


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def repo(template: Path, place: Path) -> Iterator[Path]:
    """A copy for each test, in the same place: its processes need not load Graftline again."""
    subprocess.run(["cp", "-a", template, place / "repo"], check=True)
    yield place / "repo"
    shutil.rmtree(place / "repo")


def test_a_run_fetches_raw_data_and_makes_every_output_a_release_and_a_report(template: Path) -> None:
    assert (template / "data/toy/raw/rows.csv").is_file()
    for output in ("dataset", "trunk", "model", "evaluation", "release"):
        assert (template / "outputs/toy" / output / "record.json").is_file()
    assert releases(template) == [1]
    assert (template / "outputs/toy/report.html").is_file()


def test_an_unchanged_task_is_skipped_whole_from_any_folder(repo: Path, tmp_path: Path) -> None:
    before = (repo / "outputs/toy/release/record.json").read_bytes()
    done = graftline(repo, "run", "toy", cwd=tmp_path)
    assert done.returncode == 0
    assert states(done) == ALL_SKIPPED
    assert releases(repo) == [1]
    assert (repo / "outputs/toy/release/record.json").read_bytes() == before


def test_a_changed_parameter_reruns_what_depends_on_it(repo: Path) -> None:
    done = graftline(repo, "run", "toy", "--set", "finetune.learning_rate=2e-3")
    changed = dict.fromkeys(("finetune", "evaluate", "publish"), "ran")
    assert states(done) == ALL_SKIPPED | changed
    assert "learning_rate: 0.002 # a comment that stays" in (repo / "data/toy/params.yaml").read_text().replace(
        "  #", " #"
    )
    assert releases(repo) == [1, 2]
    # Back again: finetune's output is at hand, but what depends on the store is worked out anew.
    done = graftline(repo, "run", "toy", "--set", "finetune.learning_rate=0.1")
    assert states(done) == ALL_SKIPPED | changed | {"finetune": "restored"}
    assert "toy@1 (the same)" in done.stdout, "K36: it is what was released first, and the champion again"
    assert releases(repo) == [1, 2]
    assert champion_of(repo / "store").version == 1


def test_a_change_of_documentation_or_of_other_code_reruns_nothing(repo: Path) -> None:
    (repo / "components/pretrain/README.md").write_text("new words")
    for name in ("cli/run.py", "ledger/log.py", "records/folder.py", "store/s3.py"):
        code = repo / "src/graftline" / name
        code.write_text(code.read_text() + "# more\n")
    assert states(graftline(repo, "run", "toy")) == ALL_SKIPPED
    (repo / "components/evaluate/evaluate.py").write_text(
        (repo / "components/evaluate/evaluate.py").read_text() + "# more\n"
    )
    assert states(graftline(repo, "run", "toy"))["evaluate"] == "ran"


def test_an_output_that_is_made_again_keeps_its_record_and_what_stands_on_it_does_not_run(repo: Path) -> None:
    """Another commit is in no output's content."""
    records = {name: (repo / "outputs/toy" / name / "record.json") for name in ("dataset", "trunk", "release")}
    before = {name: path.read_bytes() for name, path in records.items()}
    code = repo / "components/validate/validate.py"
    code.write_text(code.read_text() + "# more\n")
    (repo / "README.md").write_text("new words")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "a comment and a page")
    done = graftline(repo, "run", "toy")
    assert states(done) == ALL_SKIPPED | {"validate": "ran"}
    assert {name: path.read_bytes() for name, path in records.items()} == before
    first = json.loads(before["dataset"])["predicate"]["buildDefinition"]["resolvedDependencies"]
    commit = next(one["digest"]["gitCommit"] for one in first if one["name"] == "code")
    assert f"record: the same dataset as commit {commit[:12]} made; its record stays" in done.stderr


def test_a_log_in_the_checkout_and_another_task_are_no_change_of_the_code(repo: Path) -> None:
    """K29: `make run | tee run.log`, from the folder where one happens to be."""
    for name in ("run.log", "src/run.log", "data/toy/notes.txt", "data/other/params.yaml"):
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).write_text("as it grows")
    for records in (repo / "outputs/toy").glob(".*.records"):
        shutil.rmtree(records)  # else the first run's records would stay
    assert graftline(repo, "run", "toy", "--force").returncode == 0
    for path in (repo / "outputs/toy").glob("*/record.json"):
        assert "dirty" not in path.read_text(), path


def test_force_runs_everything_and_the_records_stay(repo: Path) -> None:
    names = ("dataset", "trunk", "model")  # the evaluation is against another champion now
    before = [(repo / "outputs/toy" / name / "record.json").read_bytes() for name in names]
    done = graftline(repo, "run", "toy", "--force")
    assert states(done) == dict.fromkeys(COMPONENTS, "ran")
    assert [(repo / "outputs/toy" / name / "record.json").read_bytes() for name in names] == before
    assert "toy@1 (the same)" in done.stdout and releases(repo) == [1]


def test_a_refusal_ends_with_3_and_a_report_but_no_release(repo: Path) -> None:
    page = repo / "outputs/toy/report.html"
    page.write_text("an old page")
    done = graftline(repo, "run", "toy", "--set", "evaluate.floor=0.95")
    assert done.returncode == 3
    assert states(done)["publish"] == "refused"
    *_, line = done.stderr.splitlines()  # the first says that this toy has no index of rows
    assert "nothing was released; accuracy is 0.9, must be >= 0.95" in line
    assert releases(repo) == [1]
    assert page.read_text() == "a page"
    assert not (repo / "outputs/toy/release").exists(), "the old receipt is not this model's"
    assert graftline(repo, "run", "toy").returncode == 3, "asking again does not help"


def test_bad_input_in_a_stage_is_its_one_line_and_2(repo: Path) -> None:
    done = graftline(repo, "run", "toy", "--set", "finetune.fail=2")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["finetune: row 3: a toy failure"]
    assert releases(repo) == [1]


def test_what_the_data_cannot_give_is_refused_before_pretraining(repo: Path) -> None:
    changes = ("--set", "pretrain.learning_rate=0.2", "--set", "finetune.labels_per_class=3")
    done = graftline(repo, "run", "toy", *changes)
    assert done.returncode == 2 and "finetune.labels_per_class: 3 rows in all; expected at most 2" in done.stderr
    assert "working" not in done.stdout, "no component ran"


def test_a_defect_in_a_stage_is_1(repo: Path) -> None:
    done = graftline(repo, "run", "toy", "--set", "pretrain.fail=1")
    assert done.returncode == 1
    assert "a toy defect" in done.stderr
    assert "dvc" not in done.stderr.lower()


def test_a_release_that_the_store_has_lost_is_published_again(repo: Path) -> None:
    shutil.rmtree(repo / "store")
    done = graftline(repo, "run", "toy")
    assert done.returncode == 0
    assert states(done) == ALL_SKIPPED | EVALUATED
    assert releases(repo) == [1]
    assert champion_of(repo / "store").version == 1
    assert states(graftline(repo, "run", "toy")) == ALL_SKIPPED


def test_another_store_gets_its_own_release(repo: Path, tmp_path: Path) -> None:
    done = graftline(repo, "run", "toy", "--store", "elsewhere", cwd=tmp_path)
    assert states(done) == ALL_SKIPPED | EVALUATED
    assert champion_of(tmp_path / "elsewhere").version == 1


def test_another_stores_better_champion_is_compared_with_and_stays(repo: Path, tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    publish_toy(elsewhere, accuracy=0.95)
    done = graftline(repo, "run", "toy", "--store", elsewhere)
    assert done.returncode == 3
    assert states(done) == ALL_SKIPPED | {"evaluate": "ran", "publish": "refused"}
    assert "difference is -0.05, must be >= 0" in done.stderr
    assert [release.version for release in list_releases(open_store(elsewhere))] == [1]


@pytest.mark.parametrize(("accuracy", "code", "champion"), [(0.85, 0, 1), (0.95, 3, 2)])
def test_a_champion_published_meanwhile_is_compared_with(
    repo: Path, tmp_path: Path, accuracy: float, code: int, champion: int
) -> None:
    go = tmp_path / "go"
    with running(repo, "--set", f"evaluate.until={go}") as process:  # it has read version 1, the champion
        publish_toy(str(repo / "store"), accuracy)
        go.touch()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == code, out
    said = " ".join(out.split())
    assert "toy@1 was not promoted: it was compared with toy@1, and the champion is toy@2" in said
    assert champion_of(repo / "store").version == champion
    if code == 0:
        assert states(graftline(repo, "run", "toy")) == ALL_SKIPPED


def change_raw(repo: Path, text: str) -> str:
    """Make `text` the task's data, as a colleague does; return the pointer."""
    (repo / "data/toy/raw/rows.csv").write_text(text)
    dvc(repo, "add", "-q", "data/toy/raw")
    dvc(repo, "push", "-q", "data/toy/raw.dvc")
    return (repo / "data/toy/raw.dvc").read_text()


def test_a_newer_pointer_brings_its_raw_data(repo: Path) -> None:
    """From DVC's cache, and then another one from the remote."""
    pointer, rows = repo / "data/toy/raw.dvc", repo / "data/toy/raw/rows.csv"
    old, before = pointer.read_text(), rows.read_text()
    newest = change_raw(repo, "a,b\n5,6\n")
    newer = change_raw(repo, "a,b\n3,4\n")
    pointer.write_text(old)
    dvc(repo, "checkout", "-q", "data/toy/raw.dvc")
    assert rows.read_text() == before
    for pulled, text in ((newer, "a,b\n3,4\n"), (newest, "a,b\n5,6\n")):
        pointer.write_text(pulled)  # what `git pull` does
        if pulled == newest:
            shutil.rmtree(repo / ".dvc/cache/files/md5")
        done = graftline(repo, "run", "toy")
        assert done.returncode == 0, done.stderr
        assert "data/toy/raw was another version than raw.dvc names; that one was checked out" in done.stdout
        assert rows.read_text() == text
        assert pointer.read_text() == pulled
        assert states(done)["validate"] == "ran"
    assert states(graftline(repo, "run", "toy")) == ALL_SKIPPED


def test_a_newer_pointer_to_data_that_is_nowhere_leaves_raw_as_it_is(repo: Path) -> None:
    pointer, rows = repo / "data/toy/raw.dvc", repo / "data/toy/raw/rows.csv"
    before = rows.read_text()
    newer = re.sub(r"md5: \w{32}", f"md5: {'0' * 32}", pointer.read_text())
    pointer.write_text(newer)
    done = graftline(repo, "run", "toy")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "the default DVC remote does not hold the raw data" in line
    assert (rows.read_text(), pointer.read_text()) == (before, newer)


def test_raw_data_that_was_edited_is_neither_used_nor_lost(repo: Path) -> None:
    """Changed, added to, removed from; each dropped again, as the line says, and at the end the run goes through."""
    pointer, raw = repo / "data/toy/raw.dvc", repo / "data/toy/raw"
    (raw / "more.csv").write_text("more\n")
    change_raw(repo, "a,b\n3,4\n")
    before, files = pointer.read_text(), {path.name: path.read_text() for path in raw.iterdir()}
    for edit in (
        lambda: (raw / "rows.csv").write_text("a,b\n9,9\n"),
        lambda: (raw / "third.csv").write_text("third\n"),
        (raw / "rows.csv").unlink,
    ):
        edit()
        edited = {path.name: path.read_text() for path in raw.iterdir()}
        assert edited != files
        done = graftline(repo, "run", "toy")
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "graftline: data/toy/raw: differs from raw.dvc; `dvc add data/toy/raw` to make it the task's data, or "
            "`dvc checkout --force data/toy/raw.dvc` to drop the change"
        ]
        assert {path.name: path.read_text() for path in raw.iterdir()} == edited
        assert pointer.read_text() == before
        dvc(repo, "checkout", "-q", "--force", "data/toy/raw.dvc")
        assert {path.name: path.read_text() for path in raw.iterdir()} == files
    assert graftline(repo, "run", "toy").returncode == 0


def test_the_local_engine_never_writes_a_pointer(repo: Path) -> None:
    """Even if raw data changes between the comparison and the run."""
    pointer = repo / "data/toy/raw.dvc"
    before = pointer.read_bytes()
    (repo / "data/toy/raw/rows.csv").write_text("a,b\n9,9\n")
    script = (
        "from graftline.engines import local\n"
        f"local.reproduce('toy', store_url={str(repo / 'store')!r}, on_event=lambda stage, event: None, force=True)"
    )
    done = forked.run([sys.executable, "-c", script], cwd=repo, env=environment(repo))
    assert done.returncode == 0, done.stderr
    assert pointer.read_bytes() == before


def test_two_runs_of_a_task_at_once_are_refused(repo: Path) -> None:
    with running(repo, "--set", "pretrain.seconds=30"):
        done = graftline(repo, "run", "toy")
        assert done.returncode == 75, "nothing is wrong with the input: try again"
        (line,) = done.stderr.splitlines()
        assert "another run" in line


def test_a_schedule_without_a_cluster_runs_a_task_and_waits_for_a_run_by_hand(repo: Path) -> None:
    """`graftline reconcile --backend local` through to the release; a run by hand at the same time costs no slot."""
    (repo / "pipelines/schedules.yaml").write_text("schedules:\n  toy:\n    task: toy\n    on_change: [parameters]\n")
    (repo / "data/toy/params.yaml").write_text(dedent(TASK).replace("learning_rate: 0.1", "learning_rate: 0.3"))
    git(repo, "commit", "-qam", "a schedule")
    reconcile = ("reconcile", "--backend", "local", "--store", str(repo / "store"))
    with exclusive(repo / "outputs/toy", what="a person"):
        held = graftline(repo, *reconcile)
    assert held.returncode == 75
    assert "another run of `graftline run toy` is writing here" in held.stderr
    assert releases(repo) == [1]
    assert not list((repo / "store/runs").glob("*.json"))
    done = graftline(repo, *reconcile)
    assert done.returncode == 0, done.stdout + done.stderr
    assert releases(repo) == [1, 2]
    (record,) = (repo / "store/runs").glob("*.json")
    assert json.loads(record.read_text())["state"] == "SUCCEEDED"
    assert graftline(repo, *reconcile).stdout == "nothing to do\n"


def test_a_dvc_process_at_work_is_one_clear_line(repo: Path) -> None:
    (repo / "data/toy/params.yaml").write_text(dedent(TASK).replace("pretrain: {}", "pretrain: {seconds: 30}"))
    process = forked.Popen(
        [sys.executable, "-m", "dvc", "repro", "pretrain@toy"],
        cwd=repo,
        env=environment(repo),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout
        assert any("working" in line for line in process.stdout)
        done = graftline(repo, "run", "toy")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert done.returncode == 75
    (line,) = done.stderr.splitlines()
    assert "another DVC process is at work" in line


def component_processes(repo: Path) -> list[str]:
    """Return the processes that are alive in the repository."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == repo:
                found.append(process.name)
        except OSError:
            continue
    return found


def test_a_run_that_is_stopped_can_be_run_again(repo: Path) -> None:
    """And stopped again, in another way, and run again, to its end."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -9)):
        with running(repo, "--set", "pretrain.seconds=30") as process:
            # Ctrl-C and a dying machine reach the whole group; `kill` reaches the command, which ends the rest.
            (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
            out, _ = process.communicate(timeout=30)
            assert process.returncode == code
            assert "Traceback" not in out
        deadline = time.monotonic() + 10
        while component_processes(repo) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not component_processes(repo)
    done = graftline(repo, "run", "toy", "--set", "pretrain.seconds=0.01")
    assert done.returncode == 0, done.stderr
    assert "toy@2" in done.stdout


def test_a_task_that_is_not_listed_is_refused(repo: Path) -> None:
    (repo / "data/tasks.yaml").write_text("tasks: []\n")
    done = graftline(repo, "run", "toy")
    assert done.returncode == 2
    assert "add `- toy` under `tasks`" in done.stderr


def test_a_missing_section_is_named(repo: Path) -> None:
    (repo / "data/toy/params.yaml").write_text(dedent(TASK).replace("evaluate: {}\n", ""))
    done = graftline(repo, "run", "toy")
    assert done.returncode == 2
    assert "the section 'evaluate' is missing; add `evaluate: {}` for its defaults" in done.stderr


def test_raw_data_that_is_nowhere_is_one_clear_line(repo: Path) -> None:
    for folder in ("data/toy/raw", ".dvc/cache", "data/store"):
        shutil.rmtree(repo / folder)
    done = graftline(repo, "run", "toy")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "the default DVC remote does not hold the raw data" in line


def test_dvcs_own_commands_work_beside_it(repo: Path) -> None:
    assert "up to date" in dvc(repo, "status")
    metrics = json.loads(dvc(repo, "metrics", "show", "--json"))[""]["data"]
    assert metrics["outputs/toy/evaluation/metrics.json"]["data"]["accuracy"] == 0.9
    plots = json.loads(dvc(repo, "plots", "show", "--json"))["data"]
    assert plots["lift of pretraining"]
    assert plots["confusion"]
    dvc(repo, "exp", "run", "-S", "data/toy/params.yaml:finetune.learning_rate=0.3", "evaluate@toy")
    assert json.loads((repo / "outputs/toy/model/head.json").read_text()) == {"rate": 0.3}
    shown = dvc(repo, "exp", "show", "--csv")
    assert "0.3" in shown
    assert releases(repo) == [1], "an experiment that stops at evaluate releases nothing"


def test_a_lift_names_what_its_counts_are() -> None:
    from graftline.cli.run import headlines

    metrics = {"lift_50": 0.158, "lift_50_low": 0.133, "lift_50_high": 0.183, "lift_all": 0.01}
    metrics |= {"lift_all_low": 0.0, "lift_all_high": 0.02}
    assert headlines(metrics, "sentences") == [
        "accuracy  not defined on these test rows",
        "lift      +15.8 points  95% +13.3 to +18.3, at 50 sentences",
        "lift      +1.0 points  95% +0.0 to +2.0, at all sentences",
    ]
    assert headlines(metrics, "labels a class")[2].endswith("at all labels")


def test_a_primary_score_without_a_value_is_said_to_have_none() -> None:
    from graftline.cli.run import headlines
    from graftline.problems.regression_parameters import MAE, R2
    from graftline.score import Estimate, as_metrics

    metrics = as_metrics({R2: Estimate(math.nan, math.nan, math.nan), MAE: Estimate(0.5, 0.25, 0.75)})
    assert headlines(metrics, "images") == [
        "r2        not defined on these test rows",
        "mae       0.5000  95% 0.2500 to 0.7500",
    ]


def test_the_primary_score_stands_first_and_a_lift_is_in_its_units() -> None:
    from graftline.cli.run import headlines
    from graftline.problems.text_generation.parameters import TextGenerationParams
    from graftline.score import Estimate, as_metrics

    perplexity, accuracy, _ = TextGenerationParams.scores
    metrics = as_metrics({perplexity: Estimate(41.5, 40.25, 43.0), accuracy: Estimate(0.25, 0.24, 0.26)})
    metrics |= {"lift_all": 12.0, "lift_all_low": 10.0, "lift_all_high": 14.0}
    assert headlines(metrics, "documents") == [
        "perplexity  41.5000  95% 40.2500 to 43.0000",
        "lift      +12.0  95% +10.0 to +14.0, at all documents",
        "accuracy  0.2500  95% 0.2400 to 0.2600",
    ]
