"""What a cluster is given: asserted on the compiled YAML, never on the objects that it was compiled from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from graftline import profiles, settings
from graftline.cli import compile as command
from graftline.cli.app import app
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.executor_input import unreplaced
from graftline.images import Images, load_images
from graftline.pipelines import compile as compiling
from graftline.pipelines.compile import CompiledPipeline, compiled
from graftline.pipelines.runkey import Run, run_name, work_of
from graftline.pipelines.step import PLAN, Plan
from graftline.tasks.parameters import COMPONENTS, parse
from graftline.yamlfile import load_yaml, parse_json

TASK = "mnist"
STEPS = ("claim", "fetch", *COMPONENTS, "conclude")


@pytest.fixture(scope="module")
def pipeline() -> CompiledPipeline:
    return compiled(TASK)


@pytest.fixture(scope="module")
def version(pipeline: CompiledPipeline) -> dict[str, Any]:
    """The PipelineVersion in the manifest."""
    return documents(pipeline)[1]


def documents(pipeline: CompiledPipeline) -> list[dict[str, Any]]:
    return list(yaml.load_all(pipeline.manifest, Loader=yaml.CSafeLoader))


def container(version: dict[str, Any], step: str) -> dict[str, Any]:
    found: dict[str, Any] = version["spec"]["pipelineSpec"]["deploymentSpec"]["executors"][f"exec-{step}"]
    return found["container"]  # type: ignore[no-any-return]


def pod(version: dict[str, Any], step: str) -> dict[str, Any]:
    kubernetes = version["spec"]["platformSpec"]["platforms"]["kubernetes"]
    return kubernetes["deploymentSpec"]["executors"][f"exec-{step}"]  # type: ignore[no-any-return]


def tasks(version: dict[str, Any]) -> dict[str, Any]:
    """Every task of the pipeline, in the exit handler and outside."""
    spec = version["spec"]["pipelineSpec"]
    return spec["root"]["dag"]["tasks"] | spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]  # type: ignore[no-any-return]


def variables(version: dict[str, Any], step: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(version, step)["env"]}


def plan(version: dict[str, Any], step: str) -> Plan:
    return parse(parse_json(variables(version, step)[PLAN], where=PLAN), Plan, where=PLAN)


def placed(**chosen: str) -> dict[str, Any]:
    return documents(compiled(TASK, profiles=chosen))[1]


def test_the_manifest_is_a_pipeline_and_its_version_named_by_content(
    pipeline: CompiledPipeline, version: dict[str, Any]
) -> None:
    head, second = documents(pipeline)
    assert second == version
    assert {head["apiVersion"], version["apiVersion"]} == {"pipelines.kubeflow.org/v2beta1"}
    assert (head["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert head["metadata"]["name"] == version["spec"]["pipelineName"] == pipeline.pipeline == "retrain-mnist"
    assert version["metadata"]["name"] == pipeline.version
    assert re.fullmatch("retrain-mnist-[0-9a-f]{12}", pipeline.version)
    assert version["spec"]["codeSourceURL"] == load_yaml(ROOT / "pipelines/settings.yaml")["repository"]
    assert {key: version["spec"][key] for key in ("pipelineSpec", "platformSpec")} == pipeline.spec


def test_kubeflows_own_parsers_take_every_field(version: dict[str, Any]) -> None:
    """The protocol buffers refuse unknown fields, so a misspelled one is found."""
    from google.protobuf.json_format import ParseDict
    from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

    ParseDict(version["spec"]["pipelineSpec"], PipelineSpec())
    for step in STEPS:
        ParseDict(pod(version, step), KubernetesExecutorConfig())


def test_it_is_what_kfps_own_compiler_writes(pipeline: CompiledPipeline, tmp_path: Path) -> None:
    from kfp.compiler import Compiler

    drawn = compiling._draw(pipeline.pipeline, TASK, profiles.placement(None), settings.load_settings())
    defaults = {name: value for name, value in pipeline.parameters.items() if name != "version"}
    Compiler().compile(drawn, str(tmp_path / "pipeline.yaml"), pipeline_parameters=defaults)
    written = list(yaml.load_all((tmp_path / "pipeline.yaml").read_text(), Loader=yaml.CSafeLoader))
    assert written == [pipeline.spec["pipelineSpec"], pipeline.spec["platformSpec"]]


def test_another_process_in_another_place_compiles_the_same_bytes(pipeline: CompiledPipeline, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom graftline.pipelines.compile import compiled\n"
        f"sys.stdout.buffer.write(compiled({TASK!r}).manifest)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "HOME": str(tmp_path), "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert done.stdout == pipeline.manifest


def test_the_commit_is_no_part_of_it(pipeline: CompiledPipeline) -> None:
    """Else committing the manifest would make it out of date."""
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert len(head.stdout.strip()) == 40
    assert head.stdout.strip()[:12] not in pipeline.manifest.decode()


def test_another_image_is_another_version(pipeline: CompiledPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = json.loads(json.dumps(pipeline.spec).replace(load_images().train, f"graftline/train@sha256:{'1' * 64}"))
    monkeypatch.setattr(compiling, "_compile", lambda *arguments: spec)
    assert compiled(TASK).version != pipeline.version


def test_an_override_is_a_parameter_of_the_run_and_not_another_version(pipeline: CompiledPipeline) -> None:
    changed = compiled(TASK, overrides={"finetune.epochs": 3, "finetune.head.augmentation.shift": 1})
    assert changed.version == pipeline.version
    assert changed.manifest == pipeline.manifest
    differing = {name for name in pipeline.parameters if changed.parameters[name] != pipeline.parameters[name]}
    assert differing == {"finetune_params", "evaluate_params"}, "evaluate runs finetune's fit"
    given = json.loads(changed.parameters["finetune_params"])["finetune"]
    assert (given["epochs"], given["head"]["augmentation"]["shift"]) == (3, 1)


@pytest.fixture(scope="module")
def a100() -> dict[str, Any]:
    return placed(**dict.fromkeys(profiles.TRAINING, "gpu-a100"))


@pytest.mark.parametrize("step", profiles.TRAINING)
def test_a_gpu_profile_is_in_the_yaml(a100: dict[str, Any], step: str) -> None:
    resources = container(a100, step)["resources"]
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "1"
    assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == "150Gi"
    assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == "11"
    asked = pod(a100, step)
    assert asked["nodeSelector"] == {"labels": {"graftline.dev/pool": "gpu-a100"}}
    assert [(each["key"], each["value"], each["effect"]) for each in asked["tolerations"]] == [
        ("graftline.dev/pool", "gpu-a100", "NoSchedule"),
        ("nvidia.com/gpu", "present", "NoSchedule"),
    ]
    assert {"medium": "Memory", "mountPath": "/dev/shm", "sizeLimit": "32Gi", "volumeName": "shm"} in (
        asked["emptyDirMounts"]
    )
    given = plan(a100, step)
    assert (given.retries.limit, given.retries.backoff_seconds, given.timeout_seconds) == (2, 60, 48 * 3600)
    # The pod's own deadline holds all tries, and a margin in which the step itself says what took too long.
    assert asked["activeDeadlineSeconds"] == str(3 * 48 * 3600 + 60 + 120 + 600)


@pytest.mark.parametrize("step", profiles.TRAINING)
def test_on_spot_a_stage_is_a_trainjob_with_a_budget_for_preemptions(version: dict[str, Any], step: str) -> None:
    """Kubeflow Pipelines would count a pre-emption and a bug alike."""
    image_flag, image, namespace_flag, namespace, flag, asked = plan(version, step).trainjob
    assert (image_flag, image) == ("--image", container(version, step)["image"])
    assert (namespace_flag, namespace, flag) == ("--namespace", "graftline", "--pod")
    wanted = parse(json.loads(asked), profiles.Pod, where="--pod")
    assert wanted == profiles.load_profiles()["gpu-l4-spot"].pod
    assert (wanted.retries.preemptions, wanted.retries.limit) == (20, 1)
    assert {"key": "graftline.dev/spot", "value": "true", "operator": "Equal", "effect": "NoSchedule"} in (
        [each.model_dump() for each in wanted.tolerations]
    )
    assert plan(version, step).retries.limit == 0, "the job keeps its own budget"
    resources = container(version, step)["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceMemoryRequest"]) == ("0.2", "512Mi"), "it waits"


def test_every_step_is_told_the_stores_region(monkeypatch: pytest.MonkeyPatch) -> None:
    at_aws = settings.load_settings().model_copy(update={"region": "eu-central-1"})
    monkeypatch.setattr(compiling, "load_settings", lambda: at_aws)
    version = placed()
    for step in STEPS:
        given = {item["name"]: item["value"] for item in container(version, step)["env"]}
        assert {given["AWS_REGION"], given["AWS_DEFAULT_REGION"]} == {"eu-central-1"}, step


def test_trainjobs_are_made_where_the_runs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = settings.load_settings().model_copy(update={"namespace": "team-a"})
    monkeypatch.setattr(compiling, "load_settings", lambda: elsewhere)
    given = plan(placed(), "pretrain").trainjob
    assert given[given.index("--namespace") + 1] == "team-a"


@pytest.mark.parametrize("step", STEPS)  # the training stages are small pods that follow a TrainJob
def test_a_cpu_profile_prefers_its_pool_and_asks_for_no_accelerator(version: dict[str, Any], step: str) -> None:
    assert "accelerator" not in container(version, step)["resources"]
    assert "nodeSelector" not in pod(version, step)
    (term,) = pod(version, step)["nodeAffinity"]
    assert term["weight"] == 100
    assert term["matchExpressions"] == [{"key": "graftline.dev/pool", "operator": "In", "values": ["cpu"]}]


def test_the_step_that_is_named_goes_elsewhere_and_the_others_stay(version: dict[str, Any]) -> None:
    moved = placed(pretrain="gpu-a100")
    assert moved["metadata"]["name"] != version["metadata"]["name"], "another place is another version"
    assert pod(moved, "pretrain")["nodeSelector"] == {"labels": {"graftline.dev/pool": "gpu-a100"}}
    assert "graftline.dev/spot" not in {each["key"] for each in pod(moved, "pretrain")["tolerations"]}
    assert pod(moved, "finetune") == pod(version, "finetune")
    assert not plan(moved, "pretrain").trainjob


def test_several_accelerators_are_started_by_torchrun() -> None:
    moved = placed(pretrain="gpu-h100x8", evaluate="gpu-h100x8")
    assert (plan(moved, "pretrain").processes, plan(moved, "evaluate").processes) == (8, 1)
    assert container(moved, "pretrain")["resources"]["accelerator"]["resourceCount"] == "8"


def test_several_nodes_are_a_trainjob_that_a_small_pod_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = load_yaml(profiles.PROFILES)
    document["profiles"]["gpu-h100x8"]["count"] = 16
    document["profiles"]["gpu-h100x8"]["pod"]["nodes"] = 2
    path = tmp_path / "profiles.yaml"
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setattr(profiles, "PROFILES", path)
    moved = placed(pretrain="gpu-h100x8", evaluate="gpu-h100x8")
    given = plan(moved, "pretrain").trainjob
    assert json.loads(given[given.index("--pod") + 1])["nodes"] == 2
    assert "accelerator" not in container(moved, "pretrain")["resources"]
    assert "nodeSelector" not in pod(moved, "pretrain")
    assert pod(moved, "pretrain")["activeDeadlineSeconds"] == str(72 * 3600), "as long as the run may take"
    assert not plan(moved, "evaluate").trainjob


def test_where_a_step_runs_is_no_part_of_what_it_makes(version: dict[str, Any]) -> None:
    """What enters a record is in a component's arguments and in the image; both are the same on every pool.

    Kubeflow's cache compares image, command and arguments, and no variable: it holds across pools (K19).
    """
    here, there = compiled(TASK), compiled(TASK, profiles=dict.fromkeys(STEPS, "gpu-a100"))
    assert {**here.parameters, "version": ""} == {**there.parameters, "version": ""}
    moved = documents(there)[1]
    for step in STEPS:
        one, other = container(version, step), container(moved, step)
        assert (one["command"], one["args"], one["image"]) == (other["command"], other["args"], other["image"])
        assert {**variables(version, step), PLAN: ""} == {**variables(moved, step), PLAN: ""}
        assert tasks(version)[step]["inputs"] == tasks(moved)[step]["inputs"]


@pytest.mark.parametrize("step", STEPS)
def test_argo_is_asked_for_no_retries(version: dict[str, Any], step: str) -> None:
    """K6: it would wait for a backoff before it says Failed, and knows no exit code from another."""
    assert "retryPolicy" not in tasks(version)[step]


def test_a_stage_that_trains_in_a_pod_of_the_runs_counts_on_its_interval(
    version: dict[str, Any], a100: dict[str, Any]
) -> None:
    """K7: such a pod lives under a second once it is told to end."""
    assert {plan(a100, step).checkpoint_seconds for step in profiles.TRAINING} == {30.0}
    assert {plan(version, step).checkpoint_seconds for step in STEPS} == {None}


@pytest.mark.parametrize("task", load_yaml(ROOT / "data/tasks.yaml")["tasks"])
def test_every_step_is_told_by_what_the_launcher_replaces(task: str) -> None:
    """K1 to K3, on the committed files: the executor input alone, and nothing that would stay as it is."""
    text = (ROOT / f"pipelines/compiled/{task}.yaml").read_text()
    spec = list(yaml.load_all(text, Loader=yaml.CSafeLoader))[1]["spec"]
    assert unreplaced(spec) == []
    executors = spec["pipelineSpec"]["deploymentSpec"]["executors"]
    assert set(executors) == {f"exec-{step}" for step in STEPS}
    for name, executor in executors.items():
        step = name.removeprefix("exec-")
        assert executor["container"]["command"] == ["python", "-m", "graftline.pipelines.step", step]
        assert executor["container"]["args"] == ["--executor-input", "{{$}}"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("args", "{{$.outputs.output_file}}"),  # K1
        ("args", "{{$.pipeline_job_schedule_time_utc}}"),  # K2: only a task's constant input gets it
        ("args", "{{$.pipeline_job_uuid}}"),  # K3
        ("args", "--slot=[[ScheduledTime.20060102T150405Z]]"),  # K2
        ("command", "{{$.inputs.artifacts['raw'].metadata['sha256']}}"),
        ("env", "{{$.inputs.parameters['store']}}"),
        ("env", "{{workflow.uid}}"),
    ],
)
def test_a_placeholder_that_would_stay_is_found(version: dict[str, Any], field: str, text: str) -> None:
    changed = json.loads(json.dumps(version["spec"]))
    place = changed["pipelineSpec"]["deploymentSpec"]["executors"]["exec-validate"]["container"][field]
    place.append({"name": "X", "value": text} if field == "env" else text)
    (found,) = unreplaced(changed)
    assert f"exec-validate.container.{field}" in found
    assert text in found


def test_compiling_refuses_what_would_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    written = compiling.component_params(TASK) | {"publish_params": '{"publish": "{{$.pipeline_job_uuid}}"}'}
    monkeypatch.setattr(compiling, "component_params", lambda *given: written)
    with pytest.raises(InputError, match=r"publish_params.defaultValue.*pipeline_job_uuid"):
        compiled(TASK)


def test_a_macro_of_recurring_runs_is_found_in_what_a_run_is_given() -> None:
    """K2: in this back end's runs it stays as it is."""
    given = {"reason": '{"slot": "[[ScheduledTime.20060102T150405Z]]"}', "matrix": "[[1, 2], [3, 4]]"}
    assert unreplaced({"parameters": given}) == [f"parameters.reason: {given['reason']}"]


def fingerprints(pipeline: CompiledPipeline, given: Mapping[str, str], run: str) -> dict[str, str]:
    """Return what Kubeflow's cache compares (K19) of each step that it may skip: parameters, input artifacts' ids,
    image and command.

    An artifact's id is that of the run that made it, unless the step that makes it comes from the cache.
    """
    spec = documents(pipeline)[1]["spec"]["pipelineSpec"]
    found: dict[str, str] = {}
    inner = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    waiting = dict(inner)
    while waiting:
        name = next(name for name in waiting if not set(waiting[name].get("dependentTasks", [])) & set(waiting))
        task = waiting.pop(name)
        made = {
            each: found[each] if inner[each]["cachingOptions"].get("enableCache") else f"{each} of {run}"
            for each in found
        }
        read = {}
        for kind, value in ((k, v) for group in task["inputs"].values() for k, v in group.items()):
            if "componentInputParameter" in value:
                read[kind] = given[value["componentInputParameter"].removeprefix("pipelinechannel--")]
            else:
                (source,) = value.values()
                read[kind] = made[source["producerTask"]]
        box = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
        found[name] = json.dumps([read, box["image"], box["command"], box["args"]], sort_keys=True)
    return {step: found[step] for step in found if inner[step]["cachingOptions"].get("enableCache")}


def run_of(pipeline: CompiledPipeline, images: Images, *, slot: str, reason: dict[str, str], **data: str) -> Run:
    return Run(work_of(pipeline, images, **data), slot, reason)


def test_a_second_run_of_the_same_data_goes_on_where_the_first_one_ended(pipeline: CompiledPipeline) -> None:
    """K19: fetch to finetune come from the cache; with another head all before finetune do."""
    images, digest = load_images(), {"revision": "a" * 40, "data_digest": "d"}
    first = run_of(pipeline, images, **digest, slot="commit:a", reason={"who": "a"})
    second = run_of(pipeline, images, **digest, slot="20261128T000000Z", reason={"schedule": "n"})
    assert first.key != second.key
    before, after = (fingerprints(pipeline, run.parameters, name) for run, name in ((first, "1"), (second, "2")))
    assert set(before) == {"fetch", "validate", "pretrain", "finetune"}
    assert before == after
    moved = compiled(TASK, profiles={"all": "dev"})
    assert fingerprints(moved, second.parameters, "3") == before, "on any pool"
    changed = compiled(TASK, overrides={"finetune.epochs": 3})
    other = run_of(changed, images, **digest, slot="commit:a", reason={})
    kept = fingerprints(changed, other.parameters, "4")
    assert sorted(step for step in kept if kept[step] == before[step]) == ["fetch", "pretrain", "validate"]


def test_dev_runs_beside_kubeflow_on_two_cores() -> None:
    """A kind or minikube node of 2 cores and 8 GiB: it fits whatever it asks to be sure of."""
    small = placed(all="dev")
    for step in STEPS:
        resources = container(small, step)["resources"]
        assert resources["resourceCpuRequest"] == "0.2"
        assert resources["resourceMemoryRequest"] == ("512Mi" if step in ("claim", "conclude") else "1Gi")
        assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == ("2", "4Gi")
        assert "nodeAffinity" not in pod(small, step)
        assert not plan(small, step).trainjob


def test_the_pod_that_records_the_end_asks_for_a_corner_of_any_node(version: dict[str, Any]) -> None:
    """K13: after a cancel it is given some ten seconds to leave Pending."""
    resources = container(version, "conclude")["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceMemoryRequest"]) == ("0.2", "512Mi")


@pytest.mark.parametrize("step", STEPS)
def test_every_pod_is_secured_and_labelled(version: dict[str, Any], step: str) -> None:
    asked = pod(version, step)
    assert asked["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
    assert "/tmp" in {mount["mountPath"] for mount in asked["emptyDirMounts"]}
    assert asked["podMetadata"]["labels"]["graftline.dev/task"] == TASK
    # The API server puts the run's id there: a person may name a run as they like, and two runs alike.
    assert asked["podMetadata"]["labels"]["graftline.dev/run"] == "{{workflow.uid}}"
    fields = {each["name"]: each["fieldPath"] for each in asked["fieldPathAsEnv"]}
    assert fields == {
        "GRAFTLINE_RUN": "metadata.labels['graftline.dev/run']",
        "GRAFTLINE_POD": "metadata.name",
        "GRAFTLINE_NODE": "spec.nodeName",
    }
    environment = variables(version, step)
    assert environment["GRAFTLINE_IMAGE"] == container(version, step)["image"].partition("@")[2]
    assert environment["GRAFTLINE_ENGINE"] == "kubeflow"


def test_credentials_come_from_the_secret_only(version: dict[str, Any]) -> None:
    for step in STEPS:
        required, optional, *git = pod(version, step)["secretAsEnv"]
        assert [secret["secretName"] for secret in git] == (["graftline-git"] if step == "fetch" else [])
        assert all(secret["optional"] for secret in git)
        assert {required["secretName"], optional["secretName"]} == {"graftline-store"}
        assert [key["envVar"] for key in required["keyToEnv"]] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        assert not required["optional"]
        assert [key["envVar"] for key in optional["keyToEnv"]] == ["AWS_ENDPOINT_URL"]
        assert optional["optional"]
        assert not [each for each in container(version, step)["env"] if each["name"].startswith("AWS")]
    names = version["spec"]["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]
    assert not [name for name in names if re.search("secret|token|password|credential", name)]


def test_the_stages_and_no_other_step_have_the_signing_key_as_files(version: dict[str, Any]) -> None:
    for step in STEPS:
        volumes = pod(version, step).get("secretAsVolume", [])
        environment = variables(version, step)
        assert "GRAFTLINE_KEY" not in environment
        if step not in COMPONENTS:
            assert not volumes
            assert "GRAFTLINE_KEYS" not in environment
            continue
        (volume,) = volumes
        assert (volume["secretName"], volume["optional"]) == ("graftline-signing", True)
        assert volume["mountPath"] == environment["GRAFTLINE_KEYS"] == "/var/run/secrets/graftline/keys"


def test_the_git_token_is_for_the_host_of_the_settings_only(
    version: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trusted(version: dict[str, Any], step: str) -> list[str]:
        return [each["value"] for each in container(version, step)["env"] if each["name"] == "GRAFTLINE_GIT_ORIGIN"]

    assert {step: trusted(version, step) for step in STEPS} == {
        step: ["https://git.example.com"] if step == "fetch" else [] for step in STEPS
    }
    in_the_clear = settings.load_settings().model_copy(update={"repository": "http://git.example.com/repo.git"})
    monkeypatch.setattr(compiling, "load_settings", lambda: in_the_clear)
    assert trusted(placed(), "fetch") == []


def test_a_run_has_a_deadline_and_is_cleared_away(version: dict[str, Any]) -> None:
    """K17: the back end's defaults for success and failure, an hour, win over the first alone."""
    config = version["spec"]["platformSpec"]["platforms"]["kubernetes"]["pipelineConfig"]
    kept = dict.fromkeys(("Completion", "Success", "Failure"), 7 * 86_400)
    assert config == {"activeDeadlineSeconds": 72 * 3600} | {f"resourceTtlOn{k}": v for k, v in kept.items()}


def test_the_cache_is_told_the_content_of_what_a_step_reads(version: dict[str, Any]) -> None:
    """Of an artifact it compares the name only, so every input of a cached step has its digest as a parameter."""
    every = tasks(version)
    cached = {step for step in STEPS if every[step]["cachingOptions"].get("enableCache")}
    assert cached == {"fetch", "validate", "pretrain", "finetune"}
    validate = every["validate"]["inputs"]["parameters"]
    assert validate["cache_data"]["componentInputParameter"] == "pipelinechannel--data_digest"
    for step in ("pretrain", "finetune"):
        for name, read in every[step]["inputs"]["artifacts"].items():
            record = every[step]["inputs"]["parameters"][f"cache_{name}"]["taskOutputParameter"]
            assert record["outputParameterKey"] == "record"
            assert record["producerTask"] == read["taskOutputArtifact"]["producerTask"]


def test_no_cached_step_knows_the_run(version: dict[str, Any]) -> None:
    """Else its cache would be the run's own."""
    for step in ("fetch", "validate", "pretrain", "finetune"):
        text = json.dumps(tasks(version)[step]["inputs"])
        assert not re.search("run_key|reason|version", text)


def test_the_end_is_recorded_however_the_run_ends(version: dict[str, Any]) -> None:
    end = version["spec"]["pipelineSpec"]["root"]["dag"]["tasks"]["conclude"]
    assert end["dependentTasks"] == ["exit-handler-1"]
    assert end["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert end["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profiles": {"pretrain": "gpu-a10"}}, "did you mean 'gpu-a100'?"),
        ({"profiles": {"pretain": "gpu-a100"}}, "did you mean 'pretrain'?"),
        ({"overrides": {"finetune.epoch": 3}}, "unknown key; did you mean 'epochs'?"),
        ({"overrides": {"finetune.epochs": -1}}, "finetune.epochs"),
        ({"task": "mnits"}, "no task 'mnits'; did you mean 'mnist'?"),
    ],
)
def test_what_is_wrong_is_named(arguments: Mapping[str, Any], message: str) -> None:
    given = {"task": TASK, **arguments}
    with pytest.raises(InputError, match=re.escape(message)):
        compiled(given.pop("task"), **given)


def test_one_profile_is_for_the_stages_that_train_and_one_step_can_be_named() -> None:
    assert profiles.parse_choices(["gpu-a100", "pretrain=gpu-h100x8", "validate=cpu"]) == {
        "pretrain": "gpu-h100x8",
        "finetune": "gpu-a100",
        "evaluate": "gpu-a100",
        "validate": "cpu",
    }
    assert profiles.parse_choices(["all=dev", "evaluate=cpu"]) == dict.fromkeys(STEPS, "dev") | {"evaluate": "cpu"}
    with pytest.raises(InputError, match="no such step 'tune'"):
        profiles.parse_choices(["tune=cpu"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("resource: null", "resource goes with accelerators"),
        ("shm_gib: 26", "must be less"),
        ("nodes: 2", "pod.accelerators * pod.nodes is 2"),
        ("requests: {cpu: 9, memory_gib: 1}", "requests are more than cpu and memory_gib"),
        ("acelerators: 1", "did you mean 'accelerators'?"),
        ("retries: {limit: 8}", "the wait before start 9 is 7680 s, more than max_seconds, 3600"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(tmp_path: Path, change: str, message: str) -> None:
    document = load_yaml(profiles.PROFILES)
    document["profiles"]["gpu-l4-spot"]["pod"] |= yaml.safe_load(change)
    (tmp_path / "profiles.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(InputError, match=re.escape(message)):
        profiles.load_profiles(tmp_path / "profiles.yaml")


def test_the_key_is_the_same_for_the_same_run_and_for_no_other(pipeline: CompiledPipeline) -> None:
    images = load_images()
    given = {"revision": "a" * 40, "data_digest": "d", "slot": "2026-11-23T02:30:00Z", "reason": {}}
    first = run_of(pipeline, images, **given)
    assert re.fullmatch("[0-9a-f]{64}", first.key)
    assert first.parameters["run_key"] == first.key
    assert set(first.parameters) == set(pipeline.spec["pipelineSpec"]["root"]["inputDefinitions"]["parameters"])
    for same in ({"revision": "b" * 40}, {"reason": {"kind": "person"}}):
        assert run_of(pipeline, images, **{**given, **same}).key == first.key
    for other in ({"data_digest": "e"}, {"slot": "2026-11-30T02:30:00Z"}):
        assert run_of(pipeline, images, **{**given, **other}).key != first.key
    newer = Images(data=images.data, train=f"graftline/train@sha256:{'1' * 64}")
    assert run_of(pipeline, newer, **given).key != first.key
    changed = compiled(TASK, overrides={"finetune.epochs": 3})
    assert run_of(changed, images, **given).key != first.key


@pytest.mark.parametrize("task", ["mnist", "a" * 63, "snake_case"])
def test_a_runs_name_is_a_kubernetes_label(task: str) -> None:
    name = run_name(task, "0123456789abcdef" * 4)
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", name)
    assert name.endswith("-0123456789abcdef")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "FOLDER", tmp_path / "compiled")
    return tmp_path / "compiled"


def test_check_shows_what_is_out_of_date_and_writes_nothing(folder: Path, pipeline: CompiledPipeline) -> None:
    run = CliRunner().invoke
    assert run(app, ["compile", TASK]).exit_code == 0
    path = folder / f"{TASK}.yaml"
    assert path.read_bytes() == pipeline.manifest
    assert run(app, ["compile", TASK, "--check"]).exit_code == 0
    edited = pipeline.manifest.replace(b"sizeLimit: 2Gi", b"sizeLimit: 9Gi")
    path.write_bytes(edited)
    checked = run(app, ["compile", TASK, "--check"])
    assert checked.exit_code == 1
    assert "-                sizeLimit: 9Gi" in checked.output
    assert "+                sizeLimit: 2Gi" in checked.output
    assert "run `graftline compile`" in checked.output
    assert path.read_bytes() == edited


def test_a_manifest_without_its_task_is_stale(
    folder: Path, pipeline: CompiledPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "listed_tasks", lambda: [TASK])
    folder.mkdir()
    (folder / f"{TASK}.yaml").write_bytes(pipeline.manifest)
    (folder / "gone.yaml").write_text("kind: Pipeline\n")
    run = CliRunner().invoke
    assert run(app, ["compile", "--check"]).exit_code == 1
    assert (folder / "gone.yaml").exists()
    assert run(app, ["compile"]).exit_code == 0
    assert not (folder / "gone.yaml").exists()


def test_kfp_is_told_who_asks_without_a_look_at_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    from kfp.dsl import pipeline_task

    monkeypatch.setattr(pipeline_task.inspect, "stack", lambda: pytest.fail("of each frame it looks for the source"))
    compiled(TASK)
    task = pipeline_task.PipelineTask.__new__(pipeline_task.PipelineTask)
    task.state, task.container_spec = pipeline_task.TaskState.FUTURE, None
    with compiling._quick_to_tell(), pytest.raises(ValueError, match=r"^set_memory_limit can only be used"):
        task.set_memory_limit("1G")
