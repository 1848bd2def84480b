"""Opening a model folder as anyone would who has transformers and not Graftline."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small

ALONE = """
import json, sys
for name in ("graftline", "peft"):
    sys.modules[name] = None  # any import of it fails
try:
    import graftline
    raise SystemExit("graftline can be imported")
except ImportError:
    pass
import numpy, torch, transformers
torch.set_num_threads(1)
for line in sys.stdin:
    folder, auto, texts, out = json.loads(line)
    model = getattr(transformers, auto).from_pretrained(folder, local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    words = {"is_split_into_words": True} if isinstance(texts[0], list) else {}
    with torch.no_grad():
        padded = model(**tokenizer(texts, padding=True, return_tensors="pt", **words)).logits
        single = [model(**tokenizer([text], return_tensors="pt", **words)).logits[0] for text in texts]
    numpy.savez(out, padded=padded.numpy(), **{f"single{n}": logits.numpy() for n, logits in enumerate(single)})
    print(json.dumps(model.config.id2label), flush=True)
"""
Logits = tuple[np.ndarray, list[np.ndarray], dict[str, str]]


@pytest.fixture(scope="session")
def process() -> Iterator[subprocess.Popen[str]]:
    """A process that cannot import graftline; one for all tests, for it starts slowly."""
    command = [sys.executable, "-I", "-c", ALONE]
    with forked.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        yield started
        assert started.stdin is not None
        started.stdin.close()


@pytest.fixture
def alone(process: subprocess.Popen[str], tmp_path: Path) -> Callable[..., Logits]:
    """Return the logits of padded texts, of each text alone, and the label names, by transformers alone."""

    def opened(folder: Path, auto: str, texts: list[Any]) -> Logits:
        assert process.stdin is not None and process.stdout is not None
        out = tmp_path / "logits.npz"
        process.stdin.write(json.dumps([str(folder), auto, texts, str(out)]) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the process failed; its error is above"
        found = np.load(out)
        return found["padded"], [found[f"single{n}"] for n in range(len(texts))], json.loads(answer)

    return opened


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.dataset(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.trunk(tmp_path_factory.getbasetemp())
