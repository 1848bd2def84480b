"""The `graftline` command. A command's module is loaded when the command is called, so help is fast."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from graftline.component import exits
from graftline.processes import importing

COMMANDS = {
    "new": "Make a task of data as you have it: look at it, guess, ask what cannot be known, write data/TASK.",
    "run": "Bring a task's release up to date with its data, code and parameters, skipping what has not changed.",
    "plan": "Say what a run of a task takes: parameters, tokens, operations, memory, time and cost.",
    "predict": "Ask a release what it says of each image, text, clip, question or list of items, and how sure it is.",
    "explain": "Say what a release looks at in its input, by several methods, and how far each can be believed.",
    "embed": "Turn texts into vectors, the mean of their tokens' last hidden states; or histories into users' vectors.",
    "releases": "List releases, oldest first.",
    "fetch": "Copy a release's files, every byte verified, to a folder that `from_pretrained` and servers read.",
    "rollback": "Point an alias at an earlier release again. It is recorded in the ledger; nothing is deleted.",
    "import": "Make a task's raw data from its public source; equal bytes on every run.",
    "convert": (
        "Turn a PyTorch file of image weights into safetensors, unpickling nothing but tensors; keep both digests."
    ),
    "compile": (
        "Write pipelines/compiled/TASK.yaml: the Kubeflow pipeline as Kubernetes "
        "manifests, the same bytes on every call."
    ),
    "submit": "Start a run on Kubeflow Pipelines, on the data of the commit that is checked out.",
    "reconcile": "Start what pipelines/schedules.yaml wants at the commit that is checked out; record how runs ended.",
    "drift": "Print what pipelines/schedules.yaml wants against what is there.",
    "doctor": (
        "Ask the cluster of kubectl's current context what a run needs; say what was found, what is needed, what to do."
    ),
    "federate": (
        "Fine-tune where the data lie: each site for itself, in rounds; average their signed updates, and release."
    ),
    "join": "Take part in a task's federated rounds with data that stay here: answer each order until the run ends.",
    "schema": "Write docs/schema/params.json, which each params.yaml names on its first line, for editors.",
}
"""Each command and the first line of its help: `graftline --help` prints them without loading any."""
LINEAGE = {
    "trace": (
        "Show what made a model: every step, its inputs to the raw files, code, image, parameters, metrics, trigger."
    ),
    "impact": "Show what something reached: every data set, trunk, model, release and alias, through every step.",
    "verify": (
        "Re-hash bytes, check signatures, the chain of records, the ledger and aliases; say what differs, and how."
    ),
    "diff": "List the causes of the difference between two models, each once, at the step where it begins.",
    "reproduce": "Make a release again in a clean checkout of its commit, and say whether the bits are the same.",
    "erase": "Remove a row or a person's rows from data, caches and indices, keep them out, and mark every model.",
    "evidence": (
        "Write one file with records, proofs, model card and data sheet, and a verifier that needs no Graftline."
    ),
    "export": "Write a release's lineage in a form that other tools read (docs/exports.md).",
    "index": "Look at every key of the store and bring the index up to date; list what had to be left out.",
    "ui": "Serve pages over the store's index: models, releases, lineage, what changed, what data reached. Read-only.",
    "keys": "The keys that sign records, releases and the ledger.",
    "ledger": "The log of releases, promotions, rollbacks, erasures and keys; without a command, list it.",
}
"""The commands in help's second panel, "Lineage and audit"."""
PLACES = {
    "rollback": "releases:rollback",
    "import": "import_data:import_data",
    "compile": "compile:compile_pipeline",
    "drift": "reconcile:drift",
    "keys": "keys:app",
    "ledger": "ledger:app",
}
"""MODULE:NAME in graftline.cli, where that is not the command's own name twice."""


def load(name: str) -> Any:
    """Return the command `name` as its own module declares it."""
    module, _, attribute = PLACES.get(name, f"{name}:{name}").partition(":")
    with importing():
        declared = getattr(import_module(f"graftline.cli.{module}"), attribute)
    if isinstance(declared, typer.Typer):
        return get_command(declared)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(declared)
    return get_command(alone)


class LazyGroup(TyperGroup):
    """Lists each command by its line of help, and loads the one that is called."""

    def __init__(self, **given: Any) -> None:
        panels = {**dict.fromkeys(COMMANDS), **dict.fromkeys(LINEAGE, "Lineage and audit")}
        lines = COMMANDS | LINEAGE
        listed = {name: TyperCommand(name, help=lines[name], rich_help_panel=panel) for name, panel in panels.items()}
        super().__init__(**(given | {"commands": listed}))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and load(str(name)), rest


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def graftline() -> None:
    """Retrain pretrained models, and prove where every model came from."""


def main() -> None:
    """Run the command and exit: 0 done, 2 bad input, 3 refused, 75 try again, 130 interrupted, 1 otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what is printed is UTF-8, whatever the locale
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    with exits("graftline"):
        app()
