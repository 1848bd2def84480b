"""Pixels that are gathered from a file a batch at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftline.errors import InputError
from graftline.values.pixels import Pixels, npy_header

SHAPE = (4, 6, 3)


@pytest.fixture
def stored() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, *SHAPE), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path, stored: np.ndarray) -> Path:
    path = tmp_path / "image.npy"
    path.write_bytes(npy_header(stored.shape) + stored.tobytes())
    return path


def test_images_of_a_file_come_channels_first_from_0_to_1_in_any_order(file: Path, stored: np.ndarray) -> None:
    pixels = Pixels.in_file(file, np.array([7, 3, 3, 49]), SHAPE)
    expected = stored[[7, 3, 3, 49]].transpose(0, 3, 1, 2) / np.float32(255)
    assert pixels.shape == expected.shape
    assert np.array_equal(pixels.numpy(), expected)
    assert np.array_equal(pixels.take(np.array([3, 0])).numpy(), expected[[3, 0]])
    assert np.array_equal(np.concatenate(list(pixels.parts(3))), expected)


def test_arrays_say_all_and_do_not_copy_the_file(file: Path) -> None:
    pixels = Pixels.in_file(file, np.array([1, 2]), SHAPE)
    arrays = pixels.arrays()
    assert isinstance(arrays["pixels"], np.memmap) and not arrays["pixels"].flags.owndata
    assert np.array_equal(Pixels.from_arrays(arrays).numpy(), pixels.numpy())


def test_numbers_in_memory_stay_what_they_are() -> None:
    images = np.random.default_rng(0).random((3, 3, 4, 6), dtype=np.float32)
    assert np.array_equal(Pixels.of_numbers(images).numpy(), images)


@pytest.mark.parametrize("shape", [(6, 4, 3), (4, 6, 1)])
def test_a_file_of_other_images_is_refused(file: Path, shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="run validate again"):
        Pixels.in_file(file, np.array([0]), shape)


def test_a_place_beyond_the_file_and_a_file_that_is_cut_are_refused(file: Path) -> None:
    with pytest.raises(InputError, match="at least 51 of"):
        Pixels.in_file(file, np.array([50]), SHAPE)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="not a file of pixels"):
        Pixels.in_file(file, np.array([0]), SHAPE)
