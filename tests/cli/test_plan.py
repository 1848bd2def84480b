"""`graftline plan` as a user starts it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import forked
import pytest

from graftline.cli import plan as command
from graftline.cli.plan import plan
from graftline.engines import local
from graftline.plan import make_plan
from graftline.profiles import load_profiles


def test_a_plan_is_printed_and_kept_and_says_what_each_profile_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (command, local):  # in the second a dataset is looked for: this checkout may have run the task
        monkeypatch.setattr(module, "OUTPUTS", tmp_path)
    monkeypatch.setattr(command, "cpu_count", lambda: 1)
    monkeypatch.setitem(make_plan.__kwdefaults__, "seconds", 0.05)
    plan("mnist", as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "mnist/plan.json").read_text())
    assert [row["stage"] for row in printed["rows"]] == ["pretrain", "finetune", "evaluate"]
    assert printed["data_rows"] == {"train": 3500, "val": 500, "test": 1000, "unlabelled": 4000}
    assert [cost["profile"] for cost in printed["costs"]] == list(load_profiles())
    assert all(cost["cost"] > 0 and cost["fits"] for cost in printed["costs"])
    assert printed["start_seconds"] > 0
    monkeypatch.setattr(command, "start_seconds", lambda pretrain: 1.0)  # a process that loads torch
    plan("mnist", profile="gpu-l4-spot")
    table = capsys.readouterr().out
    for words in (r"pretrain +1 +328k +2\.5k +320k", "evaluate +32", "this machine", r"gpu-l4-spot .* GiB"):
        assert re.search(words, table), table
    assert "gpu-a100" not in table


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("mnits",), "no task 'mnits'; did you mean 'mnist'?"),
        (("mnist", "--profile", "gpu-a10"), "no such profile; did you mean 'gpu-a100'?"),
    ],
)
def test_an_unknown_name_is_one_line(arguments: tuple[str, ...], says: str) -> None:
    code = "from graftline.cli.app import main; main()"
    done = forked.run([sys.executable, "-c", code, "plan", *arguments], text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert says in line
