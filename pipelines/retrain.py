"""The graph of dvc.yaml as a Kubeflow pipeline: `graftline compile TASK` writes it as Kubernetes manifests.

Every container starts `graftline.pipelines.step`, which makes the arguments of the same entry points that DVC runs of
the executor input: a component's declaration here says what it is given and makes, and nothing else.
Each gets its parameters as one JSON string that holds only the sections which it reads: the backend's cache compares
that string, and a STRUCT turns 10 into 10.0. The cache reads no content of artifacts either: `cache_...` are no
arguments, but the digest of the data, or of an input's record, which the component before returns. From fetch to
finetune none is told the run's key or why it was started, which would make every run's cache its own; what names the
run reaches the containers as $GRAFTLINE_RUN (pods.py).

There is no dsl.If around `publish`: it checks the gate's decision itself and refuses. A skipped branch is
silent.

kfp reads annotations as objects, so this file cannot postpone them (`from __future__ import annotations`).
"""

# mypy: disable-error-code="untyped-decorator,valid-type"

from collections.abc import Callable
from typing import Any

from kfp import dsl

from graftline.images import load_images
from graftline.profiles import STEPS

IMAGES = load_images()
Record = dsl.OutputPath(str)
"""The sha256 of the record of what a step made."""

Place = Callable[[str, dsl.PipelineTask], None]
"""Called with each step's name and task, to say what its pod asks for."""


def _step(name: str, image: str) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(
        image=image,
        command=["python", "-m", "graftline.pipelines.step", name],
        args=["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER],
    )


@dsl.container_component
def claim(
    task: str, store: str, run_key: str, version: str, revision: str, data_digest: str, reason: str
) -> dsl.ContainerSpec:
    """Claim the work of the run's key, and note that the run has begun."""
    return _step("claim", IMAGES.data)


@dsl.container_component
def fetch(
    repository: str,
    revision: str,
    task: str,
    digest: str,
    store: str,
    raw: dsl.Output[dsl.Dataset],
    expectations: dsl.Output[dsl.Artifact],
) -> dsl.ContainerSpec:
    """Bring a task's raw data and contract from git and DVC's remote, verify their digest."""
    return _step("fetch", IMAGES.data)


@dsl.container_component
def validate(
    params: str,
    store: str,
    cache_data: str,
    raw: dsl.Input[dsl.Dataset],
    expectations: dsl.Input[dsl.Artifact],
    dataset: dsl.Output[dsl.Dataset],
    record: Record,
) -> dsl.ContainerSpec:
    """Check raw data against its contract, quarantine bad rows, split the good ones."""
    return _step("validate", IMAGES.data)


@dsl.container_component
def pretrain(
    params: str,
    store: str,
    cache_dataset: str,
    dataset: dsl.Input[dsl.Dataset],
    trunk: dsl.Output[dsl.Model],
    record: Record,
) -> dsl.ContainerSpec:
    """Learn a trunk from unlabelled data."""
    return _step("pretrain", IMAGES.train)


@dsl.container_component
def finetune(
    params: str,
    store: str,
    cache_dataset: str,
    cache_trunk: str,
    dataset: dsl.Input[dsl.Dataset],
    trunk: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    record: Record,
) -> dsl.ContainerSpec:
    """Learn a head, and the trunk with it, from labelled data."""
    return _step("finetune", IMAGES.train)


@dsl.container_component
def evaluate(
    params: str,
    store: str,
    dataset: dsl.Input[dsl.Dataset],
    trunk: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    record: Record,
) -> dsl.ContainerSpec:
    """Measure the model, the lift of pretraining and the champion; decide whether to publish."""
    return _step("evaluate", IMAGES.train)


@dsl.container_component
def publish(
    params: str,
    store: str,
    dataset: dsl.Input[dsl.Dataset],
    trunk: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    release: dsl.Output[dsl.Artifact],
    record: Record,
) -> dsl.ContainerSpec:
    """Release the model if the gate decided so, and point the champion alias at it."""
    return _step("publish", IMAGES.data)


@dsl.container_component
def conclude(
    status: dsl.PipelineTaskFinalStatus,
    task: str,
    store: str,
    run_key: str,
    version: str,
    revision: str,
    data_digest: str,
    reason: str,
) -> dsl.ContainerSpec:
    """Write in the store how the run ended, and why it was started."""
    return _step("conclude", IMAGES.data)


Tasks = dict[str, dsl.PipelineTask]
"""Steps by name."""

UNCACHED = ("claim", "evaluate", "publish", "conclude")
"""They depend on what the store holds now (claims, the champion, releases), which the cache's key does not."""


def pipeline(name: str, place: Place, config: dsl.PipelineConfig | None = None) -> Any:
    """Return the graph as a Kubeflow pipeline.

    Args:
        name: of the Kubeflow pipeline.
        place: what a cluster needs to know of each step.
        config: how long a run may take and is kept.
    """

    @dsl.pipeline(
        name=name,
        description="Retrain a task's model from its raw data and release it if the gate agrees.",
        pipeline_config=config,
    )
    def retrain(
        task: str, repository: str, revision: str, data_digest: str, store: str, validate_params: str,
        pretrain_params: str, finetune_params: str, evaluate_params: str, publish_params: str,
        run_key: str = "", version: str = "", reason: str = "",
    ) -> None:  # fmt: skip
        """Retrain a task's model from its raw data and release it if the gate agrees.

        Args:
            task: The folder under data/.
            repository: Git repository with the data's pointers: an address, or a folder.
            revision: Commit of the repository, or work-tree for a folder as it is.
            data_digest: sha256 of raw data and contract, verified on arrival; a change makes every stage run again.
            store: Where releases live: `s3://BUCKET/PREFIX`, or a folder that every node mounts.
            validate_params: JSON with `task` and the section `validate`.
            pretrain_params: JSON with `task` and the section `pretrain`.
            finetune_params: JSON with `task` and the section `finetune`.
            evaluate_params: JSON with `task` and the sections `evaluate` and `finetune`, whose fit it runs.
            publish_params: JSON with `task` and the section `publish`.
            run_key: sha256 of all that decides the run, for its record in the store.
            version: Name of the pipeline's version, for the record.
            reason: JSON that says why the run was started, for the record.
        """
        source = {"task": task, "revision": revision, "store": store}
        run = {**source, "run_key": run_key, "version": version, "data_digest": data_digest, "reason": reason}
        tasks = {"conclude": conclude(**run)}
        with dsl.ExitHandler(tasks["conclude"]):
            tasks["claim"] = claim(**run)
            tasks["fetch"] = fetch(repository=repository, digest=data_digest, **source).after(tasks["claim"])
            tasks |= _learn(tasks["fetch"], store, data_digest, validate_params, pretrain_params, finetune_params)
            tasks |= _release(tasks, store, evaluate_params, publish_params)
        for step in STEPS:
            if step in UNCACHED:
                tasks[step].set_caching_options(False)
            place(step, tasks[step])

    return retrain


def _learn(
    raw: dsl.PipelineTask,
    store: str,
    data_digest: str,
    validate_params: str,
    pretrain_params: str,
    finetune_params: str,
) -> Tasks:
    """Make a dataset of what was fetched, a trunk of the dataset, and a model of both."""
    inputs = {name: raw.outputs[name] for name in ("raw", "expectations")}
    validated = validate(params=validate_params, store=store, cache_data=data_digest, **inputs)
    made = {"store": store, "dataset": validated.outputs["dataset"], "cache_dataset": validated.outputs["record"]}
    pretrained = pretrain(params=pretrain_params, **made)
    made |= {"trunk": pretrained.outputs["trunk"], "cache_trunk": pretrained.outputs["record"]}
    finetuned = finetune(params=finetune_params, **made)
    return {"validate": validated, "pretrain": pretrained, "finetune": finetuned}


def _release(tasks: Tasks, store: str, evaluate_params: str, publish_params: str) -> Tasks:
    """Measure the model, and release it."""
    made = {"validate": "dataset", "pretrain": "trunk", "finetune": "model"}
    inputs = {"store": store, **{name: tasks[step].outputs[name] for step, name in made.items()}}
    measured = evaluate(params=evaluate_params, **inputs)
    released = publish(params=publish_params, evaluation=measured.outputs["evaluation"], **inputs)
    return {"evaluate": measured, "publish": released}
