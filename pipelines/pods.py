"""What a step's pod asks for on a cluster: a profile's machine, credentials, labels, and a place to write.

    apply(task, pod, ...)      the pool: node, accelerators, memory, retries, time
    secure(task, name, ...)    the same for every step: user, secret, labels, environment

None of it enters a record: the same step on another pool makes the same bytes (within a determinism tuple).

kfp-kubernetes has no way to say `readOnlyRootFilesystem`; an optional admission policy does
(infra/components/read-only-root). The backend itself drops all capabilities, forbids privilege escalation and sets
the seccomp profile. kfp is imported where it is used: the names here are for the cluster's own pods too.
"""

from __future__ import annotations

import json
import math
from typing import Any

from graftline.executor_input import RUN_ID
from graftline.images import digest
from graftline.pipelines.step import PLAN, Plan
from graftline.pipelines.trainjob.manifest import RUN_LABEL
from graftline.profiles import TRAINING, Pod, Requests
from graftline.settings import Settings
from graftline.task_data import origin

DISTRIBUTED = ("pretrain", "finetune")
"""The components that torchrun may start as several processes."""
TASK_LABEL = "graftline.dev/task"
KEYS = "/var/run/secrets/graftline/keys"
"""Where the stages, and the pods of their TrainJobs (infra/components/trainer), see the keyring."""
_UNSIGNED = ("claim", "fetch", "conclude")
"""The steps that write no record: they are not given a key."""
_SLIGHT = ("claim", "conclude")
"""The steps that ask for a corner of any node: conclude's pod must leave Pending within some 10 s of a cancel, or no
end is recorded."""
_MARGIN_SECONDS = 600
"""So that the step itself, which says why, is first to find that a try takes too long."""
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_ENDPOINT = "AWS_ENDPOINT_URL"
_REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""Clients differ in which one they read; boto3 reads the second."""


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
    from kfp import kubernetes

    plan = Plan(retries=pod.retries, timeout_seconds=pod.timeout_hours * 3600)
    slight = task.name in _SLIGHT
    if _launched(task, pod):
        asked = json.dumps(pod.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        image = task.container_spec.image
        plan = Plan(trainjob=("--image", image, "--namespace", settings.namespace, "--pod", asked))
        pod, slight = launcher, True
        longest = settings.deadline_hours * 3600.0  # queueing and every attempt
    else:
        if task.name in TRAINING:
            plan = plan.model_copy(update={"checkpoint_seconds": settings.checkpoint_seconds})
        if pod.accelerators > 1 and task.name in DISTRIBUTED:
            plan = plan.model_copy(update={"processes": pod.accelerators})
        longest = pod.retries.longest(pod.timeout_hours * 3600) + _MARGIN_SECONDS
    _ask(task, pod, slight)
    task.set_env_variable(PLAN, plan.model_dump_json(exclude_defaults=True))
    # The pod may take as long as all tries in it. Argo is asked for no retry of its own (`set_retry`): the back end's
    # default, OnError with a limit of 2, makes a lost pod again and leaves an exit code alone. A strategy of the
    # task's own would change nothing about that but the backoff, which Argo waits for before it says Failed too; and
    # where there is no default it would mean OnFailure, which starts again what the step has given up.
    kubernetes.set_timeout(task, math.ceil(longest))


def _launched(task: Any, pod: Pod) -> bool:
    several = pod.nodes > 1 and task.name in DISTRIBUTED
    return several or (pod.retries.preemptions > 0 and pod.nodes == 1 and task.name in TRAINING)


def _ask(task: Any, pod: Pod, slight: bool) -> None:
    from kfp import kubernetes

    asked = pod.requested
    if slight:
        asked = Requests(cpu=min(asked.cpu, 0.2), memory_gib=min(asked.memory_gib, 0.5))
    task.set_cpu_request(f"{asked.cpu:g}").set_cpu_limit(f"{pod.cpu:g}")
    whole = asked.memory_gib % 1 == 0  # kfp takes no 0.5Gi
    memory = f"{asked.memory_gib:g}Gi" if whole else f"{round(asked.memory_gib * 1024)}Mi"
    task.set_memory_request(memory).set_memory_limit(f"{pod.memory_gib}Gi")
    if pod.resource:
        task.set_accelerator_type(pod.resource).set_accelerator_limit(pod.accelerators)
    for key, value in sorted(pod.node_selector.items()):
        kubernetes.add_node_selector(task, key, value)
    for toleration in pod.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
    for affinity in pod.affinity:
        expression = {"key": affinity.key, "operator": affinity.operator, "values": list(affinity.values)}
        kubernetes.add_node_affinity(task, match_expressions=[expression], weight=affinity.weight)
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=f"{pod.shm_gib}Gi")  # noqa: S108  (a mount)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=f"{pod.tmp_gib}Gi")  # noqa: S108  (a mount)


def secure(task: Any, name: str, settings: Settings) -> None:
    """Say what every step has in common.

    Args:
        task: a step of the pipeline (`kfp.dsl.PipelineTask`).
        name: of the task under data/, for the pods' label.
        settings: names the user and the secrets.
    """
    from kfp import kubernetes

    kubernetes.set_security_context(task, run_as_user=settings.user, run_as_group=settings.user, run_as_non_root=True)
    kubernetes.use_secret_as_env(task, settings.store_secret, {key: key for key in _CREDENTIALS})
    # A store at AWS itself has no endpoint in the secret; a missing key would keep the pod from starting.
    kubernetes.use_secret_as_env(task, settings.store_secret, {_ENDPOINT: _ENDPOINT}, optional=True)
    if task.name not in _UNSIGNED:
        # Optional: a pod without it would wait for ever, a stage without a key says so in one line and ends with 2.
        kubernetes.use_secret_as_volume(task, settings.signing_secret, KEYS, optional=True)
        task.set_env_variable("GRAFTLINE_KEYS", KEYS)
    if task.name == "fetch":
        kubernetes.use_secret_as_env(task, settings.git_secret, {"token": "GRAFTLINE_GIT_TOKEN"}, optional=True)
        if trusted := origin(settings.repository):
            task.set_env_variable("GRAFTLINE_GIT_ORIGIN", trusted)
    kubernetes.add_pod_label(task, TASK_LABEL, name)
    kubernetes.add_pod_label(task, RUN_LABEL, RUN_ID)
    kubernetes.use_field_path_as_env(task, "GRAFTLINE_RUN", f"metadata.labels['{RUN_LABEL}']")
    kubernetes.use_field_path_as_env(task, "GRAFTLINE_POD", "metadata.name")
    kubernetes.use_field_path_as_env(task, "GRAFTLINE_NODE", "spec.nodeName")
    for variable in _REGION if settings.region else ():
        task.set_env_variable(variable, settings.region)
    task.set_env_variable("GRAFTLINE_ENGINE", "kubeflow")
    task.set_env_variable("GRAFTLINE_IMAGE", digest(task.container_spec.image))
