"""Debian packages that tests make."""

from __future__ import annotations

import io
import tarfile

from graftline.importers.packages import AR_MAGIC


def deb(files: dict[str, bytes]) -> bytes:
    """Return a Debian package, deb(5), packed quickly."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    data = tar.getvalue()
    return AR_MAGIC + f"{'data.tar':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
