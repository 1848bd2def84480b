"""`graftline embed RELEASE_OR_TRUNK PATH...`: a vector of each text, for search and clustering."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from graftline.values.strings import read_texts, string_of

if TYPE_CHECKING:
    from graftline.values.column import Question

_OUTPUTS = (".parquet", ".npy")


def embed(
    source: Annotated[str, typer.Argument(help="task@version or task@alias, or the folder of a trunk or a model")],
    paths: Annotated[
        list[Path] | None, typer.Argument(help=".txt (a document a line), .jsonl or Parquet files, or folders")
    ] = None,
    texts: Texts = None,
    out: Annotated[Path | None, typer.Option("--out", help="write a .parquet or .npy file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print a list of objects for programs")] = False,
    column: Annotated[str, typer.Option("--column", help="the column or key that holds the text")] = "text",
    store: Annotated[str, STORE] = "",
) -> None:
    """Turn texts into vectors: the mean of the last hidden states of their tokens, float32."""
    if out is None and not as_json:
        raise InputError("graftline embed", "no place for the vectors", expected="--out FILE, or --json")
    if out is not None and out.suffix not in _OUTPUTS:
        raise InputError(out, f"a file of type '{out.suffix}'", expected=" or ".join(_OUTPUTS))
    folder = _folder(source, store)
    from graftline.problems.embedding import embed as embed_texts

    documents = read_texts(paths or [], texts or [], column)
    vectors = embed_texts(folder, [string_of(document.value) for document in documents])
    if out is not None:
        _write(out, documents, vectors)
    if as_json:
        pairs = zip(documents, vectors, strict=True)
        print(json.dumps([{"input": d.name, "embedding": v.tolist()} for d, v in pairs]))


def _folder(source: str, store: str) -> Path:
    """Return the folder of a trunk, a model or a release, verified, and of kind text. Raises InputError."""
    from graftline.problems.embedding import check_text

    folder = Path(source)
    if not folder.is_dir():
        opened = open_given(store)
        folder = fetch(opened, resolve(opened, source))
    else:
        verify(folder)
    check_text(folder, source)
    return folder


def _write(out: Path, documents: list[Question], vectors: np.ndarray) -> None:
    """Write (n, width) vectors: as an array, or with the inputs' names as a table."""
    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, vectors)
    else:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        names = pa.array([document.name for document in documents])
        pq.write_table(pa.table({"input": names, "embedding": lists}), buffer, compression="zstd")
    write_atomic(out, buffer.getvalue())
