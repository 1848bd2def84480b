"""What a run reads arrives from git and DVC's remote, whole and with the digest that was asked for, or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import forked
import pytest

from graftline.digests import digest_path
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.runs import Start, open_runs
from graftline.store.opening import open_store
from graftline.task_data import WORK_TREE, data_digest, data_revision, origin, with_token

KEY = "f" * 64


def git(repo: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=repo, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def dvc(repo: Path, *arguments: str) -> None:
    done = forked.run([sys.executable, "-m", "dvc", *arguments], cwd=repo)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two commits of one task, its data in a DVC remote that lies in git."""
    repo = tmp_path_factory.mktemp("repository")
    (repo / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", repo / ".dvc/config")
    (repo / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    task = repo / "data/toy"
    (task / "raw/part").mkdir(parents=True)
    git(repo, "init", "-q")
    for text in ("a,b\n1,2\n", "a,b\n3,4\n"):
        (task / "raw/rows.csv").write_text(text)
        (task / "raw/part/more.csv").write_text("a,b\n")
        (task / "expectations.yaml").write_text(f"# {text.splitlines()[1]}\ncolumns: {{}}\n")
        dvc(repo, "add", "-q", "data/toy/raw")
        dvc(repo, "push", "-q", "data/toy/raw.dvc")
        git(repo, "add", "-A")
        git(repo, "commit", "-qm", text.splitlines()[1])
    return repo


@pytest.fixture
def repo(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repo"))


def fetch(
    out: Path, repository: Path | str, revision: str, digest: str, *more: str, token: str = "", origin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the step as its image does: no git command, no network needed, home empty."""
    return forked.run(
        [
            sys.executable, "-m", "graftline.pipelines.fetch", "--repository", str(repository),
            "--revision", revision, "--task", "toy", "--digest", digest, "--out-raw", str(out / "raw"),
            "--out-expectations", str(out / "expectations"), "--executor-output", str(out / "output.json"), *more,
        ],
        env={
            "PATH": "/nonexistent", "HOME": str(out), "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
            "GRAFTLINE_GIT_TOKEN": token, "GRAFTLINE_GIT_ORIGIN": origin,
        },
        text=True,
    )  # fmt: skip


def digest_here(repo: Path) -> str:
    return data_digest(repo / "data/toy/raw", repo / "data/toy/expectations.yaml")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_an_earlier_revision_arrives_whatever_the_work_tree_holds(repo: Path, out: Path) -> None:
    before = git(repo, "rev-parse", "HEAD~1")
    git(repo, "checkout", "-q", before)
    dvc(repo, "checkout", "-q")
    digest = digest_here(repo)
    git(repo, "checkout", "-q", "-")
    (repo / "data/toy/raw/rows.csv").write_text("an edit")
    shutil.rmtree(repo / ".dvc/cache")
    done = fetch(out, repo, before, digest)
    assert done.returncode == 0, done.stderr
    assert (out / "raw/rows.csv").read_text() == "a,b\n1,2\n"
    assert (out / "raw/part/more.csv").read_text() == "a,b\n"
    assert (out / "expectations").read_text() == "# 1,2\ncolumns: {}\n"
    artifacts = json.loads((out / "output.json").read_text())["artifacts"]
    for name in ("raw", "expectations"):
        (artifact,) = artifacts[name]["artifacts"]
        assert artifact["uri"] == str(out / name)
        assert artifact["metadata"]["sha256"] == digest_path(out / name)


def test_a_repository_at_an_address_is_cloned(repo: Path, out: Path) -> None:
    digest, revision = digest_here(repo), git(repo, "rev-parse", "HEAD")
    done = fetch(out, repo.as_uri(), revision, digest)
    assert done.returncode == 0, done.stderr
    assert digest_path(out / "raw") == digest_path(repo / "data/toy/raw")


def test_a_folder_as_it_is_needs_no_commit(repo: Path, out: Path) -> None:
    (repo / "data/toy/raw/rows.csv").write_text("a,b\n9,9\n")
    shutil.rmtree(repo / ".git")
    done = fetch(out, repo, WORK_TREE, digest_here(repo))
    assert done.returncode == 0, done.stderr
    assert (out / "raw/rows.csv").read_text() == "a,b\n9,9\n"


@pytest.mark.parametrize("place", ["data/toy/raw/rows.csv", "data/toy/expectations.yaml"])
def test_other_content_than_was_asked_for_is_refused_and_leaves_nothing(repo: Path, out: Path, place: str) -> None:
    digest = digest_here(repo)
    (repo / place).write_text("other: content\n")
    done = fetch(out, repo, WORK_TREE, digest)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("fetch: data/toy at work-tree: raw data and contract have sha256")
    assert digest in line
    assert not list(out.iterdir())


def test_a_remote_that_lost_the_data_is_one_line_and_may_be_tried_again(repo: Path, out: Path) -> None:
    digest = digest_here(repo)
    git(repo, "rm", "-rq", "data/store")
    git(repo, "commit", "-qm", "lost")
    done = fetch(out, repo, git(repo, "rev-parse", "HEAD"), digest)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fetch: {repo} at ")
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("repository", "revision", "code", "message"),
    [
        (None, "0" * 40, 1, "0000000"),
        ("/no/such/folder", "HEAD", 1, "/no/such/folder"),
        (None, "empty", 2, "no data/toy"),
    ],
)
def test_what_is_not_there_is_one_line(
    repo: Path, out: Path, repository: str | None, revision: str, code: int, message: str
) -> None:
    git(repo, "checkout", "-q", "--orphan", "empty")
    git(repo, "rm", "-rqf", "--cached", ".")
    git(repo, "commit", "-qm", "empty", "--allow-empty")
    done = fetch(out, repository or repo, revision, "0" * 64)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert message in line


@contextmanager
def private_server() -> Iterator[tuple[str, list[str | None]]]:
    """Serve git over http on this machine to nobody; give the origin, and the credentials of each request."""
    heard: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers["Authorization"])
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_token_of_a_private_repository_is_sent_and_never_shown(out: Path) -> None:
    """Over plain http, since the server is on this machine; `test_a_token_is_for_one_place_over_https` has the rule."""
    with private_server() as (origin, heard):
        address = f"{origin}/team/private.git"
        done = fetch(out, address, "HEAD", "0" * 64, token="a/secret", origin=origin)
    assert f"Basic {b64encode(b'x-access-token:a/secret').decode()}" in heard
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fetch: {address} at HEAD")
    assert not re.search("a/secret|a%2Fsecret|a%2fsecret", line)


def test_a_run_that_names_a_repository_elsewhere_is_not_given_the_token(out: Path) -> None:
    with private_server() as (origin, heard):
        for trusted in ("https://git.example.com", origin.replace("127.0.0.1", "localhost"), ""):
            address = f"{origin}/team/private.git"
            done = fetch(out, address, "HEAD", "0" * 64, token="a/secret", origin=trusted)
            assert done.returncode == 1, done.stderr
    assert heard and set(heard) == {None}


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("https://git.example.com/team/repo.git", True),
        ("https://GIT.example.com/team/repo.git", True),
        ("http://git.example.com/team/repo.git", False),
        ("https://git.example.com.evil.example/team/repo.git", False),
        ("https://git.example.com@evil.example/team/repo.git", False),
        ("https://evil.example?@git.example.com/team/repo.git", False),
        ("https://git.example.com:8443/team/repo.git", False),
        ("https://user:word@git.example.com/team/repo.git", False),
        ("ssh://git.example.com/team/repo.git", False),
        ("https://[git.example.com/team/repo.git", False),
        ("team/repo.git", False),
    ],
)
def test_a_token_is_for_one_place_over_https(address: str, sent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_GIT_TOKEN", "secret")
    monkeypatch.setenv("GRAFTLINE_GIT_ORIGIN", "https://git.example.com")
    given = with_token(address)
    assert ("secret" in given) == sent
    assert given.replace("x-access-token:secret@", "") == address


@pytest.mark.parametrize("repository", ["http://git.example.com/repo.git", "git@git.example.com:repo.git", "."])
def test_a_repository_that_is_not_reached_over_https_trusts_no_place_with_the_token(repository: str) -> None:
    assert origin(repository) == ""


def test_a_commit_that_leaves_the_data_alone_is_no_other_revision_of_it(repo: Path) -> None:
    """K19: else every commit would be another run's cache."""
    changed = git(repo, "rev-parse", "HEAD")
    (repo / "README.md").write_text("read me\n")
    (repo / "data/toy/params.yaml").write_text("task: toy\n")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "text")
    assert data_revision("toy", repo) == changed
    with (repo / "data/toy/expectations.yaml").open("a") as contract:
        contract.write("# stricter\n")
    git(repo, "commit", "-qam", "contract")
    assert data_revision("toy", repo) == git(repo, "rev-parse", "HEAD")
    assert data_revision("other", repo) == git(repo, "rev-list", "--max-parents=0", "HEAD"), "DVC's remotes"
    with pytest.raises(InputError, match="expected a git repository"):
        data_revision("toy", repo.parent)


def claim(tmp_path: Path, run: str, reason: str = "{}") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "graftline.pipelines.claim", "--task", "toy", "--store", str(tmp_path / "store"),
            "--run-key", KEY, "--version", "retrain-toy-0", "--revision", "a" * 40, "--data-digest", "d" * 64,
            "--reason", reason,
        ],
        env=os.environ | {"GRAFTLINE_RUN": run}, capture_output=True, text=True,
    )  # fmt: skip


def test_of_two_runs_of_one_key_one_stops(tmp_path: Path) -> None:
    """K15: two submits in one second."""
    reason = {"kind": "person", "who": "a"}
    for _ in range(2):  # the same run, tried again on another node
        assert claim(tmp_path, "first", json.dumps(reason)).returncode == 0
    done = claim(tmp_path, "second")
    assert done.returncode == 3
    assert f"the run first does the work of key {KEY}; this one stops" in done.stderr
    store = open_store(str(tmp_path / "store"))
    assert open_runs(store) == [Start("first", KEY, "toy", "retrain-toy-0", "a" * 40, "d" * 64, reason)]


def test_of_two_runs_of_one_slot_one_stops(tmp_path: Path) -> None:
    reason = json.dumps({"kind": "schedule", "schedule": "nightly", "slot": "20261123T023000Z"})
    assert claim(tmp_path, "first", reason).returncode == 0
    assert claim(tmp_path, "second", reason).returncode == 3


def test_a_run_that_is_told_nonsense_claims_nothing(tmp_path: Path) -> None:
    assert claim(tmp_path, "first", "[1]").returncode == 2
    assert claim(tmp_path, "", "{}").returncode == 2
    assert not (tmp_path / "store").exists()
