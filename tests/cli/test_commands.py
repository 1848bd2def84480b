"""The commands as a user starts them: help, start-up imports, documentation, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys

import forked
import pytest

from graftline.cli.app import COMMANDS, LINEAGE, load
from graftline.environment import ROOT
from graftline.tasks.parameters import COMPONENTS

HEAVY = {"torch", "pyarrow", "kfp", "dvc", "great_expectations", "matplotlib", "boto3", "pandas", "numpy"}
GRAFTLINE = "from graftline.cli.app import main; main()"
ALL = [*COMMANDS, *LINEAGE]


def graftline(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-c", GRAFTLINE, *arguments], text=True, timeout=60)


def test_the_commands_are_these() -> None:
    assert set(ALL) == {
        "new",
        "run",
        "plan",
        "predict",
        "federate",
        "join",
        "releases",
        "rollback",
        "import",
        "convert",
        "compile",
        "embed",
        "explain",
        "schema",
        "submit",
        "reconcile",
        "drift",
        "doctor",
        "fetch",
        "trace",
        "impact",
        "verify",
        "diff",
        "reproduce",
        "erase",
        "evidence",
        "export",
        "index",
        "ui",
        "keys",
        "ledger",
    }


@pytest.mark.parametrize("command", ALL)
def test_a_command_has_help(command: str) -> None:
    done = graftline(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize("name", ALL)
def test_help_lists_a_command_by_the_first_line_of_its_own_help(name: str) -> None:
    """What `graftline --help` says without loading the command is what the command says of itself."""
    first, _, _ = load(name).help.partition("\n\n")
    assert first.replace("\n", " ") == (COMMANDS | LINEAGE)[name]


def test_every_command_is_in_the_readme_or_the_guide() -> None:
    readme = (ROOT / "README.md").read_text() + (ROOT / "docs/guide.md").read_text()
    missing = [command for command in ALL if f"graftline {command}" not in readme]
    assert not missing, f"README.md does not show {missing}"


def test_every_make_target_is_listed_by_make_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    done = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    assert re.findall(r"^make ([\w-]+)", done.stdout, re.MULTILINE) == phony.split()


@pytest.mark.parametrize(
    ("start", "arguments"),
    [
        (GRAFTLINE, ["--help"]),
        (GRAFTLINE, ["run", "--help"]),
        *(
            (f"import runpy; runpy.run_module('graftline.components.{name}', run_name='__main__')", ["--help"])
            for name in COMPONENTS
        ),
    ],
    ids=["graftline", "graftline run", *COMPONENTS],
)
def test_help_does_not_wait_for_heavy_imports(start: str, arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['it', *{arguments!r}]\n"
        f"try:\n    exec({start!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\nLOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.partition("LOADED")[2].split())
    assert "graftline" in loaded
    assert not loaded & HEAVY


def test_an_unknown_task_is_one_line_with_the_nearest_name() -> None:
    done = graftline("run", "mnits")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no task 'mnits'; did you mean 'mnist'?" in line


@pytest.mark.parametrize("task", ["../mnist", "/etc", "mnist/../mnist", ""])
def test_a_task_is_a_name_and_not_a_path(task: str) -> None:
    done = graftline("run", task)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("finetune.learning_rte=1", "did you mean 'learning_rate'?"),
        ("finetun.learning_rate=1", "did you mean 'finetune'?"),
        ("finetune.learning_rate=-1", "learning_rate: -1"),
        ("finetune.learning_rate", "expected KEY=VALUE"),
        ("task=other", "expected KEY=VALUE"),
    ],
)
def test_a_wrong_assignment_is_refused_and_the_file_stays(assignment: str, message: str) -> None:
    path = ROOT / "data/mnist/params.yaml"
    before = path.read_bytes()
    done = graftline("run", "mnist", "--set", assignment)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert path.read_bytes() == before
