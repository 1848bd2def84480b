"""Places that cannot take an output: a full disk, a read-only or unreachable store, a folder in use.

Two of the faults are real mounts, which only root can make (every container and CI runner here is root): for
another user those tests fail and say so, rather than pass without having looked.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from harness import HANG_SECONDS, TRAINING, Call, Parts, call, put_old_output, run_here, snapshot

from graftline.errors import EXIT_PREEMPTED
from graftline.records.folder import verify
from graftline.store.s3 import S3Store

Refused = Callable[..., Any]
Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small file system in memory, or a folder once more; it is gone after the test."""
    mounted: list[Path] = []

    def of(name: str, *arguments: str) -> Path:
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", *arguments, str(place)], check=True)
        mounted.append(place)
        return place

    yield of
    for place in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def tmpfs(kilobytes: int) -> tuple[str, ...]:
    return ("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs")


def training(parts: Parts, out: Path, component: str = "pretrain", seconds: int = 0, **section: Any) -> Call:
    document = {"task": "digits", component: TRAINING[component] | section}
    given = {"dataset": parts.dataset} | ({"trunk": parts.trunk} if component == "finetune" else {})
    return call(component, json.dumps(document), out, "--threads", "1", f"--checkpoint-seconds={seconds}", **given)


def validation(parts: Parts, out: Path) -> Call:
    return call(
        "validate",
        '{"task": "digits"}',
        out,
        "--store",
        str(parts.store),
        inputs=(parts.store,),
        raw=parts.raw,
        expectations=parts.expectations,
    )


def publication(parts: Parts, out: Path, store: str, inputs: tuple[Path, ...] = ()) -> Call:
    given = {name: getattr(parts, name) for name in ("dataset", "trunk", "model", "evaluation")}
    return call("publish", '{"task": "digits"}', out, "--store", store, inputs=inputs, **given)


FULL = ("no space left on device", "make room")


@pytest.mark.parametrize("kilobytes", [24, 64, 128, 256])
def test_validate_on_a_full_disk_leaves_nothing(kilobytes: int, parts: Parts, mount: Mount, refused: Refused) -> None:
    disk = mount("disk", *tmpfs(kilobytes))
    refused(validation(parts, disk / "dataset"), f"{disk}/", *FULL)


@pytest.mark.parametrize(("kilobytes", "seconds"), [(24, 0), (200, 0), (40, 60), (64, 60), (96, 60)])
@pytest.mark.parametrize("component", ["pretrain", "finetune"])
def test_training_on_a_full_disk_leaves_nothing_but_checkpoints(
    component: str, kilobytes: int, seconds: int, parts: Parts, mount: Mount, refused: Refused
) -> None:
    """With a checkpoint after each step the disk fills during training, without one when the output is written."""
    disk = mount("disk", *tmpfs(kilobytes))
    refused(training(parts, disk / "out", component, seconds), f"{disk}/", *FULL, allowed=(".out.work",))


def test_a_real_process_on_a_full_disk_leaves_nothing_but_checkpoints(
    parts: Parts, mount: Mount, refused: Refused
) -> None:
    disk = mount("disk", *tmpfs(96))
    bad = training(parts, disk / "out")
    refused(bad, f"{disk}/", *FULL, process=True, older=(True,), allowed=(".out.work",))


def test_a_store_on_a_full_disk_leaves_no_release(parts: Parts, mount: Mount, tmp_path: Path, refused: Refused) -> None:
    from graftline.releases.catalogue import list_releases
    from graftline.store.opening import open_store

    store = mount("store", *tmpfs(64))
    bad = publication(parts, tmp_path / "outputs" / "release", str(store))
    refused(bad, f"store {store}: cannot write releases/digits/", *FULL, allowed=(".release.work",))
    assert list_releases(open_store(str(store))) == []


def test_a_read_only_store_is_refused(parts: Parts, mount: Mount, tmp_path: Path, refused: Refused) -> None:
    bare = tmp_path / "bare"  # in the one of the parts such a release is already
    bare.mkdir()
    store = mount("store", "--bind", str(bare))
    subprocess.run(["mount", "-o", "remount,bind,ro", str(store)], check=True)
    bad = publication(parts, tmp_path / "outputs" / "release", str(store), (store,))
    refused(bad, f"store {store}: cannot write", "read-only file system", "permissions", allowed=(".release.work",))


def test_a_read_only_output_folder_is_refused(parts: Parts, mount: Mount, refused: Refused) -> None:
    place = mount("outputs", *tmpfs(1024))
    put_old_output(place / "trunk")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    before = snapshot(place)
    bad = training(parts, place / "trunk")
    bad = Call(bad.name, bad.arguments, (*bad.inputs, place))
    refused(bad, "read-only file system", "correct the path")
    assert snapshot(place) == before


def test_a_file_in_place_of_the_store_is_refused(parts: Parts, tmp_path: Path, refused: Refused) -> None:
    store = tmp_path / "store"
    store.write_text("not a folder")
    bad = publication(parts, tmp_path / "outputs" / "release", str(store), (store,))
    refused(bad, f"store {store}: cannot write", "correct the path", allowed=(".release.work",))


def test_an_unknown_kind_of_store_is_refused(parts: Parts, tmp_path: Path, refused: Refused) -> None:
    bad = publication(parts, tmp_path / "outputs" / "release", "gs://bucket/models")
    refused(bad, "--store: 'gs://...'; expected a directory or s3://bucket/prefix", allowed=(".release.work",))


def test_a_store_that_cannot_be_reached_is_reported(
    parts: Parts, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 1: nothing is wrong with the input, and another try may succeed."""
    monkeypatch.setitem(S3Store.__init__.__kwdefaults__, "backoff", 0.01)  # type: ignore[arg-type]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer at this port
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-key")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bad = publication(parts, tmp_path / "outputs" / "release", "s3://models/team")
        says = ("store s3://models/team: cannot ", endpoint, "in 6 tries", "run again")
        ended = refused(bad, *says, code=1, older=(True,), allowed=(".release.work",))
    assert "secret-of-the-key" not in ended.error


def test_an_output_in_place_of_a_file_is_refused(parts: Parts, tmp_path: Path, refused: Refused) -> None:
    file = tmp_path / "outputs"
    file.write_text("a file")
    below = training(parts, file / "trunk")
    refused(Call(below.name, below.arguments, (*below.inputs, file)), str(file), "correct the path")
    bad = training(parts, file)
    refused(Call(bad.name, bad.arguments, (*bad.inputs, file)), f"--out-trunk: {file} is a file; expected a folder")


@pytest.mark.parametrize("place", [".", "trunk", ".."])
def test_an_output_that_would_replace_an_input_is_refused(
    place: str, parts: Parts, copy: Callable[[str], Path], refused: Refused
) -> None:
    dataset = copy("dataset")
    bad = call("pretrain", '{"task": "digits"}', dataset / place, dataset=dataset)
    refused(
        Call(bad.name, bad.arguments, bad.inputs), "--out-trunk: ", "overlaps --in-dataset", "apart from the inputs"
    )


def test_a_second_run_of_a_stage_is_refused_and_the_first_ends_well(
    parts: Parts, tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "outputs" / "trunk"
    command = training(parts, out, epochs=10)
    first = forked.Popen(command.process, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(out.with_name(".trunk.work"), "*/metrics.jsonl", first)
        first.send_signal(signal.SIGSTOP)  # so that what lies beside the output holds still
        second = training(parts, out, epochs=10)
        message = (f"{out}: another run of pretrain is writing here; wait for it to end",)
        refused(second, *message, code=EXIT_PREEMPTED, older=(False,))
        refused(second, *message, code=EXIT_PREEMPTED, process=True, older=(False,))
        first.send_signal(signal.SIGCONT)
        assert first.wait(HANG_SECONDS) == 0
    finally:
        first.kill()
        first.wait()
    assert verify(out).component == "pretrain"
    assert run_here(second, capfd).code == 0


def _wait_for(folder: Path, pattern: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + HANG_SECONDS
    while not list(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < end, "the first run did not start"
        time.sleep(0.02)
