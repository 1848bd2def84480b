"""K20: what a cluster starts in the image `data`, and all that compiles, checks and submits, needs no torch.

Each test runs in a process that finds none of the packages which only the image `train` holds. That the commands also
run in the built image is tests/containers' to show.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.test_structure import module_name

from graftline.environment import ROOT
from graftline.tasks.documents import listed_tasks

_REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "tokenizers", "safetensors", "peft"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Refuse())
"""
IN_DATA = (
    "graftline.components.validate",
    "graftline.components.publish",
    "graftline.pipelines.fetch",
    "graftline.pipelines.conclude",
    "graftline.pipelines.metrics",
)


def without_torch(code: str, *arguments: str) -> str:
    """Return what the code prints."""
    command = [sys.executable, "-c", _REFUSE + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_packages_are_refused() -> None:
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        without_torch("import graftline.problems.fit")


def test_every_tasks_parameters_are_checked_and_its_pipeline_compiled() -> None:
    code = (
        "from graftline.pipelines.compile import compiled\nfrom graftline.tasks.documents import listed_tasks\n"
        "for task in listed_tasks(): print(compiled(task).version)"
    )
    versions = without_torch(code).split()
    assert [version.rpartition("-")[0] for version in versions] == [
        f"retrain-{task.replace('_', '-')}" for task in listed_tasks()
    ]


def test_the_schema_is_written_without_torch() -> None:
    code = "from graftline.cli.schema import schema_text; print(schema_text(), end='')"
    assert without_torch(code) == (ROOT / "docs/schema/params.json").read_text()


def test_every_module_of_pipelines_is_imported_without_torch() -> None:
    modules = [module_name(path) for path in sorted((ROOT / "pipelines").rglob("*.py"))]
    assert "graftline.pipelines.conclude" in modules
    without_torch("from importlib import import_module\nfor name in sys.argv[1:]: import_module(name)", *modules)


HELP = """
import runpy

def module(name):
    sys.argv = [name, "--help"]
    runpy.run_module(name, run_name="__main__")

def command(name):
    from graftline.cli.app import main
    sys.argv = ["graftline", name, "--help"]
    main()

what, *names = sys.argv[1:]
for name in names:
    try:
        globals()[what](name)
    except SystemExit as end:
        assert not end.code, name
"""


def test_commands_of_the_image_data_start() -> None:
    assert without_torch(HELP, "module", *IN_DATA).count("usage:") == len(IN_DATA)


def test_components_of_the_image_data_load_their_work() -> None:
    names = ["validate", "publish"]
    without_torch("\n".join(f"from graftline.components.{name} import COMPONENT; COMPONENT.load()" for name in names))


def test_commands_of_graftline_start() -> None:
    commands = ("compile", "submit", "reconcile", "fetch", "drift", "schema")
    assert without_torch(HELP, "command", *commands).count("Usage:") == len(commands)
