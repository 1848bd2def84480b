"""The graph of dvc.yaml as a Kubeflow pipeline: `graftline compile TASK` writes it as Kubernetes manifests.

Every component is the same entry point that DVC runs. Each gets its parameters as one JSON string that holds
only the sections which it reads: the backend's cache compares that string, and a STRUCT turns 10 into 10.0.
The cache reads no content of artifacts either: validate is given the digest of its data, and pretrain and finetune
the record's digest of each input, which the component before them returns. None is told the run's key, which would
make every run's cache its own; what names the run reaches the containers as $GRAFTLINE_RUN (pods.py).

There is no dsl.If around `publish`: it checks the gate's decision itself and refuses. A skipped branch is
silent.

kfp reads annotations as objects, so this file cannot postpone them (`from __future__ import annotations`).
"""

# mypy: disable-error-code="untyped-decorator"

from collections.abc import Callable
from typing import Any

from kfp import dsl

from graftline.pipelines.images import load_images

IMAGES = load_images()
RUN_ID = dsl.PIPELINE_JOB_ID_PLACEHOLDER
EXECUTOR_OUTPUT = dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER

Place = Callable[[str, dsl.PipelineTask], None]
"""Called with each step's name and task, to say what its pod asks for."""


@dsl.container_component
def fetch(
    repository: str,
    revision: str,
    task: str,
    digest: str,
    store: str,
    run_key: str,
    reason: str,
    raw: dsl.Output[dsl.Dataset],
    expectations: dsl.Output[dsl.Artifact],
) -> dsl.ContainerSpec:
    """Claim the run's key, bring a task's raw data and contract from git and DVC's remote, verify their digest."""
    return dsl.ContainerSpec(
        image=IMAGES.data,
        command=["python", "-m", "graftline.pipelines.fetch"],
        args=[
            "--repository", repository, "--revision", revision, "--task", task, "--digest", digest,
            "--out-raw", raw.path, "--out-expectations", expectations.path,
            "--store", store, "--run-key", run_key, "--run-id", RUN_ID, "--reason", reason,
            "--executor-output", EXECUTOR_OUTPUT,
        ],
    )  # fmt: skip


@dsl.container_component
def validate(
    params: str,
    store: str,
    data_digest: str,  # this and each `..._record` below is no argument of the command: it is for the cache
    raw: dsl.Input[dsl.Dataset],
    expectations: dsl.Input[dsl.Artifact],
    dataset: dsl.Output[dsl.Dataset],
    record: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> dsl.ContainerSpec:
    """Check raw data against its contract, quarantine bad rows, split the good ones."""
    return dsl.ContainerSpec(
        image=IMAGES.data,
        command=["python", "-m", "graftline.components.validate"],
        args=[
            "--params", params, "--in-raw", raw.path, "--in-expectations", expectations.path,
            "--out-dataset", dataset.path, "--store", store, "--executor-output", EXECUTOR_OUTPUT,
        ],
    )  # fmt: skip


@dsl.container_component
def pretrain(
    params: str,
    dataset_record: str,
    dataset: dsl.Input[dsl.Dataset],
    trunk: dsl.Output[dsl.Model],
    record: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> dsl.ContainerSpec:
    """Learn a trunk from unlabelled data."""
    return dsl.ContainerSpec(
        image=IMAGES.train,
        command=["python", "-m", "graftline.components.pretrain"],
        args=[
            "--params", params, "--in-dataset", dataset.path,
            "--out-trunk", trunk.path, "--executor-output", EXECUTOR_OUTPUT,
        ],
    )  # fmt: skip


@dsl.container_component
def finetune(
    params: str,
    dataset_record: str,
    trunk_record: str,
    dataset: dsl.Input[dsl.Dataset],
    trunk: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    record: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> dsl.ContainerSpec:
    """Learn a head, and the trunk with it, from labelled data."""
    return dsl.ContainerSpec(
        image=IMAGES.train,
        command=["python", "-m", "graftline.components.finetune"],
        args=[
            "--params", params, "--in-dataset", dataset.path, "--in-trunk", trunk.path,
            "--out-model", model.path, "--executor-output", EXECUTOR_OUTPUT,
        ],
    )  # fmt: skip


@dsl.container_component
def evaluate(
    params: str,
    store: str,
    dataset: dsl.Input[dsl.Dataset],
    trunk: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    record: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> dsl.ContainerSpec:
    """Measure the model, the lift of pretraining and the champion; decide whether to publish."""
    return dsl.ContainerSpec(
        image=IMAGES.train,
        command=["python", "-m", "graftline.components.evaluate"],
        args=[
            "--params", params, "--in-dataset", dataset.path, "--in-trunk", trunk.path,
            "--in-model", model.path, "--out-evaluation", evaluation.path, "--store", store,
            "--executor-output", EXECUTOR_OUTPUT,
        ],
    )  # fmt: skip


@dsl.container_component
def publish(
    params: str,
    store: str,
    dataset: dsl.Input[dsl.Dataset],
    trunk: dsl.Input[dsl.Model],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    release: dsl.Output[dsl.Artifact],
    record: dsl.OutputPath(str),  # type: ignore[valid-type]
) -> dsl.ContainerSpec:
    """Release the model if the gate decided so, and point the champion alias at it."""
    return dsl.ContainerSpec(
        image=IMAGES.data,
        command=["python", "-m", "graftline.components.publish"],
        args=[
            "--params", params, "--in-dataset", dataset.path, "--in-trunk", trunk.path,
            "--in-model", model.path, "--in-evaluation", evaluation.path,
            "--out-release", release.path, "--store", store,
            "--executor-output", EXECUTOR_OUTPUT,
        ],
    )  # fmt: skip


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
    return dsl.ContainerSpec(
        image=IMAGES.data,
        command=["python", "-m", "graftline.pipelines.conclude"],
        args=[
            "--status", status, "--task", task, "--store", store, "--run-key", run_key, "--run-id", RUN_ID,
            "--version", version, "--revision", revision, "--data-digest", data_digest,
            "--reason", reason,
        ],
    )  # fmt: skip


def pipeline(name: str, place: Place | None = None, config: dsl.PipelineConfig | None = None) -> Any:
    """Return the graph as a Kubeflow pipeline.

    Args:
        name: of the Kubeflow pipeline.
        place: what a cluster needs to know of each step; with it, the run's end is recorded, however it ends.
            None draws the five stages and `fetch` only, for kfp's local runner.
        config: how long a run may take and is kept.
    """

    @dsl.pipeline(
        name=name,
        description="Retrain a task's model from its raw data and release it if the gate agrees.",
        pipeline_config=config,
    )
    def retrain(
        task: str,
        repository: str,
        revision: str,
        data_digest: str,
        store: str,
        validate_params: str,
        pretrain_params: str,
        finetune_params: str,
        evaluate_params: str,
        publish_params: str,
        run_key: str = "",
        version: str = "",
        reason: str = "",
    ) -> None:
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
        params = {
            "validate": validate_params, "pretrain": pretrain_params, "finetune": finetune_params,
            "evaluate": evaluate_params, "publish": publish_params,
        }  # fmt: skip
        data = {
            "repository": repository, "revision": revision, "task": task, "digest": data_digest,
            "store": store, "run_key": run_key, "reason": reason,
        }  # fmt: skip
        if place is None:
            _stages(data, params, lambda step, task: None)
            return
        end = conclude(
            task=task, store=store, run_key=run_key, version=version, revision=revision,
            data_digest=data_digest, reason=reason,
        )  # fmt: skip
        end.set_caching_options(False)
        place("conclude", end)
        with dsl.ExitHandler(end):
            _stages(data, params, place)

    return retrain


def _stages(data: dict[str, Any], params: dict[str, Any], place: Place) -> None:
    """Draw `fetch` and the five stages. Values are those of the pipeline's parameters."""
    store = data["store"]
    raw = fetch(**data)
    validated = validate(
        params=params["validate"], store=store, data_digest=data["digest"],
        raw=raw.outputs["raw"], expectations=raw.outputs["expectations"],
    )  # fmt: skip
    dataset, dataset_record = validated.outputs["dataset"], validated.outputs["record"]
    pretrained = pretrain(params=params["pretrain"], dataset_record=dataset_record, dataset=dataset)
    trunk = pretrained.outputs["trunk"]
    finetuned = finetune(
        params=params["finetune"], dataset_record=dataset_record, trunk_record=pretrained.outputs["record"],
        dataset=dataset, trunk=trunk,
    )  # fmt: skip
    model = finetuned.outputs["model"]
    measured = evaluate(params=params["evaluate"], store=store, dataset=dataset, trunk=trunk, model=model)
    released = publish(
        params=params["publish"], store=store, dataset=dataset, trunk=trunk, model=model,
        evaluation=measured.outputs["evaluation"],
    )  # fmt: skip
    # These depend on what the store holds now (claims, the champion, releases), which the cache's key does not.
    for uncached in (raw, measured, released):
        uncached.set_caching_options(False)
    steps = (raw, validated, pretrained, finetuned, measured, released)
    for step, task in zip(("fetch", *params), steps, strict=True):
        place(step, task)


retrain = pipeline("retrain")
"""The graph for kfp's local runner: no exit handler, nothing about pods."""
