"""What a result depends on besides its inputs: the code's revision, the lock, the machine's arithmetic."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

from graftline.digests import sha256_file
from graftline.errors import GraftlineError

ROOT = Path(__file__).resolve().parents[2]
"""The checkout that this code runs from (an editable install), or a folder without `.git` in an image."""

# What decides a result besides its inputs, and so what an image is made of. Notes, logs, tests and the engine's state
# (dvc.lock) are no part of it; of data/store, which holds raw data, and of images records name the digest.
_CODE = ("src", "components", "pipelines", ":!pipelines/compiled", "data", ":!data/store", "dvc.yaml",
         "requirements.lock")  # fmt: skip


def code_revision() -> dict[str, str]:
    """Return `commit` (hex) and, if code or parameters differ from it, `dirty`: the sha256 of the difference.

    An image has no git: its build sets GRAFTLINE_COMMIT, `<commit>` or `<commit>+<sha256 of the difference>`. Without
    either, the result is empty.
    """
    if named := os.environ.get("GRAFTLINE_COMMIT"):
        return dict(zip(("commit", "dirty"), named.split("+", 1), strict=False))
    if not (ROOT / ".git").exists():
        return {}
    head = _git("rev-parse", "--verify", "--quiet", "HEAD").strip()
    difference = hashlib.sha256()
    changed = _git("diff", "--binary", "HEAD", "--", *_CODE) if head else b""
    difference.update(changed)
    listed = _git("ls-files", "-oz", "--exclude-standard", "--", *_CODE)
    untracked = sorted(name for name in listed.split(b"\0") if name)
    for name in untracked:
        path = ROOT / os.fsdecode(name)
        content = path.read_bytes() if path.is_file() else b""
        difference.update(name + b"\0" + hashlib.sha256(content).digest())
    revision = {"commit": head.decode()} if head else {}
    if changed or untracked:
        revision["dirty"] = difference.hexdigest()
    return revision


def _git(*arguments: str) -> bytes:
    """Return git's output; nothing where it fails for want of a commit. Raises GraftlineError if it cannot work."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if (
        done.returncode and done.stderr
    ):  # such as a work tree of another owner: not to be taken for a clean one
        reason = done.stderr.decode(errors="replace").strip().splitlines()[0]
        raise GraftlineError(
            f"git cannot tell which code runs here: {reason}; mend it, or set GRAFTLINE_COMMIT"
        )
    return done.stdout


def running_code() -> str:
    """Return one sha256 over the source files of this package that the process has loaded.

    The store's are left out: which of them are loaded depends on where a run's checkpoints go, and no result does.
    """
    files = {
        name: sha256_file(Path(module.__file__))
        for name, module in list(sys.modules.items())
        if name.split(".")[0] == "graftline" and module.__file__ and not name.startswith("graftline.store")
    }
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def lock_bytes() -> bytes | None:
    """Return requirements.lock, or None where it is not shipped."""
    lock = ROOT / "requirements.lock"
    return lock.read_bytes() if lock.is_file() else None


def lock_digest() -> str | None:
    """Return the sha256 of requirements.lock, or None where it is not shipped."""
    lock = lock_bytes()
    return None if lock is None else hashlib.sha256(lock).hexdigest()


def image_digest() -> str | None:
    """Return the digest of the container image that this process runs in; the orchestrator sets it."""
    return os.environ.get("GRAFTLINE_IMAGE")


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def determinism(threads: int) -> dict[str, str | int]:
    """Return the tuple within which equal inputs give equal bits, for a process that trains."""
    import torch

    found: dict[str, str | int] = {
        "threads": threads,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "torch": torch.__version__,
        "isa": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }
    if torch.cuda.is_available():
        found["gpu"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return found
