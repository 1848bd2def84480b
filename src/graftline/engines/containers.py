"""The container engine: the compiled Kubeflow pipeline on this machine, in the images that were built here.

The pipeline is the one that a cluster is given, walked by `backend` as a cluster walks it. What differs is where steps
run: there are no pools and no TrainJobs, so each step does its work in its own container, without a second try.
Containers run as on a cluster: not as root, with a read-only root file system, no capabilities, limited memory, and no
network unless the store is one; the key that they sign with is mounted for reading.

Artifacts and the cache lie under OUTPUTS/.<task>: what a run needs of earlier ones, and no more.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline import runs
from graftline.digests import RECORD
from graftline.ending import close
from graftline.engines import launcher
from graftline.engines.backend import DONE, Backend, Pod
from graftline.engines.local import StageError, StageRun, task_digest
from graftline.environment import ROOT
from graftline.errors import EXIT_REFUSED, GraftlineError, InputError
from graftline.images import BUILT, Images, digest, load_images, local_tag
from graftline.pipelines.pods import KEYS
from graftline.pipelines.step import PLAN
from graftline.pipelines.trainjob.manifest import RUN_LABEL
from graftline.profiles import TRAINING
from graftline.records.folder import read_execution, verify
from graftline.rows.blocklist import read_blocklist
from graftline.signing.mounting import keys_for_mounting
from graftline.store import Store
from graftline.store.opening import open_store
from graftline.task_data import WORK_TREE
from graftline.tasks.parameters import COMPONENTS

if TYPE_CHECKING:
    import docker


OUTPUTS = ROOT / "build/docker"
MEMORY = "8g"
"""Limit of each container."""
USER = 10001
"""The images' own user, for a caller who is root."""
_DATA, _STORE, _LAUNCHER = "/repository", "/store", "/kfp-launcher/launch"
_TAKEN_AWAY = 137
"""SIGKILL of the container as a whole: for want of memory, the kernel kills the step in it, and the launcher says 1."""
_STATES = "states.json"
"""In the outputs: the state of each stage, and the run."""
_CREDENTIALS = (
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
)


def run(task: str, *, store_url: str, on_step: Callable[[str, str], None] = lambda step, event: None) -> None:
    """Run a task's pipeline in containers; put its outputs into OUTPUTS/<task>, in the place of an earlier run's.

    Args:
        task: the folder under data/.
        store_url: where releases live: a folder, or an S3 address, which the containers then reach.
        on_step: called with a step's name and `started`, or how it ended (backend.State).

    Raises:
        InputError: docker or the images are not there, or a parameter is wrong.
        StageError: a component failed, which it says itself, or the gate refused; then the outputs are kept too.
        KeyboardInterrupt: the run was stopped; the next one goes on from its checkpoints.
    """
    from graftline.pipelines.compile import compiled

    pipeline = compiled(task)
    images = built_images()
    _make_subjects_key(task, store_url)
    work = OUTPUTS / f".{task}"
    parameters = pipeline.parameters | {
        "repository": _DATA,
        "revision": WORK_TREE,
        "data_digest": task_digest(task),
        "version": pipeline.version,
        "store": seen_store(store_url),
        "reason": json.dumps({"kind": "run"}),
    }
    owner = USER if os.getuid() == 0 else None
    with keys_for_mounting(OUTPUTS / f".{task}.keys", KEYS, user=owner) as keys:
        machine = Machine(task, store_url, OUTPUTS / f".{task}.keys", keys)

        def start(pod: Pod) -> int | None:
            # A stopped run is closed here: its exit handler would know no more than that it did not succeed.
            return 1 if backend.cancelled.is_set() else machine.start(pod)

        backend = Backend(placed(pipeline.spec, images), work, start, on_step=on_step, whole=_whole)
        try:
            backend.run(parameters)
        finally:
            machine.close(backend.id)
    store = open_store(store_url)
    if backend.cancelled.is_set():
        if begun := runs.begun(store, backend.id):
            close(store, begun, "CANCELED")
        raise KeyboardInterrupt
    stopped, status = _stopped(backend, store)
    if status in (0, EXIT_REFUSED):
        _keep(backend, OUTPUTS / task)
    if stopped:
        raise StageError(stopped, status)


def outcome(task: str) -> list[StageRun]:
    """Return what became of each stage of the run whose outputs were kept."""
    states = json.loads((OUTPUTS / task / _STATES).read_bytes())
    return [
        StageRun(
            name,
            "restored" if states[name] == "CACHED" else "ran",
            read_execution(OUTPUTS / task / _output_name(name))["seconds"] if states[name] == "COMPLETE" else None,
        )
        if name in states
        else StageRun(name, "refused", None)
        for name in COMPONENTS
    ]


def built_images() -> Images:
    """Return the images that were built here. Raises InputError if there are none, or docker does not answer."""
    import docker

    if not BUILT.exists():
        raise InputError(BUILT.relative_to(ROOT), "no images were built here", fix="make images")
    images = load_images(BUILT)
    try:
        client = docker.from_env()
        for target, image in images.model_dump().items():
            client.images.get(local_tag(target, digest(image)))
        client.close()
    except docker.errors.ImageNotFound:
        raise InputError("docker", "an image that was built here is gone", fix="make images") from None
    except docker.errors.DockerException as error:
        raise InputError("docker", f"does not answer: {error}", fix="start the docker daemon") from None
    return images


def placed(
    spec: Mapping[str, Any],
    images: Images,
    *,
    retries: Mapping[str, Any] | None = None,
    checkpoint_seconds: float | None = None,
) -> dict[str, Any]:
    """Return a compiled pipeline for this machine: the images that were built here, each step in its own container.

    Args:
        spec: `pipelineSpec` and `platformSpec`, with the images of images.lock.
        images: what takes their place.
        retries: what each step is told of its tries, as in profiles.yaml; one try by default.
        checkpoint_seconds: between checkpoints; as on a cluster by default (settings.yaml).
    """
    from graftline.settings import load_settings

    here, built = deepcopy(dict(spec)), images.model_dump()
    targets = {image: target for target, image in load_images().model_dump().items()}
    for label, executor in here["pipelineSpec"]["deploymentSpec"]["executors"].items():
        container = executor["container"]
        target = targets[container["image"]]
        container["image"] = local_tag(target, digest(built[target]))
        told: dict[str, Any] = {"retries": retries} if retries else {}
        if label.removeprefix("exec-") in TRAINING:
            told["checkpoint_seconds"] = checkpoint_seconds or load_settings().checkpoint_seconds
        variables = {each["name"]: each["value"] for each in container["env"]} | {
            PLAN: json.dumps(told),
            "GRAFTLINE_ENGINE": "docker",
            "GRAFTLINE_IMAGE": digest(built[target]),
        }
        container["env"] = [{"name": name, "value": value} for name, value in variables.items()]
    return here


def seen_store(store_url: str) -> str:
    """Return a store's address as the containers see it."""
    return store_url if _remote(store_url) else _STORE


class Machine:
    """This machine's docker: starts pods."""

    def __init__(self, task: str, store_url: str, keys: Path, named: Mapping[str, str]) -> None:
        """Prepare to start the pods of a task's run.

        Args:
            task: its data is mounted.
            store_url: an address, or a folder, which is made and mounted.
            keys: the folder to mount as the signing secret.
            named: the variables that go with it.
        """
        import docker

        self._client: docker.DockerClient = docker.from_env()
        self._root, self._remote = os.getuid() == 0, _remote(store_url)
        self._keys, self._named = keys, dict(named)
        self._mounts = {ROOT / "data" / task: (f"{_DATA}/data/{task}", True)}
        self._credentials = {name: os.environ[name] for name in _CREDENTIALS if name in os.environ}
        if not self._remote:
            Path(store_url).mkdir(parents=True, exist_ok=True)
            self._give(Path(store_url))
            self._mounts[Path(store_url)] = (_STORE, False)

    def start(self, pod: Pod) -> int | None:
        """Run a pod's container, showing what it says; return its exit code, None if it was taken away.

        Raises:
            KeyboardInterrupt: Ctrl-C; the container was signalled and has ended.
            GraftlineError: docker does not start it.
        """
        import docker

        try:
            container = self._create(pod)
            container.start()
        except docker.errors.DockerException as error:
            raise GraftlineError(f"docker: {pod.step} cannot be started: {error}") from None
        try:
            for line in container.logs(stream=True, follow=True):
                sys.stderr.write(line.decode(errors="replace"))
                sys.stderr.flush()
            code = int(container.wait()["StatusCode"])
            return None if code == _TAKEN_AWAY else code
        except docker.errors.NotFound:
            return None
        except KeyboardInterrupt:
            self.cancel(pod.run)
            _quietly(container.wait, timeout=3)
            raise
        finally:
            _quietly(container.remove, force=True)

    def cancel(self, run: str) -> None:
        """Send SIGTERM to the containers of a run, as a cluster does when a run is cancelled or its pod deleted."""
        for container in self._of(run):
            _quietly(container.kill, signal="SIGTERM")

    def close(self, run: str) -> None:
        """Remove what a run may have left."""
        for container in self._of(run):
            _quietly(container.remove, force=True)
        self._client.close()

    def _of(self, run: str) -> list[docker.models.containers.Container]:
        return list(self._client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={run}"}))

    def _create(self, pod: Pod) -> docker.models.containers.Container:
        from docker.types import Mount

        mounts = dict(self._mounts) | {Path(launcher.__file__): (_LAUNCHER, True)}
        mounts |= {path: (place, True) for path, place in pod.inputs.items()}
        mounts |= {path: (place, False) for path, place in pod.outputs.items()}
        env = pod.env | self._credentials
        for secret in pod.secrets:
            mounts[self._keys] = (secret["mountPath"], True)
            env |= self._named
        for path in pod.outputs:
            self._give(path)
        return self._client.containers.create(
            pod.image, entrypoint=["python", _LAUNCHER, pod.log], command=pod.command, name=pod.name,
            environment=env, labels=pod.labels,
            mounts=[Mount(place, str(path), type="bind", read_only=fixed) for path, (place, fixed) in mounts.items()],
            user=f"{USER}:{USER}" if self._root else f"{os.getuid()}:{os.getgid()}",
            read_only=True, network_mode="host" if self._remote else "none", mem_limit=MEMORY, cap_drop=["ALL"],
            security_opt=["no-new-privileges"], pids_limit=1024, shm_size="1g",
            tmpfs={"/tmp": "size=4g,mode=1777"},  # noqa: S108  (in the container)
        )  # fmt: skip

    def _give(self, folder: Path) -> None:
        """Let the containers' user write in a folder of root's, who may still do so as well."""
        if self._root:
            for path in [folder, *folder.rglob("*")]:
                os.lchown(path, USER, USER)


def _quietly(call: Callable[..., Any], **options: Any) -> None:
    """Call docker about a container that may be gone."""
    import docker

    with suppress(docker.errors.APIError, OSError):  # the latter if it takes longer than `timeout`
        call(**options)


def _make_subjects_key(task: str, store_url: str) -> None:
    """Have the key for persons' ids ready to be mounted if the task has some: validate cannot make it in there.

    Raises:
        InputError: it cannot be made, or is not the one that persons were erased with.
    """
    from graftline.values.contract import load_contract
    from graftline.values.erased import subjects_key

    try:
        contract = load_contract(ROOT / "data" / task / "expectations.yaml")
    except InputError:
        return  # validate says what is wrong with it
    if contract.subject is not None:
        subjects_key(contract, read_blocklist(open_store(store_url), task))


def _remote(store_url: str) -> bool:
    return "://" in store_url


def _stopped(backend: Backend, store: Store) -> tuple[str, int]:
    """Return the step at which a run stopped and its exit code by its own word; "" and 0 if it did all.

    The back end knows no code but its launcher's 1. A step that says 0 and leaves no whole output has failed all the
    same.
    """
    for name in ("claim", "fetch", *COMPONENTS):
        execution = backend.executions.get(name)
        if execution is None or execution.state not in DONE:
            said = runs.attempts(store, backend.id, name)
            return name, (said[-1].code if said else 0) or 1
        if name in COMPONENTS:
            try:
                verify(_folder(backend, name))
            except InputError:
                return name, 1
    return "", 0


def _folder(backend: Backend, name: str) -> Path:
    """Return where a stage's output lies."""
    return backend.path(backend.executions[name].artifacts[_output_name(name)]["uri"])


def _whole(path: Path) -> bool:
    """Return whether an artifact is as its record says, if it has one."""
    try:
        if (path / RECORD).exists():
            verify(path)
    except InputError:
        return False
    return path.exists()


def _output_name(name: str) -> str:
    return str(import_module(f"graftline.components.{name}").COMPONENT.output)


def _keep(backend: Backend, folder: Path) -> None:
    """Put a run's outputs where those of the last one were, and drop what no cached step of it needs.

    They are linked, not copied: the same files are the cache's. A change by hand is found, as with every input.
    """
    done = {name: one.state for name, one in backend.executions.items() if one.state in DONE}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COMPONENTS:
        if name in done:
            shutil.copytree(_folder(backend, name), folder / _output_name(name), copy_function=os.link)
    (folder / _STATES).write_text(json.dumps(done), encoding="utf-8")
    backend.forget_others()
