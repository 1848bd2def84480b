"""Build the images of components/Dockerfile, and write what they are: build/images.lock, an SBOM for each.

    python tools/images.py --base NAME [--wheels FOLDER] [--cuda] [--push REGISTRY [--with-changes]]

The images built here are named by their id, for `graftline run --engine docker`. `--push` names them by what the
registry calls them, in images.lock, which the pipeline reads: clusters run what was pushed, and nothing else.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sbom import sbom

from graftline.component import fail
from graftline.durable import write_atomic
from graftline.environment import ROOT, code_revision, lock_digest
from graftline.errors import GraftlineError, InputError
from graftline.images import BUILT, LOCK, local_tag

TARGETS = ("data", "train")
WHEELS_PORT = 8765
"""Always the same: docker's cache compares the address."""


def main(arguments: list[str] | None = None) -> None:
    """Build both images. Exit codes: 0 done, 2 bad input, 1 anything else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="image with Python 3.11 and git, such as tools/base-image makes")
    parser.add_argument("--wheels", type=Path, help="install from this folder, with no network: see `make wheels`")
    parser.add_argument("--cuda", action="store_true", help="with the libraries of CUDA (several GB)")
    parser.add_argument("--push", metavar="REGISTRY", help="push them there, and write images.lock")
    parser.add_argument(
        "--with-changes", action="store_true", help="push them although their code is that of no commit"
    )
    given = parser.parse_args(arguments)
    try:
        if given.push and not given.with_changes:
            check_committed()
        check_base(given.base)
        with served(given.wheels) as options:
            for target in TARGETS:
                build(target, given.base, options, cuda=given.cuda)
        lock(BUILT, {target: f"graftline/{target}@{image_id(target)}" for target in TARGETS}, "of this machine, by id")
        if given.push:
            lock(LOCK, {target: push(target, given.push) for target in TARGETS}, "of a registry, by digest")
    except GraftlineError as error:
        sys.exit(fail("images", error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"images: {' '.join(error.cmd[:3])} failed with exit code {error.returncode}")


def check_committed() -> None:
    """Raise InputError if the code differs from its commit: records would name code that nobody can look up."""
    if "commit" not in (revision := code_revision()) or "dirty" in revision:
        raise InputError(
            "--push",
            "code, parameters or locks that no commit has",
            expected="a commit, for records to name",
            fix="commit what `git status` lists, or add --with-changes: records will say so",
        )


def check_base(name: str) -> None:
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode:
        raise InputError(
            f"--base {name}", "docker has no such image", fix=f"pull it, or make it: tools/base-image {name}"
        )


@contextmanager
def served(wheels: Path | None) -> Iterator[str]:
    """Serve a folder of wheels on loopback, where a build can reach it without copying it; yield pip's options."""
    if wheels is None:
        yield ""
        return
    if not any(wheels.glob("*.whl")):
        raise InputError(f"--wheels {wheels}", "no wheels there", fix=f"make wheels WHEELS={wheels}")
    handler = functools.partial(_Quiet, directory=str(wheels))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", WHEELS_PORT), handler)
    except OSError as error:
        raise GraftlineError(f"port {WHEELS_PORT} of 127.0.0.1 cannot be used: {error.strerror}") from None
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"--no-index --find-links http://127.0.0.1:{WHEELS_PORT}/"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def build(target: str, base: str, pip_options: str, *, cuda: bool) -> None:
    """Build one image, tag it with its id, and write its SBOM."""
    revision = code_revision()
    values = {
        "BASE": base,
        "PIP_OPTIONS": pip_options,
        "LOCK_DIGEST": lock_digest() or "",
        "COMMIT": "+".join([revision.get("commit", ""), *filter(None, [revision.get("dirty")])]),
        "TRAIN_LOCK": locked(target, cuda=cuda).name if target == "train" else "train.lock",
    }
    options = [part for name, value in values.items() for part in ("--build-arg", f"{name}={value}")]
    print(f"images: building graftline/{target}", flush=True)
    command = ["docker", "build", "--quiet", "--network", "host", "--target", target, *options]
    command += ["--file", "components/Dockerfile", "--tag", f"graftline/{target}", "."]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["docker", "tag", f"graftline/{target}", local_tag(target, image_id(target))], check=True)
    path = ROOT / "build/sbom" / f"{target}.cdx.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, sbom(target, locked(target, cuda=cuda)).encode())
    print(f"images: graftline/{target}: {size(target) / 1e9:.2f} GB, {image_id(target)}", flush=True)


def locked(target: str, *, cuda: bool) -> Path:
    """Return the lock that an image is installed from."""
    return ROOT / "components" / ("train-cuda.lock" if cuda and target == "train" else f"{target}.lock")


def image_id(target: str) -> str:
    """Return `sha256:<64 hex>` of the image that was built last."""
    return _inspect(f"graftline/{target}", "{{.Id}}")


def size(target: str) -> int:
    """Return an image's size in bytes."""
    return int(_inspect(f"graftline/{target}", "{{.Size}}"))


def push(target: str, registry: str) -> str:
    """Push an image; return the name that pins it there."""
    name = f"{registry}/graftline/{target}"
    subprocess.run(["docker", "tag", f"graftline/{target}", name], check=True)
    subprocess.run(["docker", "push", "--quiet", name], check=True, stdout=subprocess.DEVNULL)
    digests = json.loads(_inspect(name, "{{json .RepoDigests}}"))
    return next(digest for digest in digests if digest.startswith(f"{name}@"))


def _inspect(name: str, template: str) -> str:
    command = ["docker", "image", "inspect", "--format", template, name]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def lock(path: Path, images: dict[str, str], which: str) -> None:
    """Write an images.lock."""
    head = f"# The images {which}; made by tools/images.py. Nothing else names an image.\nimages:\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (head + "".join(f"  {target}: {name}\n" for target, name in images.items())).encode())
    print(f"images: wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
