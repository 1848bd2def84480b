"""A task's data as a run names it: repository, revision, and one digest over raw data and contract."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile, copytree
from tempfile import TemporaryDirectory
from urllib.parse import quote, urlsplit

from graftline.canonical import canonical_json
from graftline.digests import digest_path, sha256_bytes
from graftline.environment import ROOT
from graftline.errors import GraftlineError, InputError
from graftline.git import git

WORK_TREE = "work-tree"
"""In place of a revision: the folder as it is, committed or not."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def data_digest(raw: Path, expectations: Path) -> str:
    """Return the sha256 that names raw data and contract together, over every byte of both."""
    return sha256_bytes(canonical_json({"raw": digest_path(raw), "expectations": digest_path(expectations)}))


def committed_revision(task: str) -> str:
    """Return the commit that is checked out, which must hold the task's data as it is here.

    Raises:
        InputError: the pointer, the contract or DVC's remotes differ from the commit: a cluster clones the commit.
    """
    if changed := git(ROOT, "status", "--porcelain", "--", *_places(task)):
        raise InputError(
            ROOT / changed.splitlines()[0].split(maxsplit=1)[1],
            "differs from the commit that is checked out",
            fix="commit and push it: a cluster clones the commit",
        )
    return git(ROOT, "rev-parse", "--verify", "HEAD")


def data_revision(task: str, root: Path) -> str:
    """Return the commit that last changed the task's pointer, its contract or DVC's remotes.

    A run is told this one: its first steps then say the same for as long as the data is the same, and Kubeflow's cache
    knows them. Raises InputError.
    """
    last = git(root, "log", "-1", "--format=%H", "--", *_places(task))
    return last or git(root, "rev-parse", "--verify", "HEAD")


def _places(task: str) -> tuple[str, ...]:
    return f"data/{task}/raw.dvc", f"data/{task}/expectations.yaml", ".dvc/config"


def bring(repository: str, revision: str, task: str, raw: Path, expectations: Path) -> None:
    """Copy a task's raw data into the empty folder `raw` and its contract to `expectations`.

    Args:
        repository: address of a git repository, or a folder with one.
        revision: a commit, or `work-tree` for a folder as it is.
        task: the folder under data/.
        raw: an empty folder.
        expectations: a file to be.

    Raises:
        InputError: there is no such repository, revision or task, or no remote holds the data.
        GraftlineError: the repository or the remote could not be reached.
    """
    if revision == WORK_TREE:
        _copy(Path(repository), task, raw, expectations)
        return
    with _cloned(repository, revision) as clone, _said(f"{repository} at {revision}"):
        contract = clone / "data" / task / "expectations.yaml"
        if not contract.is_file():
            raise InputError(f"{repository} at {revision}", f"no data/{task}", fix="check revision and task")
        expectations.write_bytes(contract.read_bytes())
        _read_through_dvc(clone, f"data/{task}/raw", raw)


def _copy(folder: Path, task: str, raw: Path, expectations: Path) -> None:
    source = folder / "data" / task
    for path in (source / "raw", source / "expectations.yaml"):
        if not path.exists():
            raise InputError(path, "does not exist", fix="fetch the data with `dvc pull`, or check the path")
    copytree(source / "raw", raw, dirs_exist_ok=True, copy_function=copyfile)
    copyfile(source / "expectations.yaml", expectations)


@contextmanager
def _cloned(repository: str, revision: str) -> Iterator[Path]:
    """Clone a repository to a temporary folder and check a revision out; without a `git` command.

    A folder is cloned like any other repository: it may be read-only, and its work tree does not matter. The clone
    holds the small DVC remote that lies in git, so no network is needed for it.
    """
    from dulwich.client import HTTPUnauthorized
    from scmrepo.exceptions import SCMError
    from scmrepo.git import Git

    folder = Path(repository)
    address = folder.absolute().as_uri() if folder.is_dir() else with_token(repository)
    with TemporaryDirectory(prefix="graftline-clone-") as place:
        try:
            Git.clone(address, place, rev=revision).close()
        except (SCMError, HTTPUnauthorized, OSError) as error:
            raise _unreachable(f"{repository} at {revision}", error, hide=address) from None
        yield Path(place)


def with_token(repository: str) -> str:
    """Return the address with the token of $GRAFTLINE_GIT_TOKEN in it, if it is at $GRAFTLINE_GIT_ORIGIN.

    A run names its repository freely: the token of the fork's own must not go elsewhere, nor in the clear.
    """
    token, trusted = (os.environ.get(f"GRAFTLINE_GIT_{name}", "") for name in ("TOKEN", "ORIGIN"))
    if not token or not trusted or origin(repository) != trusted:
        return repository
    scheme, _, rest = repository.partition("://")
    return f"{scheme}://x-access-token:{quote(token, safe='')}@{rest}"


def origin(repository: str) -> str:
    """Return `https://HOST[:PORT]` of an address that a token may be sent to; "" for any other.

    Plain http is for this machine only. An address with a user in it brings its own credentials.
    """
    try:
        parts = urlsplit(repository)
    except ValueError:  # such as half an IPv6 address
        return ""
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    return f"{parts.scheme}://{parts.netloc.lower()}" if safe and "@" not in parts.netloc else ""


def _read_through_dvc(clone: Path, source: str, target: Path) -> None:
    """Copy a folder that DVC tracks: each file is read from DVC's remote, with no cache between."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(str(clone))
    for path in sorted(files.find(source)):
        out = target / Path("/", path).relative_to(Path("/", source))
        out.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(path, str(out))


@contextmanager
def _said(where: str) -> Iterator[None]:
    """Turn what goes wrong inside DVC into one line."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    try:
        yield
    except (DvcException, DataIndexDirError, OSError) as error:
        raise _unreachable(where, error) from None


def _unreachable(where: str, error: BaseException, hide: str = "") -> GraftlineError:
    """Return a failure that may pass: the repository, the revision or the data cannot be reached now.

    `hide` is an address with a token in it, which a library's message may quote.
    """
    causes = [error]
    while following := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(following)
    texts = dict.fromkeys(" ".join(str(cause).split()) or type(cause).__name__ for cause in causes)
    said = ": ".join(texts)
    if token := os.environ.get("GRAFTLINE_GIT_TOKEN", ""):
        for secret in (hide, quote(token, safe=""), token):
            said = said.replace(secret, "...") if secret else said
    return GraftlineError(f"{where}: {said[:400]}")
