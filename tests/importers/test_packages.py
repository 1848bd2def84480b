"""Files out of published packages: what is damaged in them."""

import io
import lzma
import random
import tarfile

import pytest

from graftline.errors import InputError
from graftline.importers.packages import AR_MAGIC, deb_folder


def deb(data: bytes, suffix: str) -> bytes:
    """Return a Debian package whose one member is data.tar, packed so."""
    header = f"data.tar{suffix}".ljust(16) + "0".ljust(12) + "0".ljust(6) * 2 + "100644".ljust(8)
    return AR_MAGIC + (header + str(len(data)).ljust(10) + "`\n").encode() + data


def test_a_debian_package_that_is_damaged_inside_is_refused() -> None:
    """The beginning is whole, so that it is opened."""
    packed = io.BytesIO()
    drawn = random.Random(0)
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("a/1.txt", "a/2.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 100_000
            archive.addfile(entry, io.BytesIO(bytes(drawn.choices(b"abcdef", k=entry.size))))
    whole = lzma.compress(packed.getvalue())
    assert sorted(deb_folder(deb(whole, ".xz"), "x.deb", "a", ".txt")) == ["a/1.txt", "a/2.txt"]
    half = len(whole) // 2
    cut = whole[:half] + b"\xff" * 400 + whole[half + 400 :]
    with pytest.raises(InputError, match=r"x\.deb: a damaged Debian package"):
        deb_folder(deb(cut, ".xz"), "x.deb", "a", ".txt")
