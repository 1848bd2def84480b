"""The training container is ended and started on an empty disk: it goes on from the checkpoints in the object store."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import small
from kills import Case, Unbroken, cases, desk_folder, run_unbroken

from graftline.images import Images
from graftline.records.folder import verify
from graftline.signing.mounting import keys_for_mounting
from graftline.store import Store
from graftline.store.bundles import list_bundles
from graftline.store.opening import open_store

EVERY_SECONDS = 1.0
KEYS = "/run/graftline-keys"
USER = 10001
"""The images'."""
EPOCHS = 150
"""Some eight seconds: long enough to be ended between the first checkpoint and the last step."""
AWS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


@pytest.fixture(scope="module")
def case(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Case:
    home = tmp_path_factory.getbasetemp()
    made = cases(small.dataset(home), small.trunk(home), small.PARAMS)["pretrain"]
    flag = made.arguments.index("--params") + 1
    document = json.loads(made.arguments[flag])
    document["pretrain"]["epochs"] = EPOCHS
    return replace(made, arguments=[*made.arguments[:flag], json.dumps(document), *made.arguments[flag + 1 :]])


@pytest.fixture(scope="module")
def unbroken(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    return run_unbroken(case, tmp_path_factory.mktemp("unbroken") / case.output)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder of keys to mount, and the environment that names it in a container."""
    folder = tmp_path_factory.mktemp("keys") / "mounted"
    with keys_for_mounting(folder, KEYS, user=USER) as environment:
        yield folder, environment


@pytest.fixture
def names() -> Iterator[list[str]]:
    """Containers to remove, whatever becomes of the test."""
    used: list[str] = []
    yield used
    for name in used:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def start(
    images: Images,
    case: Case,
    disk: Path,
    environment: dict[str, str],
    keys: tuple[Path, dict[str, str]],
    names: list[str],
) -> str:
    """Start the component in a container with `disk` as all that it may write to; return the container's name."""
    disk.mkdir()
    disk.chmod(0o777)
    inputs = [Path(value) for flag, value in zip(case.arguments, case.arguments[1:], strict=False) if "--in-" in flag]
    for folder in inputs:
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    python, *rest = case.command(disk / case.output, EVERY_SECONDS)
    assert python == sys.executable
    name = f"graftline-test-{uuid.uuid4().hex[:12]}"
    names.append(name)
    options = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--network=host", f"--volume={disk}:{disk}"]
    options += [f"--volume={folder}:{folder}:ro" for folder in inputs]
    options += [f"--volume={keys[0]}:{KEYS}:ro"]
    options += [f"--env={key}={value}" for key, value in (environment | keys[1]).items()]
    subprocess.run(
        ["docker", "run", "--detach", f"--name={name}", *options, images.train, "python", *rest],
        check=True,
        capture_output=True,
    )
    return name


def newest(store: Store, run: str) -> int:
    prefixes = {key.rpartition("/")[0] for key in store.list("checkpoints/") if f"/{run}/" in key}
    return max((int(step) for prefix in prefixes for step in list_bundles(store, prefix)), default=0)


def finished(name: str) -> tuple[int, str]:
    """Wait for a container; return its exit code and what it said."""
    done = subprocess.run(["docker", "wait", name], capture_output=True, text=True, check=True, timeout=240)
    log = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
    return int(done.stdout), log.stdout + log.stderr


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM"])
def test_a_container_that_is_ended_goes_on_elsewhere_to_the_same_digest(
    end: str,
    images: Images,
    case: Case,
    unbroken: Unbroken,
    s3_url: str,
    tmp_path: Path,
    keys: tuple[Path, dict[str, str]],
    names: list[str],
) -> None:
    store, run = open_store(s3_url), uuid.uuid4().hex * 2
    environment = {name: os.environ[name] for name in AWS}
    environment |= {"GRAFTLINE_RUN": run, "GRAFTLINE_CHECKPOINTS": s3_url}
    first = start(images, case, tmp_path / "one", environment, keys, names)
    deadline = time.monotonic() + 120
    while (seen := newest(store, run)) == 0:
        assert time.monotonic() < deadline, finished(first)
        time.sleep(0.1)
    if end == "SIGTERM":
        subprocess.run(["docker", "stop", "--time=30", first], check=True, capture_output=True)
    else:
        subprocess.run(["docker", "kill", f"--signal={end}", first], check=True, capture_output=True)
    code, said = finished(first)
    assert code == (75 if end == "SIGTERM" else 137), said
    kept = newest(store, run)
    assert seen <= kept < unbroken.steps
    on_disk = sorted(int(path.name) for path in desk_folder(tmp_path / "one" / case.output).glob("checkpoints/0*"))
    if end == "SIGTERM":
        [reached] = re.findall(r"pre-empted after step (\d+)", said)
        assert kept == int(reached), "no step was lost"
    else:
        assert kept >= on_disk[0], "all but the newest checkpoint, which may have been on its way"
    again = start(images, case, tmp_path / "two", environment, keys, names)
    code, said = finished(again)
    assert code == 0, said
    assert f"going on from step {kept} of {unbroken.steps}" in said
    assert verify(tmp_path / "two" / case.output).content == unbroken.digest
    assert newest(store, run) == 0
