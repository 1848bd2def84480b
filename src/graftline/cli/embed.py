"""`graftline embed RELEASE_OR_TRUNK PATH...`: a vector of each text or user, for search and clustering."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from graftline.cli.stores import STORE, Texts, open_given
from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.records.folder import verify
from graftline.releases.catalogue import resolve
from graftline.releases.fetching import fetch

_OUTPUTS = (".parquet", ".npy")


def embed(
    source: Annotated[str, typer.Argument(help="task@version or task@alias, or the folder of a trunk or a model")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help=".txt (a document or a history a line), .jsonl or Parquet files, or folders"),
    ] = None,
    texts: Texts = None,
    out: Annotated[Path | None, typer.Option("--out", help="write a .parquet or .npy file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a list of objects for programs")] = False,
    column: Annotated[
        str, typer.Option("--column", help="the column or key that holds the text or the items")
    ] = "text",
    own: Annotated[bool, typer.Option("--own", help="the vectors of a recommender's items; takes no input")] = False,
    store: Annotated[str, STORE] = "",
) -> None:
    """Turn texts into vectors, the mean of their tokens' last hidden states; or histories into users' vectors.

    float32. A history is the ids of a user's items, with spaces between or as a list.
    """
    if out is None and not as_json:
        raise InputError("graftline embed", "no place for the vectors", expected="--out FILE, or --json")
    if out is not None and out.suffix not in _OUTPUTS:
        raise InputError(out, f"a file of type '{out.suffix}'", expected=" or ".join(_OUTPUTS))
    from graftline.problems.embedding import check_kind, embed_own, embed_values, read_values

    folder = _folder(source, store)
    kind = check_kind(folder, source)
    if own:
        if paths or texts:
            raise InputError("--own", "an input too", expected="nothing else to embed")
        names, vectors = embed_own(folder, kind, source)
    else:
        documents = read_values(paths or [], texts or [], column, kind)
        names = [document.name for document in documents]
        vectors = embed_values(folder, [document.value for document in documents], kind)
    if out is not None:
        _write(out, names, vectors)
    if as_json:
        pairs = zip(names, vectors, strict=True)
        print(json.dumps([{"input": name, "embedding": v.tolist()} for name, v in pairs]))


def _folder(source: str, store: str) -> Path:
    """Return the folder of a trunk, a model or a release, verified. Raises InputError."""
    folder = Path(source)
    if not folder.is_dir():
        opened = open_given(store)
        folder = fetch(opened, resolve(opened, source))
    else:
        verify(folder)
    return folder


def _write(out: Path, names: list[str], vectors: np.ndarray) -> None:
    """Write (n, width) vectors: as an array, or with the inputs' names as a table."""
    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, vectors)
    else:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        pq.write_table(pa.table({"input": pa.array(names), "embedding": lists}), buffer, compression="zstd")
    write_atomic(out, buffer.getvalue())
