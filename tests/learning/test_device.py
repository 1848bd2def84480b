"""One place decides where a process computes; the number of GPUs is given, so that no GPU is needed to see it."""

from __future__ import annotations

import sys
from typing import Any

import forked
import pytest
import torch

from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.learning import device as module
from graftline.learning import distributed
from graftline.learning.device import at_once, count, device, own_number, place, send
from graftline.learning.precision import arithmetic, multiplies_tiles


def torchrun(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    for name, value in {**names, "TORCHELASTIC_RUN_ID": "job"}.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the machine have so many GPUs; nothing is put on them."""

    def there_are(number: int) -> None:
        monkeypatch.setattr(module, "count", lambda: number)
        monkeypatch.setattr(module, "_prepare", lambda name: None)

    return there_are


def test_each_of_torchruns_processes_has_the_gpu_of_its_number(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(4)
    monkeypatch.setenv("LOCAL_RANK", "3")  # a stray variable: nothing was started by torchrun
    assert device() == torch.device("cuda:0")
    torchrun(monkeypatch, 2, 4)
    assert device() == torch.device("cuda:2")
    gpus(0)
    assert device() == torch.device("cpu")


def test_workers_have_the_gpus_in_turn_and_are_no_more_than_these(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(3)
    for number, name in enumerate(("cuda:0", "cuda:1", "cuda:2", "cuda:0")):
        monkeypatch.setattr(module, "_worker", number)
        assert (own_number(), str(device())) == (number, name)
    assert [at_once(workers, 3) for workers in (2, 8)] == [2, 3]
    assert at_once(8, 0) == 8


def test_more_processes_than_gpus_are_refused(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(1)
    torchrun(monkeypatch, 1, 2)
    with pytest.raises(InputError, match="2 processes on a machine with 1 GPUs; expected a GPU for each"):
        distributed.start()


def test_auto_narrows_convolutions_on_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    if not count():
        assert arithmetic("auto") == "bfloat16"
        assert arithmetic("auto", narrow_on_cpu=False) == "float32"
    assert arithmetic("bfloat16", narrow_on_cpu=False) == "bfloat16"


@pytest.mark.parametrize(("tiles", "found"), [(True, "bfloat16"), (False, "float32")])
def test_vision_trunks_are_narrowed_on_cpus_with_tiles_only(
    tiles: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    if not count():
        assert arithmetic("auto", narrow_on_cpu=multiplies_tiles()) == found


def test_on_a_cpu_a_batch_stays_where_it_is() -> None:
    batch = torch.ones(2)
    assert send(batch, torch.device(place(0, 0))) is batch


@pytest.mark.skipif(count() > 0, reason="runs where there is no GPU")
def test_gpu_check_says_in_one_line_that_there_is_no_gpu() -> None:
    done = forked.run([sys.executable, "-m", "bench.gpu"], cwd=ROOT, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["gpu-check: no GPU here; run it on a machine with one"]
    assert done.stdout == ""
