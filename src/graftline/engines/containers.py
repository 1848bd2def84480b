"""The container engine: the Kubeflow graph on this machine, by kfp's DockerRunner, in the images that were built here.

Containers run as on a cluster: not as root, with a read-only root file system, no capabilities, limited memory, and no
network unless the store is one; the key that they sign with is mounted for reading. kfp's runner may lose the log and
the exit code of a short container, and takes a lost one for 0: a shell in front of each component keeps both, and a run
counts as done only when every output is there with its record.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.engines.local import StageError, StageRun
from graftline.environment import ROOT
from graftline.errors import EXIT_REFUSED, InputError
from graftline.params import COMPONENTS
from graftline.records import read_execution, verify
from graftline.signing.mounting import keys_for_mounting

if TYPE_CHECKING:
    from graftline.pipelines.images import Images

OUTPUTS = ROOT / "build/docker"
_LOGS = "logs"
_FETCH = "fetch"
MEMORY = "8g"
"""Limit of each container."""
USER = 10001
"""The images' own user, for a caller who is root."""
_DATA, _STORE, _KEYS = "/repository", "/store", "/keys"
_RUN_LABEL = "graftline.run"
_KEPT = """log=$0/$4; { "$@" 2>&1; echo $? >"$log.status"; } | tee "$log"; exit "$(cat "$log.status")\""""
"""Started as `sh -c _KEPT FOLDER python -m graftline.pipelines.step NAME ...`: writes log and exit code there."""
_CREDENTIALS = (
    "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION",
)  # fmt: skip


def run(task: str, *, store_url: str) -> None:
    """Run all stages of `task` in containers; put their outputs into OUTPUTS/<task>, in the place of an earlier run's.

    Args:
        store_url: where releases live: a folder, or an S3 address, which the containers then reach.

    Raises:
        InputError: docker or the images are not there, or a parameter is wrong.
        StageError: a component failed, which it says itself, or the gate refused; then the outputs are kept too.
    """
    from graftline.pipelines.compile import component_params
    from graftline.pipelines.data import WORK_TREE, task_digest
    from graftline.pipelines.images import BUILT, load_images

    if not BUILT.exists():
        raise InputError(BUILT.relative_to(ROOT), "no images were built here", fix="make images")
    images = load_images(BUILT)
    _check(images)
    arguments = component_params(task) | {
        "task": task, "repository": _DATA, "revision": WORK_TREE, "data_digest": task_digest(task),
        "store": store_url if _remote(store_url) else _STORE,
    }  # fmt: skip
    _make_subjects_key(task, store_url)
    work = OUTPUTS / f".{task}"
    shutil.rmtree(work, ignore_errors=True)
    keys = OUTPUTS / f".{task}.keys"
    owner = USER if os.getuid() == 0 else None
    with keys_for_mounting(keys, _KEYS, user=owner) as named, _umask(0):
        # the containers' user writes beside what kfp makes
        (work / _LOGS).mkdir(parents=True)
        limits = _limits(task, store_url, work / _LOGS, keys)
        said = _execute(_graph(images, named), arguments, work, limits)
    stopped = next((step for step in (_FETCH, *COMPONENTS) if not _is_done(work, step)), said)
    # A step that says 0 and leaves no whole output has failed all the same.
    status = _status(work / _LOGS / stopped) or 1 if stopped else 0
    if status in (0, EXIT_REFUSED):
        _keep(work, OUTPUTS / task)
    if status:
        raise StageError(stopped, status)


def outcome(task: str) -> list[StageRun]:
    """Return what became of each stage of the run whose outputs were kept."""
    folders = {name: OUTPUTS / task / _output_name(name) for name in COMPONENTS}
    return [
        StageRun(name, "ran", read_execution(folder)["seconds"])
        if folder.exists()
        else StageRun(name, "refused", None)
        for name, folder in folders.items()
    ]


def _make_subjects_key(task: str, store_url: str) -> None:
    """Have the key for persons' ids ready to be mounted if the task has some: validate cannot make it in there.

    Raises:
        InputError: it cannot be made, or is not the one that persons were erased with.
    """
    from graftline.components.validate.contract import load_contract
    from graftline.components.validate.erased import subjects_key
    from graftline.rows.blocklist import read_blocklist
    from graftline.store import open_store

    try:
        contract = load_contract(ROOT / "data" / task / "expectations.yaml")
    except InputError:
        return  # validate says what is wrong with it, and its log is kept
    if contract.subject is not None:
        subjects_key(contract, read_blocklist(open_store(store_url), task))


def _remote(store_url: str) -> bool:
    return "://" in store_url


def _check(images: Images) -> None:
    """Raise InputError if docker does not answer or lacks an image."""
    import docker

    from graftline.pipelines.images import digest, local_tag

    try:
        client = docker.from_env()
        for target, image in images.model_dump().items():
            client.images.get(local_tag(target, digest(image)))
        client.close()
    except docker.errors.ImageNotFound:
        raise InputError("docker", "an image that was built here is gone", fix="make images") from None
    except docker.errors.DockerException as error:
        raise InputError("docker", f"does not answer: {error}", fix="start the docker daemon") from None


def _graph(images: Images, keys: dict[str, str]) -> str:
    """Return the pipeline's IR with the images of this machine, and what each container is told of image and keys."""
    import tempfile

    import yaml
    from kfp.compiler import Compiler

    from graftline.pipelines.images import digest, load_images, local_tag
    from graftline.pipelines.retrain import retrain
    from graftline.yamlfile import parse_yaml

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        Compiler().compile(retrain, str(path))
        graph = parse_yaml(path.read_text(), where="pipelines/retrain.py")
    built = images.model_dump()
    targets = {image: target for target, image in load_images().model_dump().items()}
    for executor in graph["deploymentSpec"]["executors"].values():
        container = executor["container"]
        target = targets[container["image"]]
        container["image"] = local_tag(target, digest(built[target]))
        variables = {
            "GRAFTLINE_ENGINE": "docker",
            "GRAFTLINE_IMAGE": digest(built[target]),
            "GRAFTLINE_RUN": "docker",
        }
        variables |= keys | {name: os.environ[name] for name in _CREDENTIALS if name in os.environ}
        container["env"] = [{"name": name, "value": value} for name, value in variables.items()]
    return yaml.safe_dump(graph)


def _limits(task: str, store_url: str, logs: Path, keys: Path) -> dict[str, Any]:
    """Return how docker starts each container, and what it allows it."""
    from docker.types import Mount

    root = os.getuid() == 0
    mounts = [
        Mount(f"{_DATA}/data/{task}", str(ROOT / "data" / task), type="bind", read_only=True),
        Mount(_KEYS, str(keys), type="bind", read_only=True),
    ]
    if not _remote(store_url):
        folder = Path(store_url)
        folder.mkdir(parents=True, exist_ok=True)
        if root:
            _give(folder)
        mounts.append(Mount(_STORE, str(folder), type="bind"))
    return {
        "entrypoint": ["/bin/sh", "-c", _KEPT, str(logs)],
        "labels": {_RUN_LABEL: str(logs)},
        "user": f"{USER}:{USER}" if root else f"{os.getuid()}:{os.getgid()}",
        "read_only": True, "network_mode": "host" if _remote(store_url) else "none", "mem_limit": MEMORY,
        "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "pids_limit": 1024, "shm_size": "1g",
        "tmpfs": {"/tmp": "size=4g,mode=1777"}, "mounts": mounts,  # noqa: S108  (in the container)
    }  # fmt: skip


def _give(folder: Path) -> None:
    """Let the containers' user write in a folder of root's, who may still do so as well."""
    for path in [folder, *folder.rglob("*")]:
        os.lchown(path, USER, USER)


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _execute(graph: str, arguments: dict[str, str], root: Path, limits: dict[str, Any]) -> str:
    """Run the pipeline; return the step at which it failed by kfp's words, "the pipeline" if it names none, or ""."""
    from kfp import components, local

    local.init(local.DockerRunner(**limits), pipeline_root=str(root), raise_on_error=True)
    try:
        components.load_component_from_text(graph)(**arguments)
    except (RuntimeError, ValueError) as error:  # ValueError: a step has no output, though it ended with 0
        found = re.search(r"Inner task failed: '?([\w-]+)", str(error))
        return found[1] if found else "the pipeline"
    finally:
        _stop(limits["labels"])
    return ""


def _stop(labels: dict[str, str]) -> None:
    """End what an interrupted run has left: kfp does not."""
    import docker

    client = docker.from_env()
    for container in client.containers.list(filters={"label": [f"{k}={v}" for k, v in labels.items()]}):
        container.kill()
    client.close()


def _status(log: Path) -> int:
    """Return the exit code that a step's shell wrote; 1 if it was killed, or never started.

    The end of its log is printed again: kfp may have lost all of it.
    """
    if log.exists():
        print(
            "".join(log.read_text(errors="replace").splitlines(keepends=True)[-5:]), end="", file=sys.stderr
        )
    status = log.with_suffix(".status")
    return int(status.read_text() or 1) if status.exists() else 1


def _is_done(root: Path, step: str) -> bool:
    """Return whether a step ended with 0 and its output is there, every byte as its record says."""
    status = root / _LOGS / f"{step}.status"
    if not status.exists() or status.read_text().strip() != "0":
        return False
    try:
        if step != _FETCH:
            verify(_output(root, step))
    except (InputError, StopIteration):
        return False
    return True


def _output(root: Path, name: str) -> Path:
    """Return where kfp put a component's output. Raises StopIteration if it is not there."""
    return next(root.glob(f"*/{name}/{_output_name(name)}"))


def _output_name(name: str) -> str:
    return str(import_module(f"graftline.components.{name}").COMPONENT.output)


def _keep(work: Path, folder: Path) -> None:
    """Put the outputs of a run where those of the last one were."""
    done = [name for name in COMPONENTS if _is_done(work, name)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in done:
        _output(work, name).rename(folder / _output_name(name))
    shutil.rmtree(work)
