"""What a test needs besides Python: without it the test is skipped and says so; in CI that is mostly a failure."""

from __future__ import annotations

import gc
import multiprocessing.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import cache_from_source
from multiprocessing.util import Finalize
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `import forked`, in any of the tests
sys.path.insert(1, str(Path(__file__).parent / "learning"))

import forked
from session import once

NEEDS = {
    "strace": ("strace is installed", lambda: shutil.which("strace") is not None),
    "chromium": ("Chromium is installed", lambda: shutil.which("chromium") is not None),
    "root": ("it runs as root, to mount a file system", lambda: os.geteuid() == 0),
    "gpu": ("a GPU is there", lambda: has_gpu()),
    "terraform": ("terraform is installed", lambda: shutil.which("terraform") is not None),
}
NOT_IN_CI = {"terraform", "gpu"}
"""What CI does without: Debian has no package of Terraform (docs/cluster.md, "What has been run"), and `make gpu-check`
runs what needs a GPU."""


def has_gpu() -> bool:
    from graftline.learning.device import count

    return count() > 0


HOME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all modules are loaded: they are no garbage, and going through them took a fifth of the time
    # Two workers' trainings have two threads each. GNU OpenMP lets a thread that waits for another spin 300,000 turns,
    # while the other waits for this one's core: under load a training takes 25 times as long. Bits do not change.
    os.environ.setdefault("GOMP_SPINCOUNT", "500")
    multiprocessing.util.spawnv_passfds = forked.spawn  # type: ignore[assignment]
    _keep_byte_code()
    _use_memory(config)
    _use_own_home(config)
    for name, (condition, _) in NEEDS.items():
        config.addinivalue_line("markers", f"{name}: runs where {condition}")


def _keep_byte_code() -> None:
    """Let Python keep compiled sources, though images for Python often say not to.

    Hundreds of processes would each compile the sources again, and in a copy of the repository each of its processes.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory alone."""


def _use_memory(config: pytest.Config) -> None:
    """Keep temporary files in memory where there is plenty: a disk takes 12 ms to sync one, and it does not matter.

    What is killed leaves what it wrote, synced or not, and strace counts the calls all the same. All of it is gone at
    the end of the session; `--basetemp FOLDER` keeps what tests leave.
    """
    if hasattr(config, "workerinput") or "GRAFTLINE_TEST_CONTAINERS" in os.environ or not _has_much_memory():
        return
    for left in MEMORY.glob("graftline-tests-*"):  # by a session that was killed
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix=f"graftline-tests-{os.getpid()}-", dir=MEMORY)
    # After multiprocessing has removed its own folder in there, at -100.
    Finalize(None, shutil.rmtree, (tempfile.tempdir, True), exitpriority=-200)


def _has_much_memory() -> bool:
    try:
        found = os.statvfs(MEMORY)
        told = Path("/proc/meminfo").read_text().split()
    except OSError:
        return False
    available = int(told[told.index("MemAvailable:") + 1]) << 10
    runs_programs = not found.f_flag & os.ST_NOEXEC
    return runs_programs and os.access(MEMORY, os.W_OK) and min(available, found.f_bavail * found.f_bsize) > 12 << 30


def _use_own_home(config: pytest.Config) -> None:
    """Sign with keys of this session and keep caches of its own, in subprocesses too: never the user's.

    pytest-xdist's workers share them.
    """
    for name in ("GRAFTLINE_KEY", "GRAFTLINE_PUBLIC_KEY", "GRAFTLINE_RUN"):
        os.environ.pop(name, None)
    if not hasattr(config, "workerinput"):
        config.stash[HOME] = home = tempfile.mkdtemp(prefix="graftline-")
        os.environ |= {"GRAFTLINE_KEYS": f"{home}/keys", "GRAFTLINE_CACHE": f"{home}/cache"}


def pytest_unconfigure(config: pytest.Config) -> None:
    if HOME in config.stash:
        shutil.rmtree(config.stash[HOME], ignore_errors=True)


def pytest_sessionstart() -> None:
    """Fetch the shipped data, as `graftline run` would, where a new clone does not have it yet."""
    from graftline.environment import ROOT

    pointers = sorted((ROOT / "data").glob("*/raw.dvc"))
    missing = [str(pointer) for pointer in pointers if not pointer.with_suffix("").exists()]
    if missing:
        subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet", *missing], cwd=ROOT, check=True)


LONG = (
    "cli/test_run.py",
    "cli/test_new.py",
    "infra/test_check.py",
    "test_add_a_task.py",
    "test_released.py",
    "test_acceptance.py",
    "test_federate.py",
    "test_trainjob.py",
    "test_trainjob_step.py",
    "test_converges.py",
    "test_resume.py",
    "test_resume_elsewhere.py",
    "test_publish_crash.py",
    "test_decode_crash.py",
    "test_shared_batch.py",
    "test_regression.py",
    "test_pair_classification.py",
    "test_multi_label.py",
    "test_sequence_classification.py",
    "ui/test_browser.py",
    "evaluate/test_evaluate.py",
    "evaluate/test_text.py",
    "test_tampering.py",
    "test_structure.py",
)
"""Files that take longest. They begin first: begun last, one process works on such a file and the others wait for it
(pytest-xdist would put it last, for it has few tests)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)  # figures and tables are of thousands of objects that live until they are drawn
    gc.enable()
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))
    for item in items:
        if "mount" in getattr(item, "fixturenames", ()):
            item.add_marker("root")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, (condition, holds) in NEEDS.items():
        if item.get_closest_marker(name) and not holds():
            if os.environ.get("CI") and name not in NOT_IN_CI:
                pytest.fail(f"CI must run this test, and it needs that {condition}", pytrace=False)
            pytest.skip(f"runs where {condition}")


@pytest.fixture(scope="session")
def pristine_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _pristine(tmp_path_factory.getbasetemp())


@once
def _pristine(home: Path) -> Path:
    return copy_checkout(home / "pristine" / "fork")


@pytest.fixture
def checkout(pristine_checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A git repository with this one's files but the ignored ones, whose own code is what runs in it.

    In one place for all tests, one after another: their processes need not load its code again.
    """
    place = tmp_path_factory.getbasetemp() / "checkout" / "fork"
    place.parent.mkdir(exist_ok=True)
    yield copy_tree(pristine_checkout, place)
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def shared_checkout(pristine_checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all tests of a file."""
    return copy_tree(pristine_checkout, tmp_path_factory.mktemp("shared") / "fork")


def copy_tree(tree: Path, copy: Path) -> Path:
    subprocess.run(["cp", "-a", tree, copy], check=True)
    return copy


def copy_checkout(copy: Path) -> Path:
    from graftline.environment import ROOT

    command = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if name != "dvc.lock" and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
            compiled = Path(cache_from_source(name))
            if name.endswith(".py") and (ROOT / compiled).is_file():  # each copy's first process would compile it anew
                (copy / compiled).parent.mkdir(exist_ok=True)
                shutil.copy2(ROOT / compiled, copy / compiled)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    package = copy / "build/package/graftline"
    package.mkdir(parents=True)
    for part in [*(copy / "src/graftline").iterdir(), copy / "components", copy / "pipelines"]:
        (package / part.name).symlink_to(Path("../../..") / part.relative_to(copy))
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "fork"],
    ):
        subprocess.run(["git", "-C", copy, *command], check=True)
    return copy
