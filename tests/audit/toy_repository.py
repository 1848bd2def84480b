"""A repository with one task whose components take no time: what each makes depends on all that it is given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import forked

from graftline.audit.erase import dvc_content
from graftline.environment import ROOT
from graftline.tasks.parameters import COMPONENTS

PARAMS = """\
    from graftline.tasks.parameters import Params


    class {title}Params(Params):
        rate: float = 0.1
"""
TOY = """\
    import json
    from hashlib import sha256

    from graftline.tasks.{name} import {title}Params


    def run(context):
        params = context.section("{name}", {title}Params)
        whole = sha256(str(params.rate).encode())
        for name in sorted(context.paths):
            path = context.paths[name]
            files = sorted(path.rglob("*.*")) if path.is_dir() else [path]
            for file in files:
                if file.name not in ("record.json", "record.dsse.json", "execution.json"):
                    whole.update(file.read_bytes())
        files = {{
            "model.safetensors": whole.hexdigest(), "schema.json": "{{}}", "profile.json": "{{}}", "head.json": "{{}}",
            "metrics.json": json.dumps({{"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95}}),
            "decision.json": json.dumps({{"passed": True, "reason": "toy", "champion": None, "rules": [
                {{"name": "accuracy", "passed": True, "value": 0.9, "limit": 0.0, "comparison": ">="}}
            ]}}),
        }}
        for name, text in files.items():
            (context.out / name).write_text(text)
"""


def git(repo: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", "-C", str(repo), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def environment(repo: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRAFTLINE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    keys = str(repo.parent / "keys")
    return kept | {"PYTHONPATH": str(repo / "src"), "PATH": path, "COLUMNS": "160", "GRAFTLINE_KEYS": keys}


def python(repo: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = forked.run([sys.executable, *arguments], cwd=repo, env=environment(repo), text=True, timeout=120)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def command(repo: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `graftline NAME ...` with the repository's own code."""
    program = f"""
import sys, typer
from graftline.cli.{name} import {name}
from graftline.component import fail
from graftline.errors import GraftlineError
app = typer.Typer()
app.command()({name})
try:
    app()
except GraftlineError as error:
    sys.exit(fail("graftline", error))
"""
    return python(repo, "-c", program, *arguments, check=False)


def make_repository(repo: Path, toys: tuple[str, ...], expectations: str) -> None:
    """Make the repository with the task `toy`, not yet committed; the task's raw folder is empty."""
    repo.mkdir(parents=True)
    for folder in ("src", "components", "pipelines"):
        shutil.copytree(ROOT / folder, repo / folder)
    (repo / ".dvc").mkdir()
    names = ("dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore", "requirements.lock")
    for name in names:
        shutil.copy(ROOT / name, repo / name)
    for folder in ("components", "pipelines"):
        (repo / "src/graftline" / folder).symlink_to(f"../../{folder}")
    for name in toys:
        words = {"name": name, "title": name.capitalize()}
        (repo / f"components/{name}/{name}.py").write_text(dedent(TOY).format(**words))
        (repo / f"src/graftline/tasks/{name}.py").write_text(dedent(PARAMS).format(**words))
    task = repo / "data/toy"
    (task / "raw").mkdir(parents=True)
    (task / "expectations.yaml").write_text(expectations)
    sections = "".join(f"{name}: {{}}\n" for name in COMPONENTS)
    (task / "params.yaml").write_text(f"task: toy\n{sections}")
    shutil.copy(ROOT / "data/mnist/dvc.yaml", task / "dvc.yaml")
    (repo / "data/tasks.yaml").write_text("tasks:\n  - toy\n")
    git(repo, "init", "-q")


def add_raw(repo: Path) -> None:
    """Make the raw folder a version of the task's data, and commit."""
    dvc_content.add_raw(repo, "toy")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "raw data")


RUN = """
import sys, json
from importlib import import_module
from graftline.component import main
for name, arguments in json.loads(sys.argv[1]):
    main(import_module(f"graftline.components.{name}").COMPONENT, arguments)
"""


def run_components(repo: Path) -> None:
    """Make a release as an engine does, of all components in one process."""
    made: list[str] = []
    runs = []
    outputs = dict(zip(COMPONENTS, ("dataset", "trunk", "model", "evaluation", "release"), strict=True))
    for component, output in outputs.items():
        arguments = ["--params", "data/toy/params.yaml", f"--out-{output}", f"outputs/toy/{output}"]
        if component == "validate":
            arguments += ["--in-raw", "data/toy/raw", "--in-expectations", "data/toy/expectations.yaml"]
        for name in made if component != "finetune" else made[:2]:
            arguments += [f"--in-{name}", f"outputs/toy/{name}"]
        runs.append((component, arguments))
        made.append(output)
    python(repo, "-c", RUN, json.dumps(runs))
