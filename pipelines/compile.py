"""Compile the pipeline to IR YAML, with a task's parameters filled in as the defaults."""

from __future__ import annotations

import json
from pathlib import Path

SECTIONS = {
    "validate": ("validate",),
    "pretrain": ("pretrain",),
    "finetune": ("finetune",),
    "evaluate": ("evaluate", "finetune"),  # it runs finetune's fit
    "publish": ("publish",),
}
"""The parameter sections that each component reads."""


def compile_task(task: str | None, path: Path) -> None:
    """Write the pipeline to `path` as IR YAML, the same bytes on every call; None leaves the parameters open.

    Raises:
        InputError: the task does not exist or its parameters are wrong.
    """
    from kfp.compiler import Compiler

    from graftline.durable import write_atomic
    from graftline.pipelines.retrain import retrain

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.aside.yaml")  # the compiler wants a name that ends in .yaml
    try:
        Compiler().compile(retrain, str(aside), pipeline_parameters=component_params(task) if task else None)
        write_atomic(path, aside.read_bytes())
    finally:
        aside.unlink(missing_ok=True)


def component_params(task: str) -> dict[str, str]:
    """Return each component's `--params`, defaults filled in, by the name of the pipeline's parameter."""
    from graftline.cli.run import task_parameters
    from graftline.cli.schema import check_parameters, parameter_models
    from graftline.params import load_document, section

    document, where = load_document(task_parameters(task))
    check_parameters(document, where, task)
    values = {
        name: section(document, where, name, model).model_dump(mode="json")
        for name, model in parameter_models().items()
    }
    return {
        f"{component}_params": json.dumps(
            {"task": task} | {name: values[name] for name in names}, sort_keys=True
        )
        for component, names in SECTIONS.items()
    }
