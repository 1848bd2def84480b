"""Commands of `graftline`, run in this process: loading torch costs each new one seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from graftline.cli.app import main

Done = tuple[int, str, str]
"""Exit code, output, error."""


def on_store(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs a command on this store, in a terminal of 200 columns and with one thread."""
    torch.set_num_threads(1)

    def run(*arguments: object, store: Path = store) -> Done:
        monkeypatch.setattr(sys, "argv", ["graftline", *map(str, arguments), "--store", str(store)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return run
