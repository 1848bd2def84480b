"""Pools of machines, their prices, and which stage runs where: pipelines/profiles.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from graftline.environment import ROOT
from graftline.errors import InputError, nearest
from graftline.tasks.parameters import COMPONENTS, Params, parse
from graftline.yamlfile import load_yaml

PROFILES = ROOT / "pipelines/profiles.yaml"
STEPS = ("claim", "fetch", *COMPONENTS, "conclude")
"""What a run on a cluster consists of: who does the work, what brings the data, the five stages, what records the
end."""
TRAINING = ("pretrain", "finetune", "evaluate")
"""The stages that one name of a profile is about: the others need no accelerator."""
ALL = "all"
"""In place of a step's name: every step."""


class Toleration(Params):
    """A taint that a pod may be scheduled in spite of."""

    key: str = Field(min_length=1)
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class Affinity(Params):
    """One expression about a node's labels."""

    key: str = Field(min_length=1)
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = "In"
    values: tuple[str, ...] = ()
    weight: int | None = Field(default=None, ge=1, le=100)
    """How much such a node is preferred; null requires it."""


class Retries(Params):
    """How often a pod that ended is started again, and how long after."""

    limit: int = Field(default=0, ge=0, le=20)
    """After a failure of its own."""
    preemptions: int = Field(default=0, ge=0, le=100)
    """After its machine was taken away (exit code 75), on top of `limit`; a stage that trains is then a TrainJob. Made
    again at once: the queue holds it back until there is a machine."""
    backoff_seconds: int = Field(default=60, ge=1)
    """Wait after the first failure."""
    factor: float = Field(default=2.0, ge=1)
    """Each wait is this many times the one before."""
    max_seconds: int = Field(default=3600, ge=1)
    """No wait may be longer; more is refused here, since Kubeflow cannot cap one."""

    def wait(self, failures: int) -> float:
        """Return the seconds between the failure of that number, from 1, and the next start."""
        return self.backoff_seconds * self.factor ** (failures - 1)

    def longest(self, seconds: float) -> float:
        """Return the seconds that all tries and the waits between them may take, of at most so many each."""
        waits = sum(self.wait(number) for number in range(1, self.limit + 1))
        return (self.limit + 1) * seconds + waits

    @model_validator(mode="after")
    def _waits_fit(self) -> Retries:
        if self.limit and (longest := self.wait(self.limit)) > self.max_seconds:
            raise ValueError(
                f"the wait before start {self.limit + 1} is {longest:.0f} s, more than max_seconds, {self.max_seconds}"
            )
        return self


class Requests(Params):
    """What a pod is sure of, where that is less than it may use."""

    cpu: float = Field(gt=0)
    """Cores."""
    memory_gib: float = Field(gt=0)


class Pod(Params):
    """What one pod of the pool asks for."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    affinity: tuple[Affinity, ...] = ()
    resource: str | None = None
    """The accelerators' resource name, such as nvidia.com/gpu."""
    accelerators: int = Field(default=0, ge=0, le=64)
    """Of one pod."""
    nodes: int = Field(default=1, ge=1, le=1024)
    """Pods that train one model together."""
    cpu: float = Field(default=1, gt=0)
    """Cores that it may use."""
    memory_gib: int = Field(default=4, ge=1)
    """That it may use; /dev/shm counts towards it."""
    requests: Requests | None = None
    """What a node must have free for it; null: all that it may use."""
    shm_gib: int = Field(default=1, ge=1)
    """Size of /dev/shm, through which data loaders and NCCL pass tensors (a container's own has 64 MB)."""
    tmp_gib: int = Field(default=10, ge=1)
    """Size of /tmp: the root file system is read-only."""
    retries: Retries = Retries()
    timeout_hours: float = Field(default=24.0, gt=0)
    """A pod that runs longer is stopped; of a TrainJob, each attempt has this time."""

    @model_validator(mode="after")
    def _complete(self) -> Pod:
        if (self.resource is None) != (self.accelerators == 0):
            raise ValueError("resource goes with accelerators")
        if self.shm_gib >= self.memory_gib:
            raise ValueError("shm_gib counts towards memory_gib and must be less")
        if self.requests and (self.requests.cpu > self.cpu or self.requests.memory_gib > self.memory_gib):
            raise ValueError("requests are more than cpu and memory_gib, which are the limits")
        return self

    @property
    def requested(self) -> Requests:
        """What a node must have free for it."""
        return self.requests or Requests(cpu=self.cpu, memory_gib=self.memory_gib)


class Profile(Params):
    """One pool: processors with `cores`, or accelerators with a peak."""

    cores: int | None = Field(default=None, ge=1, le=4096)
    """CPU cores that compute; null for a pool of accelerators."""
    accelerator: str | None = Field(default=None, min_length=1, max_length=100)
    """The accelerator's name."""
    count: int = Field(default=1, ge=1, le=65_536)
    """Accelerators that train one model together."""
    memory_gib: float = Field(gt=0)
    """Memory of one accelerator, or of a machine without, in GiB."""
    peak_tflops: float | None = Field(default=None, gt=0)
    """Dense bf16 peak of one accelerator, in 10**12 operations a second."""
    utilisation: float = Field(default=0.35, gt=0, le=1)
    """Share of the peak that a training step reaches."""
    least_step_ms: float = Field(default=0.0, ge=0)
    """Least time of a step, in milliseconds."""
    price_per_hour: float = Field(ge=0)
    """Of the whole pool, in USD."""
    spot: bool = False
    """Whether the pool may be taken away: then a run takes longer than planned, and resumes."""
    pod: Pod | None = None
    """What a pod on a cluster asks for; null for a pool that is priced only."""

    @model_validator(mode="after")
    def _one_kind(self) -> Profile:
        if (self.cores is None) == (self.accelerator is None):
            raise ValueError("give either cores or accelerator")
        if (self.accelerator is None) != (self.peak_tflops is None):
            raise ValueError("peak_tflops goes with accelerator")
        if self.pod and self.accelerator and self.pod.accelerators * self.pod.nodes != self.count:
            raise ValueError(
                f"count is {self.count}, but pod.accelerators * pod.nodes is {self.pod.accelerators * self.pod.nodes}"
            )
        return self


class _Document(Params):
    profiles: dict[str, Profile] = Field(min_length=1)
    stages: dict[str, str] = Field(default_factory=dict)


def load_profiles(path: Path = PROFILES) -> dict[str, Profile]:
    """Return the pools by name, in the file's order. Raises InputError."""
    return parse(load_yaml(path), _Document, where=str(path)).profiles


def choose(profiles: dict[str, Profile], name: str | None) -> dict[str, Profile]:
    """Return the one pool of that name, or all of them for None. Raises InputError."""
    if name is None:
        return profiles
    if name not in profiles:
        raise InputError(
            f"--profile {name}",
            f"no such profile{nearest(name, list(profiles))}",
            expected="one of " + ", ".join(profiles),
            fix=f"add it to {PROFILES.relative_to(ROOT)}",
        )
    return {name: profiles[name]}


def parse_choices(choices: Sequence[str]) -> dict[str, str]:
    """Return the profile of each step that `--profile` names.

    `gpu-a100` is about the stages that train (pretrain, finetune, evaluate), `pretrain=gpu-a100` about one step,
    `all=dev` about every step.

    Raises:
        InputError: a step or a profile does not exist.
    """
    profiles = load_profiles()
    chosen: dict[str, str] = {}
    for choice in choices:
        step, equals, name = choice.partition("=")
        (known,) = choose(profiles, name if equals else choice)
        if equals and step not in (*STEPS, ALL):
            raise InputError(
                f"--profile {choice}",
                f"no such step '{step}'{nearest(step, list(STEPS))}",
                expected="one of " + ", ".join((*STEPS, ALL)),
            )
        steps = TRAINING if not equals else STEPS if step == ALL else (step,)
        chosen |= dict.fromkeys(steps, known)
    return chosen


def placement(chosen: Mapping[str, str] | None = None) -> dict[str, Pod]:
    """Return what the pod of every step asks for: the file's `stages`, with `chosen` in their place where given.

    Raises:
        InputError: a step or a profile does not exist, a step has no profile, or a profile has no pod.
    """
    path = PROFILES
    document = parse(load_yaml(path), _Document, where=str(path))
    names = {**document.stages, **(chosen or {})}
    if ALL in names:
        names = dict.fromkeys(STEPS, names.pop(ALL)) | dict(chosen or {})
        del names[ALL]
    for step in names:
        if step not in STEPS:
            raise InputError(path, f"no such step '{step}'{nearest(step, list(STEPS))}", expected=", ".join(STEPS))
    placed = {}
    for step in STEPS:
        if step not in names:
            raise InputError(path, f"no profile for {step}", fix=f"add `{step}: NAME` under `stages`")
        (name,) = choose(document.profiles, names[step])
        pod = document.profiles[name].pod
        if pod is None:
            raise InputError(f"{path}: {name}", "no `pod`", fix="say what a pod of this pool asks for")
        placed[step] = pod
    return placed
