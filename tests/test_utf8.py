"""Everything that is read and written is UTF-8, whatever the locale."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graftline.environment import ROOT

FOLDERS = ("src", "components", "pipelines", "tools", "bench", "infra")
SHIPPED = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale whose encoding is ASCII, without what Python does about it."""
OTHER_OPENERS = {"os", "webbrowser", "tarfile", "Image", "Picture", "zip", "archive", "fs"}
"""What has an `open` that takes no encoding."""


def mode(call: ast.Call, place: int) -> str:
    """Return the mode that a call of `open` gives, or that it has by default."""
    given = [k.value for k in call.keywords if k.arg == "mode"] + call.args[place : place + 1]
    return str(given[0].value) if given and isinstance(given[0], ast.Constant) else "r"


def in_the_locales_encoding(source: str) -> Iterator[int]:
    """Yield the line of each call that reads or writes text and does not say in which encoding."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or "encoding" in {k.arg for k in call.keywords}:
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        positional = {"write_text": 2, "read_text": 1, "TextIOWrapper": 2}
        if name in positional:
            wrong = len(call.args) < positional[name]
        elif name in ("open", "fdopen"):
            owner = ast.unparse(call.func).split(".")[-2:-1]
            method = bool(owner) and name == "open"
            wrong = "b" not in mode(call, 0 if method else 1) and not (method and owner[0] in OTHER_OPENERS)
        elif name in ("NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile"):
            wrong = "w" in mode(call, 0) and "b" not in mode(call, 0)
        else:
            wrong = any(
                k.arg in ("text", "universal_newlines") and getattr(k.value, "value", False) is True
                for k in call.keywords
            ) and not ast.unparse(call.func).startswith("pa.")
        if wrong:
            yield call.lineno


@pytest.mark.parametrize(
    "call",
    [
        "open(p)", "open(p, 'w')", "p.open('a', newline='')", "p.read_text()", "p.write_text(t)", "os.fdopen(n, 'w')",
        "subprocess.run(c, text=True)", "TemporaryFile('w')", "io.TextIOWrapper(b)",
    ],
)  # fmt: skip
def test_a_call_without_an_encoding_is_found(call: str) -> None:
    assert list(in_the_locales_encoding(call)) == [1]


def test_every_call_that_reads_or_writes_text_says_utf_8() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SHIPPED
        for line in in_the_locales_encoding(path.read_text(encoding="utf-8"))
    ]
    assert not found, 'add encoding="utf-8" (of a process: instead of text=True): ' + ", ".join(found)


def test_a_component_reads_writes_and_prints_utf_8_in_another_locale(tmp_path: Path) -> None:
    """Labels in the raw data, the contract and the parameters; the report and the line that says what is wrong."""
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [{"text": f"Zeile {n}: größer", "label": ("schön", "häßlich")[n % 2]} for n in range(60)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (raw / "a.jsonl").write_text(lines, encoding="utf-8")
    contract = tmp_path / "expectations.yaml"
    label = "  label: {type: string, role: label, classes: [schön, häßlich]}\n"
    contract.write_text("columns:\n  text: {type: text}\n" + label, encoding="utf-8")

    def validate(params: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "graftline.components.validate", "--params", params, "--in-raw", raw,
                   "--in-expectations", contract, "--store", "store", "--out-dataset", "dataset"]  # fmt: skip
        return subprocess.run(command, cwd=tmp_path, env=os.environ | ASCII, capture_output=True, check=False)

    done = validate('{"task": "moods"}')
    assert done.returncode == 0, done.stderr.decode()
    schema = json.loads((tmp_path / "dataset/schema.json").read_text(encoding="utf-8"))
    assert "schön" in json.dumps(schema, ensure_ascii=False)
    assert "häßlich" in (tmp_path / "dataset/report.html").read_text(encoding="utf-8")
    done = validate('{"task": "größe"}')
    assert done.returncode == 2
    assert "größe" in done.stderr.decode()


def test_a_changed_parameter_keeps_comments_in_another_locale(checkout: Path) -> None:
    params = next((checkout / "data").glob("*/params.yaml"))
    params.with_name("raw.dvc").unlink()  # the run ends after the change: there is no data
    params.write_text("# für alle, 中文\n" + params.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-c", "from graftline.cli.app import main; main()", "run", params.parent.name]
    environment = os.environ | ASCII | {"PYTHONPATH": str(checkout / "build/package")}
    done = subprocess.run(
        [*command, "--set", "finetune.epochs=3"], cwd=checkout, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 2 and b"neither raw data nor a pointer" in done.stderr
    text = params.read_text(encoding="utf-8")
    assert text.startswith("# für alle, 中文\n") and "epochs: 3" in text
