"""A publisher killed, or met by a fault, at any of its calls: readers see the old state or the new one.

strace kills the real process at the n-th call of a kind, for each n until the run survives (`-e inject`, see
strace(1)). Each time the store is read, then publishing is done again: exactly one release comes of it.

With GRAFTLINE_ALL_CRASHES=1, as CI does it; without it at every third call, and on moto at some of the uploads.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import traced
from publisher import BEFORE, draft
from servers import REAL_URL, Proxy

from graftline.errors import GraftlineError
from graftline.ledger.log import read_chain
from graftline.releases.catalogue import list_releases, resolve
from graftline.releases.fetching import fetch
from graftline.releases.publishing import Publication, open_publication, publish
from graftline.store import Store
from graftline.store.opening import open_store
from graftline.store.s3 import S3Store

PUBLISHER = Path(__file__).with_name("publisher.py")
ALL = os.environ.get("GRAFTLINE_ALL_CRASHES") == "1"
# One kind at a time: strace counts each kind of call by itself. By the call's name on this kernel's libc.
KILLED = ["write", "fsync", "link,linkat", "rename,renameat,renameat2", "unlink,unlinkat", "mkdir,mkdirat", "flock"]
FAILED = [
    ("write", "ENOSPC"),
    ("fsync", "EIO"),
    ("link,linkat", "ENOSPC"),
    ("rename,renameat,renameat2", "EIO"),
    ("mkdir,mkdirat", "ENOSPC"),
    *([("write", "EIO"), ("fsync", "ENOSPC"), ("link,linkat", "EIO")] if ALL else []),
]
STRIDE = 1 if ALL else 3
"""From one call of a kind to the next."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 500)
    (folder / "README.md").write_text("# digits\n")
    return folder


def prepare(url: str, files: Path) -> None:
    """Make the old state: version 1, of other content, is the champion."""
    before = files.parent / "before"
    before.mkdir(exist_ok=True)
    (before / "model.safetensors").write_bytes(BEFORE)
    publish(open_store(url), draft(before, compared_with=None), Publication("before"))


def check_old_or_new(store: Store) -> int:
    """Return how many releases readers see, after verifying their bytes, the aliases and the ledger."""
    releases = list_releases(store, "digits")
    assert [release.version for release in releases] in ([1], [1, 2])
    for release in releases:
        fetch(store, release)
    champion = resolve(store, "digits@champion")
    assert champion in releases
    entered = {(entry.version, entry.digest) for entry in read_chain(store).entries if entry.event != "key"}
    assert entered <= {(release.version, release.manifest) for release in releases}
    return len(releases)


def check_restart(store: Store, files: Path, work: Path) -> None:
    """Publish again; there must be exactly one release of it, entered and promoted once."""
    to_release = draft(files)
    receipt = publish(store, to_release, open_publication(work, to_release))
    assert receipt.promoted
    assert receipt.previous_champion is not None
    assert check_old_or_new(store) == 2
    assert resolve(store, "digits").version == 2
    events = [(entry.event, entry.version) for entry in read_chain(store).entries]
    assert events == [("key", 0), ("release", 1), ("promote", 1), ("release", 2), ("promote", 2)]
    assert not {key for key in store.list("releases/") if key.startswith("releases/digits/3")}


def publisher(
    *arguments: object, meets: tuple[str, str, int] | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Publish in a process; what it `meets` at which call is as `traced.start` takes it."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "GRAFTLINE_ACTOR": "tests"} | settings
    command = [sys.executable, str(PUBLISHER), *map(str, arguments)]
    if meets:
        return traced.run(command, *meets, text=True, env=environment)
    return forked.run(command, text=True, env=environment, timeout=120)


@pytest.mark.strace
@pytest.mark.parametrize("calls", KILLED)
def test_killed_at_every_call_readers_see_old_or_new_and_a_restart_completes(
    calls: str, files: Path, tmp_path: Path
) -> None:
    prepare(str(tmp_path / "prepared"), files)
    killed, seen, survived = 0, set(), False
    for number in itertools.count(1, STRIDE):
        url, work = tmp_path / f"store-{number}", tmp_path / f"work-{number}"
        shutil.copytree(tmp_path / "prepared", url)
        done = publisher(url, files, work, meets=(calls, "signal=SIGKILL", number))
        survived = done.returncode == 0
        assert survived or done.returncode == -signal.SIGKILL, done.stderr
        killed += not survived
        store = open_store(str(url))
        seen.add(check_old_or_new(store))
        check_restart(store, files, work)
        shutil.rmtree(url)
        if survived:
            break
    assert killed >= 1, "the calls were not met"
    assert 2 in seen


@pytest.mark.strace
@pytest.mark.parametrize(("calls", "error"), FAILED)
def test_an_error_at_every_call_is_one_line_and_leaves_old_or_new(
    calls: str, error: str, files: Path, tmp_path: Path
) -> None:
    prepare(str(tmp_path / "prepared"), files)
    failed = 0
    for number in itertools.count(1, STRIDE):
        url, work = tmp_path / f"store-{number}", tmp_path / f"work-{number}"
        shutil.copytree(tmp_path / "prepared", url)
        done = publisher(url, files, work, meets=(calls, f"error={error}", number))
        failed += done.returncode != 0
        if done.returncode:
            assert done.returncode == 2, done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
            assert {"ENOSPC": "no space left on device", "EIO": "input/output error"}[error] in done.stderr
        store = open_store(str(url))
        check_old_or_new(store)
        assert list(url.glob(".aside/*")) == [], "a writer that lived to report the error removed its file"
        check_restart(store, files, work)
        shutil.rmtree(url)
        if done.returncode == 0:
            break
    assert failed >= 1, "the calls were not met"


# On S3


def at(number: int, fault: str) -> Callable[[int], str]:
    """Return the plan of a proxy that makes one fault."""
    return lambda put: fault if put == number else ""


def s3_store(url: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return S3Store(bucket, prefix, backoff=0.01)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))


# Of the uploads 1 to 13 (claim, 2 files, a record, public key, the record again, its envelope, lock, model signature,
# manifest, 2 ledger entries, alias): those that others follow.
UPLOADS = 13
MILESTONES = (1, 10, 13)


# A kill before upload n leaves what a kill after upload n - 1 leaves: by default only the latter.
@pytest.mark.parametrize("when", ["kill-after", *(["kill-before"] if ALL else [])])
def test_killed_at_every_upload_readers_see_old_or_new_and_a_restart_completes(
    s3_url: str, when: str, files: Path, tmp_path: Path
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    prepare(f"{s3_url}/0", files)
    done = publisher(f"{s3_url}/0", files, tmp_path / "work-0")  # unbroken; the others need not load what it loaded
    assert done.returncode == 0, done.stderr
    every = ALL or bool(REAL_URL and s3_url.startswith(REAL_URL))
    for number in (*range(1, UPLOADS + 1, 1 if every else 3), UPLOADS + 1):
        url, work = f"{s3_url}/{number}", tmp_path / f"work-{number}"
        prepare(url, files)
        started: list[subprocess.Popen[bytes]] = []

        with Proxy(endpoint, at(number, when), lambda started=started: started[0].kill()) as proxy:
            started.append(
                forked.Popen(
                    [sys.executable, str(PUBLISHER), url, str(files), str(work)],
                    env=os.environ | {"AWS_ENDPOINT_URL": proxy.endpoint},
                )
            )
            code = started[0].wait(120)
        assert code == (0 if number > UPLOADS else -signal.SIGKILL), "one kill at each upload, and there are no more"
        store = open_store(url)
        check_old_or_new(store)
        check_restart(store, files, work)


@pytest.mark.parametrize("fault", ["drop-before", "drop-after", "500-before", "500-after"])
def test_a_fault_at_every_upload_still_makes_one_release(
    s3_url: str, fault: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    to_release = draft(files)
    for number in range(1, UPLOADS + 1) if ALL else MILESTONES:
        url, work = f"{s3_url}/{number}", tmp_path / f"work-{number}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        prepare(url, files)
        with Proxy(endpoint, at(number, fault)) as proxy:
            publish(s3_store(url, proxy.endpoint, monkeypatch), to_release, open_publication(work, to_release))
        store = s3_store(url, endpoint, monkeypatch)
        assert check_old_or_new(store) == 2
        check_restart(store, files, work)


def test_a_server_that_dies_at_any_upload_is_one_line_and_leaves_old_or_new(
    s3_url: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    to_release = draft(files)
    for number in range(1, UPLOADS + 1) if ALL else MILESTONES:
        url, work = f"{s3_url}/{number}", tmp_path / f"work-{number}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        prepare(url, files)
        with Proxy(endpoint, at(number, "down")) as proxy:
            store = s3_store(url, proxy.endpoint, monkeypatch)
            with pytest.raises(GraftlineError, match="did not serve it in 6 tries") as caught:
                publish(store, to_release, open_publication(work, to_release))
            assert "\n" not in str(caught.value)
        store = s3_store(url, endpoint, monkeypatch)
        check_old_or_new(store)
        check_restart(store, files, work)


def test_a_real_gateway_killed_in_the_middle_leaves_old_or_new(real_url: str, files: Path, tmp_path: Path) -> None:
    """The gateway itself gets kill -9 after an upload, and is started again on the same state."""
    if "GRAFTLINE_TEST_S3_DIR" not in os.environ:
        pytest.skip("GRAFTLINE_TEST_S3_DIR is not set: the real server was not started by tools/real-s3")
    tool = [str(Path(__file__).parents[2] / "tools" / "real-s3")]
    folder = os.environ["GRAFTLINE_TEST_S3_DIR"]
    for number in (1, 3, 6, 8):
        url, work = f"{real_url}/{number}", tmp_path / f"work-{number}"
        prepare(url, files)
        dead = False

        def kill() -> None:
            nonlocal dead
            if not dead:
                dead = True
                subprocess.run([*tool, "kill-gateway", folder], check=True)

        with Proxy(os.environ["AWS_ENDPOINT_URL"], at(number, "kill-after"), kill) as proxy:
            done = publisher(url, files, work, AWS_ENDPOINT_URL=proxy.endpoint)
        subprocess.run([*tool, "start-gateway", folder], check=True)
        assert done.returncode == 1, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        store = open_store(url)
        check_old_or_new(store)
        check_restart(store, files, work)
