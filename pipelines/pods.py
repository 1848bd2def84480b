"""What a step's pod asks for on a cluster: a profile's machine, credentials, labels, and a place to write.

    apply(task, pod, ...)      the pool: node, accelerators, memory, retries, time
    secure(task, name, ...)    the same for every step: user, secret, labels, environment

None of it enters a record: the same step on another pool makes the same bytes (within a determinism tuple).

kfp-kubernetes has no way to say `readOnlyRootFilesystem`; an optional admission policy does
(infra/components/read-only-root). The backend itself drops all capabilities, forbids privilege escalation and sets
the seccomp profile.
"""

from __future__ import annotations

import json
import math
from typing import Any

from graftline.pipelines.data import origin
from graftline.pipelines.images import digest
from graftline.pipelines.settings import Settings
from graftline.profiles import TRAINING, Affinity, Pod

DISTRIBUTED = ("pretrain", "finetune")
"""The components that torchrun may start as several processes."""
TASK_LABEL = "graftline.dev/task"
RUN_LABEL = "graftline.dev/run"
# Kubeflow's API server replaces this by the run's id, a UUID: another for every run, whoever started it, and the same
# however often a step of it is tried. A label cannot hold a parameter's value, such as that of `run_key`, and a run's
# name is free text in the UI. https://github.com/kubeflow/pipelines/blob/master/backend/src/common/util/workflow.go
_RUN_ID = "{{workflow.uid}}"
KEYS = "/var/run/secrets/graftline/keys"
"""Where the stages, and the pods of their TrainJobs (infra/components/trainer), see the keyring."""
_UNSIGNED = ("fetch", "conclude")
"""The steps that write no record: they are not given a key."""
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_ENDPOINT = "AWS_ENDPOINT_URL"


def apply(task: Any, pod: Pod, launcher: Pod, settings: Settings) -> None:
    """Ask for what a profile's pod says: where, how much, how long, how often again.

    A stage on several nodes, or on machines that may be taken away, is a TrainJob that a small pod starts and follows:
    Kubeflow Pipelines counts every failure alike, a TrainJob's launcher keeps a budget for pre-emptions of its own.

    Args:
        task: a step of the pipeline (`kfp.dsl.PipelineTask`).
        pod: of the profile that the step runs on.
        launcher: of the profile that such a small pod runs on.
        settings: says how long a run may take.
    """
    if _launched(task, pod):
        _launch(task, pod, settings)
        _ask(task, launcher)
        _limit(task, launcher, settings.deadline_hours * 3600)  # queueing and every attempt
        return
    if pod.accelerators > 1 and task.name in DISTRIBUTED:
        _spread(task, pod.accelerators)
    _ask(task, pod)
    _limit(task, pod, round(pod.timeout_hours * 3600))


def _launched(task: Any, pod: Pod) -> bool:
    several = pod.nodes > 1 and task.name in DISTRIBUTED
    return several or (pod.retries.preemptions > 0 and pod.nodes == 1 and task.name in TRAINING)


def _launch(task: Any, pod: Pod, settings: Settings) -> None:
    """Have the step start a TrainJob of its own component, and follow it."""
    command, image = task.container_spec.command, task.container_spec.image
    component = command[-1].rpartition(".")[2]
    asked = json.dumps(pod.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    task.container_spec.command = [
        "python", "-m", "graftline.pipelines.trainjob", "--image", image, "--namespace", settings.namespace,
        "--pod", asked, component,
    ]  # fmt: skip


def _spread(task: Any, processes: int) -> None:
    """Have torchrun start one process an accelerator."""
    module = task.container_spec.command[-1]
    run = ["python", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    task.container_spec.command = [*run, "-m", module]


def _ask(task: Any, pod: Pod) -> None:
    from kfp import kubernetes

    task.set_cpu_request(f"{pod.cpu:g}").set_cpu_limit(f"{pod.cpu:g}")
    task.set_memory_request(f"{pod.memory_gib}Gi").set_memory_limit(f"{pod.memory_gib}Gi")
    if pod.resource:
        task.set_accelerator_type(pod.resource).set_accelerator_limit(pod.accelerators)
    for key, value in sorted(pod.node_selector.items()):
        kubernetes.add_node_selector(task, key, value)
    for toleration in pod.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
    for affinity in pod.affinity:
        _add_affinity(task, affinity)
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=f"{pod.shm_gib}Gi")  # noqa: S108  (a mount)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=f"{pod.tmp_gib}Gi")  # noqa: S108  (a mount)


def _limit(task: Any, pod: Pod, timeout_seconds: int) -> None:
    """Say how long each start may take, and how often and when there is another one.

    Kubeflow's `backoff_max_duration` is Argo's `maxDuration`: it counts from the first start, the time that the pods
    run included, and ends the last one. So it is given the time that all of them may take.
    https://argo-workflows.readthedocs.io/en/latest/fields/#backoff
    """
    from kfp import kubernetes

    kubernetes.set_timeout(task, timeout_seconds)
    retries = pod.retries
    if retries.limit:
        waits = sum(retries.wait(number) for number in range(1, retries.limit + 1))
        longest = (retries.limit + 1) * timeout_seconds + math.ceil(waits)
        task.set_retry(retries.limit, f"{retries.backoff_seconds}s", retries.factor, f"{longest}s")


def _add_affinity(task: Any, affinity: Affinity) -> None:
    from kfp import kubernetes

    expression = {"key": affinity.key, "operator": affinity.operator, "values": list(affinity.values)}
    kubernetes.add_node_affinity(task, match_expressions=[expression], weight=affinity.weight)


def secure(task: Any, name: str, settings: Settings) -> None:
    """Say what every step has in common.

    Args:
        task: a step of the pipeline (`kfp.dsl.PipelineTask`).
        name: of the task under data/, for the pods' label.
        settings: names the user and the secrets.
    """
    from kfp import kubernetes

    kubernetes.set_security_context(
        task, run_as_user=settings.user, run_as_group=settings.user, run_as_non_root=True
    )
    kubernetes.use_secret_as_env(task, settings.store_secret, {key: key for key in _CREDENTIALS})
    # A store at AWS itself has no endpoint in the secret; a missing key would keep the pod from starting.
    kubernetes.use_secret_as_env(task, settings.store_secret, {_ENDPOINT: _ENDPOINT}, optional=True)
    if task.name not in _UNSIGNED:
        # Optional: a pod without it would wait for ever, a stage without a key says so in one line and ends with 2.
        kubernetes.use_secret_as_volume(task, settings.signing_secret, KEYS, optional=True)
        task.set_env_variable("GRAFTLINE_KEYS", KEYS)
    if task.name == "fetch":
        kubernetes.use_secret_as_env(
            task, settings.git_secret, {"token": "GRAFTLINE_GIT_TOKEN"}, optional=True
        )
        if trusted := origin(settings.repository):
            task.set_env_variable("GRAFTLINE_GIT_ORIGIN", trusted)
    kubernetes.add_pod_label(task, TASK_LABEL, name)
    kubernetes.add_pod_label(task, RUN_LABEL, _RUN_ID)
    kubernetes.use_field_path_as_env(task, "GRAFTLINE_RUN", f"metadata.labels['{RUN_LABEL}']")
    task.set_env_variable("GRAFTLINE_ENGINE", "kubeflow")
    task.set_env_variable("GRAFTLINE_IMAGE", digest(task.container_spec.image))
