"""dvc.yaml and the Kubeflow pipeline are one graph, and both say what the components declare."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest

from graftline.component import Component
from graftline.environment import ROOT
from graftline.executor_input import read_executor_input
from graftline.pipelines.compile import SECTIONS, compiled
from graftline.pipelines.step import Plan, command
from graftline.tasks.parameters import COMPONENTS, OPTIONAL
from graftline.yamlfile import load_yaml

TASK = "mnist"
# Flags of the engine: where releases live (DVC leaves it to $GRAFTLINE_STORE) and what Kubeflow is told.
ENGINE_FLAGS = {"--store", "--executor-output"}
AROUND = ("claim", "fetch")
"""Steps of a cluster's run before the stages."""


@dataclass(frozen=True)
class Stage:
    """One stage as an engine's file describes it."""

    module: str
    flags: frozenset[str]
    """Without the engine's own."""
    sources: tuple[tuple[str, str], ...]
    """(input, the `stage.output` that feeds it), sorted; an input from outside feeds itself: `(raw, raw)`."""
    sections: tuple[str, ...]
    """The parameter sections that it reads, sorted, without `task`."""
    keeps_no_result: bool
    """True if the engine's cache is off, since the result depends on the store as well."""


def pairs(command: list[str]) -> dict[str, Any]:
    """Return a command's flags and their values."""
    assert len(command) % 2 == 0
    return dict(zip(command[::2], command[1::2], strict=True))


@pytest.fixture(scope="module")
def dvc_graph() -> dict[str, Stage]:
    stages = load_yaml(ROOT / "dvc.yaml")["stages"]
    made_by = {
        path: f"{name}.{path.rsplit('/', 1)[-1]}"
        for name in stages
        for path in map(first_key, stages[name]["do"]["outs"])
    }
    return {name: dvc_stage(stage["do"], made_by) for name, stage in stages.items()}


def first_key(entry: str | dict[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def dvc_stage(stage: dict[str, Any], made_by: dict[str, str]) -> Stage:
    python, m, module, *rest = stage["cmd"].split()
    assert (python, m) == ("python", "-m")
    given = pairs(rest)
    assert given["--params"] == "data/${item}/params.yaml"
    inputs = {flag.removeprefix("--in-"): path for flag, path in given.items() if flag.startswith("--in-")}
    outputs = {path for flag, path in given.items() if flag.startswith("--out-")}
    data = {dep for dep in stage["deps"] if not dep.startswith(("components", "src"))}
    assert data == set(inputs.values()), "DVC's deps are the command's inputs"
    assert outputs == set(map(first_key, stage["outs"])), "DVC's outs are the command's outputs"
    (tracked,) = stage["params"]
    ((file, keys),) = tracked.items()
    assert file == given["--params"]
    assert "task" in keys
    return Stage(
        module=module,
        flags=frozenset(given),
        sources=tuple(sorted((name, made_by.get(path, name)) for name, path in inputs.items())),
        sections=tuple(sorted(set(keys) - {"task"})),
        keeps_no_result=all(isinstance(out, dict) and out[first_key(out)].get("persist") for out in stage["outs"]),
    )


@pytest.fixture(scope="module")
def pipeline_spec() -> dict[str, Any]:
    """The pipeline as a cluster gets it: the stages lie inside the exit handler."""
    spec: dict[str, Any] = compiled(TASK, profiles=dict.fromkeys(COMPONENTS, "cpu")).spec["pipelineSpec"]
    return spec


@pytest.fixture(scope="module")
def tasks(pipeline_spec: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = pipeline_spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return inner


@pytest.fixture(scope="module")
def kubeflow_graph(pipeline_spec: dict[str, Any], tasks: dict[str, Any]) -> dict[str, Stage]:
    return {name: kubeflow_stage(pipeline_spec, name, task) for name, task in tasks.items() if name not in AROUND}


def started(spec: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the flags and values of the program that a step starts, given what its component declares."""
    component = spec["components"][f"comp-{name}"]
    read, made = (component.get(f"{way}Definitions", {}) for way in ("input", "output"))

    def listed(artifacts: Any) -> dict[str, Any]:
        return {each: {"artifacts": [{"uri": f"s3://bucket/{each}"}]} for each in artifacts}

    given = {
        "inputs": {
            "parameterValues": {each: f"<{each}>" for each in read["parameters"]},
            "artifacts": listed(read.get("artifacts", {})),
        },
        "outputs": {"artifacts": listed(made.get("artifacts", {})), "outputFile": "/tmp/kfp_outputs.json"},
    }
    python, m, module, *rest = command(name, read_executor_input(json.dumps(given)), Plan())
    assert (python, m) == (sys.executable, "-m")
    return {"module": module, **pairs(rest)}


def kubeflow_stage(spec: dict[str, Any], name: str, task: dict[str, Any]) -> Stage:
    given = started(spec, name)
    module = given.pop("module")
    for flag, value in given.items():
        if flag.startswith(("--in-", "--out-")):
            assert value == f"/s3/bucket/{flag.removeprefix('--in-').removeprefix('--out-')}"
    assert given["--params"] == "<params>"
    parameter = task["inputs"]["parameters"]["params"]["componentInputParameter"]
    parameter = parameter.removeprefix("pipelinechannel--")
    default = spec["root"]["inputDefinitions"]["parameters"][parameter]["defaultValue"]
    return Stage(
        module=module,
        flags=frozenset(given) - ENGINE_FLAGS,
        sources=tuple(sorted((name, source(read)) for name, read in task["inputs"]["artifacts"].items())),
        sections=tuple(sorted(json.loads(default).keys() - {"task"})),
        keeps_no_result=not task.get("cachingOptions", {}).get("enableCache"),
    )


def source(read: dict[str, Any]) -> str:
    """Return `stage.output`; what `fetch` brings feeds itself, as what DVC's pointer and the folder name does."""
    made = read["taskOutputArtifact"]
    output: str = made["outputArtifactKey"]
    return output if made["producerTask"] == "fetch" else f"{made['producerTask']}.{output}"


def declared(name: str) -> Component:
    component: Component = import_module(f"graftline.components.{name}").COMPONENT
    return component


def test_both_engines_run_the_same_graph(dvc_graph: dict[str, Stage], kubeflow_graph: dict[str, Stage]) -> None:
    assert list(dvc_graph) == list(COMPONENTS)
    assert sorted(kubeflow_graph) == sorted(dvc_graph)
    for name, stage in dvc_graph.items():
        assert stage == kubeflow_graph[name]


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_graph_is_what_the_component_declares(name: str, dvc_graph: dict[str, Stage]) -> None:
    stage, component = dvc_graph[name], declared(name)
    assert stage.module == f"graftline.components.{name}"
    flags = {"--params", f"--out-{component.output}", *(f"--in-{i}" for i in (*component.sources, *component.inputs))}
    assert stage.flags == flags
    made_by = {declared(other).output: other for other in COMPONENTS}
    expected = [(i, i) for i in component.sources] + [(i, f"{made_by[i]}.{i}") for i in component.inputs]
    assert stage.sources == tuple(sorted(expected))


def test_components_that_use_the_store_are_told_where_it_is(pipeline_spec: dict[str, Any]) -> None:
    for name in COMPONENTS:
        given = started(pipeline_spec, name)
        assert given.get("--store") == ("<store>" if declared(name).uses_store else None)
        assert given["--executor-output"] == "/tmp/kfp_outputs.json"


@pytest.mark.parametrize("name", [*AROUND, "conclude"])
def test_what_surrounds_the_stages_takes_the_arguments_that_it_is_given(
    name: str, pipeline_spec: dict[str, Any]
) -> None:
    given = started(pipeline_spec, name)
    module = import_module(given.pop("module"))
    with pytest.raises(SystemExit) as ended:
        module.main([word for flag, value in given.items() for word in (flag, value)] + ["--help"])
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        module.main([word for flag, value in given.items() for word in (flag, value)])
    assert ended.value.code == 2, "of the values, which are none"


def test_a_run_claims_its_key_before_anything_else(tasks: dict[str, Any]) -> None:
    assert tasks["fetch"]["dependentTasks"] == ["claim"]
    first = [name for name, task in tasks.items() if not task.get("dependentTasks")]
    assert first == ["claim"]
    assert not tasks["claim"]["cachingOptions"]


def test_both_engines_read_the_same_data(dvc_graph: dict[str, Stage], tasks: dict[str, Any]) -> None:
    """`fetch` brings what validate reads from data/<task>, and nothing else reads from outside."""
    outside = {name for stage in dvc_graph.values() for name, made in stage.sources if name == made}
    assert outside == {"raw", "expectations"}
    brought = {
        read["taskOutputArtifact"]["outputArtifactKey"]
        for task in tasks.values()
        for read in task["inputs"].get("artifacts", {}).values()
        if read["taskOutputArtifact"]["producerTask"] == "fetch"
    }
    assert brought == outside


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_sections_are_those_that_the_code_reads(name: str, dvc_graph: dict[str, Stage]) -> None:
    """Every `context.section("...")` in the component's folder is a tracked parameter, and vice versa.

    But those of what is no stage of the graph: a site's round.
    """
    read = {
        node.args[0].value
        for path in (ROOT / "components" / name).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "section"
        if node.args and isinstance(node.args[0], ast.Constant)
    }
    assert tuple(sorted(read - {*OPTIONAL})) == dvc_graph[name].sections == tuple(sorted(SECTIONS[name]))


def test_results_that_depend_on_the_store_are_not_taken_from_a_cache(dvc_graph: dict[str, Stage]) -> None:
    assert {name for name, stage in dvc_graph.items() if stage.keeps_no_result} == {"evaluate", "publish"}


def test_every_image_is_named_in_one_place(pipeline_spec: dict[str, Any]) -> None:
    from graftline.images import load_images

    executors = pipeline_spec["deploymentSpec"]["executors"]
    used = {name: executor["container"]["image"] for name, executor in executors.items()}
    images = load_images()
    training = {f"exec-{name}" for name in ("pretrain", "finetune", "evaluate")}
    assert used == {name: images.train if name in training else images.data for name in executors}
    retrain = (ROOT / "pipelines/retrain.py").read_text()
    assert not [image for image in used.values() if image.partition("@")[0] in retrain]


def test_the_listed_tasks_are_the_folders_with_parameters() -> None:
    folders = sorted(path.parent.name for path in (ROOT / "data").glob("*/params.yaml"))
    assert sorted(load_yaml(ROOT / "data/tasks.yaml")["tasks"]) == folders
