"""What a result depends on besides its inputs: the code's revision, the lock, the machine's arithmetic."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path

from graftline.digests import sha256_file
from graftline.errors import GraftlineError
from graftline.yamlfile import load_yaml

ROOT = Path(__file__).resolve().parents[2]
"""The checkout that this code runs from (an editable install), or a folder without `.git` in an image."""
_PACKAGE = Path(__file__).resolve().parent

_KINDS = ("py", "j2", "yaml", "lock", "js", "css", "svg")
"""What code is made of. Notes and what a shell redirects into the checkout are of other kinds."""


def _code(task: str | None) -> list[str]:
    """Return git's pathspecs of what decides a result besides its inputs.

    Of data/ it is what the task says of its data; raw data, data/store and images are in records by their digest.
    Without a task it is what an image is built of.
    """
    folders = [f":(glob){top}/**/*.{kind}" for top in ("src", "components", "pipelines") for kind in _KINDS]
    data = [f"data/{task}/{name}" for name in ("params.yaml", "expectations.yaml", "raw.dvc")]
    own = data if task else ["components/Dockerfile", ".dockerignore"]
    return [*folders, ":!pipelines/compiled", *own, "dvc.yaml", "requirements.lock"]


def code_revision(task: str | None = None) -> dict[str, str]:
    """Return `commit` (hex) and, if code differs from it, `dirty`: the sha256 of the difference.

    With a task, its parameters, contract and pointer count too. The repository is that of the checkout, which may be a
    folder of a larger one. An image has no git: its build sets GRAFTLINE_COMMIT, `<commit>` or `<commit>+<sha256 of the
    difference>`. Without either, the result is empty.
    """
    if named := os.environ.get("GRAFTLINE_COMMIT"):
        return dict(zip(("commit", "dirty"), named.split("+", 1), strict=False))
    if not _in_git():
        return {}
    head = _git("rev-parse", "--verify", "--quiet", "HEAD").strip()
    code, difference = _code(task), hashlib.sha256()
    changed = _git("diff", "--binary", "--relative", "HEAD", "--", *code) if head else b""
    difference.update(changed)
    listed = _git("ls-files", "-oz", "--exclude-standard", "--", *code)
    untracked = sorted(name for name in listed.split(b"\0") if name)
    for name in untracked:
        path = ROOT / os.fsdecode(name)
        content = path.read_bytes() if path.is_file() else b""
        difference.update(name + b"\0" + hashlib.sha256(content).digest())
    revision = {"commit": head.decode()} if head else {}
    if changed or untracked:
        revision["dirty"] = difference.hexdigest()
    return revision


def has_commit(commit: str) -> bool:
    """Return whether the checkout's repository has a commit; where there is none to ask, that it does."""
    if "GRAFTLINE_COMMIT" in os.environ or not _in_git():
        return True
    return bool(_git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"))


def _in_git() -> bool:
    """Return whether a git repository holds the checkout: not one that the package was only installed in."""
    if (ROOT / ".git").exists():
        return True
    around = any((folder / ".git").exists() for folder in ROOT.parents)
    return around and bool(_git("ls-files", "--", "src/graftline/environment.py"))


def _git(*arguments: str) -> bytes:
    """Return git's output; nothing where it fails for want of a commit. Raises GraftlineError if it cannot work."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise GraftlineError(
            "git is missing, which tells what code runs; install it, or set GRAFTLINE_COMMIT"
        ) from None
    if done.returncode and done.stderr:  # such as a work tree of another owner: not to be taken for a clean one
        reason = done.stderr.decode(errors="replace").strip().splitlines()[0]
        raise GraftlineError(f"git cannot tell which code runs here: {reason}; mend it, or set GRAFTLINE_COMMIT")
    return done.stdout


def stage_code(component: str) -> str:
    """Return one sha256 over the source files that dvc.yaml names as the code of a component's stage.

    An image has dvc.yaml too, and components/ inside the package; the digest is the same. Where there is no dvc.yaml
    it is over the whole package.
    """
    places = {"src/graftline": _PACKAGE, "components": _components()}
    listing = ROOT / "dvc.yaml"
    deps = load_yaml(listing)["stages"][component]["do"]["deps"] if listing.is_file() else list(places)
    files = {}
    for dep in deps:
        for top, place in places.items():
            if dep == top or dep.startswith(f"{top}/"):
                path = place / dep.removeprefix(top).strip("/")
                found = [path] if path.is_file() else sorted(path.rglob("*.py"))
                files.update({f"{top}/{file.relative_to(place)}": sha256_file(file) for file in found})
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def _components() -> Path:
    return next(path for path in (_PACKAGE / "components", ROOT / "components") if path.is_dir())


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
