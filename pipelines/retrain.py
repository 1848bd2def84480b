"""The graph of dvc.yaml as a Kubeflow pipeline: `graftline compile TASK` writes it as IR YAML.

Every component is the same entry point that DVC runs. Each gets its parameters as one JSON string that holds
only the sections which it reads: the backend's cache compares that string, and a STRUCT turns 10 into 10.0.

There is no dsl.If around `publish`: it checks the gate's decision itself and refuses. A skipped branch is
silent.

kfp reads annotations as objects, so this file cannot postpone them (`from __future__ import annotations`).
"""

# mypy: disable-error-code="untyped-decorator"

from kfp import dsl

from graftline.pipelines.images import DATA_IMAGE, TRAIN_IMAGE

EXECUTOR_OUTPUT = dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER


@dsl.container_component
def validate(
    params: str,
    store: str,
    data_digest: str,  # no argument of the command: for the backend's cache, which reads no content
    raw: dsl.Input[dsl.Dataset],
    expectations: dsl.Input[dsl.Artifact],
    dataset: dsl.Output[dsl.Dataset],
) -> dsl.ContainerSpec:
    """Check raw data against its contract, quarantine bad rows, split the good ones."""
    return dsl.ContainerSpec(
        image=DATA_IMAGE,
        command=["python", "-m", "graftline.components.validate"],
        args=[
            "--params", params, "--in-raw", raw.path, "--in-expectations", expectations.path,
            "--out-dataset", dataset.path, "--store", store, "--executor-output", EXECUTOR_OUTPUT,
        ],
    )  # fmt: skip


@dsl.container_component
def pretrain(params: str, dataset: dsl.Input[dsl.Dataset], trunk: dsl.Output[dsl.Model]) -> dsl.ContainerSpec:
    """Learn a trunk from unlabelled data."""
    return dsl.ContainerSpec(
        image=TRAIN_IMAGE,
        command=["python", "-m", "graftline.components.pretrain"],
        args=[
            "--params", params, "--in-dataset", dataset.path,
            "--out-trunk", trunk.path, "--executor-output", EXECUTOR_OUTPUT,
        ],
    )  # fmt: skip


@dsl.container_component
def finetune(
    params: str, dataset: dsl.Input[dsl.Dataset], trunk: dsl.Input[dsl.Model], model: dsl.Output[dsl.Model]
) -> dsl.ContainerSpec:
    """Learn a head, and the trunk with it, from labelled data."""
    return dsl.ContainerSpec(
        image=TRAIN_IMAGE,
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
) -> dsl.ContainerSpec:
    """Measure the model, the lift of pretraining and the champion; decide whether to publish."""
    return dsl.ContainerSpec(
        image=TRAIN_IMAGE,
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
) -> dsl.ContainerSpec:
    """Release the model if the gate decided so, and point the champion alias at it."""
    return dsl.ContainerSpec(
        image=DATA_IMAGE,
        command=["python", "-m", "graftline.components.publish"],
        args=[
            "--params", params, "--in-dataset", dataset.path, "--in-trunk", trunk.path,
            "--in-model", model.path, "--in-evaluation", evaluation.path,
            "--out-release", release.path, "--store", store,
            "--executor-output", EXECUTOR_OUTPUT,
        ],
    )  # fmt: skip


@dsl.pipeline(
    name="retrain", description="Retrain a task's model from its raw data and release it if the gate agrees."
)
def retrain(
    raw: str,
    expectations: str,
    data_digest: str,
    store: str,
    validate_params: str,
    pretrain_params: str,
    finetune_params: str,
    evaluate_params: str,
    publish_params: str,
) -> None:
    """Retrain a task's model from its raw data and release it if the gate agrees.

    Args:
        raw: Address of the folder of raw data.
        expectations: Address of the contract, a YAML file.
        data_digest: sha256 of raw data and contract; a change makes the backend validate again.
        store: Where releases live: `s3://BUCKET/PREFIX`, or a folder that every node mounts.
        validate_params: JSON with `task` and the section `validate`.
        pretrain_params: JSON with `task` and the section `pretrain`.
        finetune_params: JSON with `task` and the section `finetune`.
        evaluate_params: JSON with `task` and the sections `evaluate` and `finetune`, whose fit it runs.
        publish_params: JSON with `task` and the section `publish`.
    """
    raw_data = dsl.importer(artifact_uri=raw, artifact_class=dsl.Dataset)
    contract = dsl.importer(artifact_uri=expectations, artifact_class=dsl.Artifact)
    data = validate(
        params=validate_params, store=store, data_digest=data_digest,
        raw=raw_data.output, expectations=contract.output,
    )  # fmt: skip
    dataset = data.outputs["dataset"]
    trunk = pretrain(params=pretrain_params, dataset=dataset).outputs["trunk"]
    model = finetune(params=finetune_params, dataset=dataset, trunk=trunk).outputs["model"]
    measured = evaluate(params=evaluate_params, store=store, dataset=dataset, trunk=trunk, model=model)
    released = publish(
        params=publish_params, store=store, dataset=dataset, trunk=trunk, model=model,
        evaluation=measured.outputs["evaluation"],
    )  # fmt: skip
    # Both depend on what the store holds now (the champion, the releases), which the cache's key does not.
    measured.set_caching_options(False)
    released.set_caching_options(False)
