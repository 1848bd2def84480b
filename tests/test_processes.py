"""What a process does at its start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graftline.processes import later


def test_what_is_loaded_later_is_loaded_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module and one of a package; afterwards anyone's import is as ever."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "asked_for.py").write_text("print('loaded')\nVALUE = 3\n")
    (tmp_path / "package_of").mkdir()
    (tmp_path / "package_of/__init__.py").touch()
    (tmp_path / "package_of/part.py").write_text("VALUE = 4\n")
    with later("asked_for", "package_of.part", "json"):
        import json

        import asked_for  # type: ignore[import-not-found]
        from package_of import part  # type: ignore[import-not-found]
    assert json.dumps is sys.modules["json"].dumps, "what is there already is what it was"
    assert not {"asked_for", "package_of.part"} & set(sys.modules)
    assert (asked_for.VALUE, part.VALUE) == (3, 4)
    assert sys.modules["asked_for"].VALUE == 3 and sys.modules["asked_for"] is not asked_for
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = asked_for.nothing
    for name in ("asked_for", "package_of", "package_of.part"):
        del sys.modules[name]


def test_what_hardly_anyone_needs_of_great_expectations_is_not_loaded() -> None:
    """A process of its own: this one has loaded what other tests need."""
    code = (
        "from graftline.values.suite import any_batch; any_batch(); import sys;"
        "print([name for name in ('altair', 'scipy.stats') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
