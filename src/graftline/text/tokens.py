"""Token files: a corpus tokenised once, ahead, and read by memory map.

    <folder>/00000.ids      ids of the first shard's documents end to end, little-endian uint16 or uint32
    <folder>/00000.offsets  int64: where each document begins in them, and where the last one ends
    <folder>/00000.rows     int64: the row of the shard that each document comes from
    <folder>/00000.json     manifest: of which shard, by which tokenizer, counts, sha256 of the three files
    <folder>/tokens.json    written last: the digest of every manifest

A document here is what a model sees at once: a long text makes several. Files are written aside, flushed and renamed,
a shard's manifest after its files. A run that was killed goes on after the last shard with a manifest, and a shard
whose files do not verify is made again. The bytes do not depend on the number of threads.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.canonical import canonical_json, read_json
from graftline.digests import sha256_bytes, sha256_file
from graftline.durable import exclusive, fsync_directory, write_atomic
from graftline.errors import InputError
from graftline.text.corpus import OpenShard, Shard, open_shard
from graftline.text.tokenizer import document_marks, plain_backend, tokenizer_digest

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

INDEX = "tokens.json"
KINDS = ("ids", "offsets", "rows")
FORMAT = 1
"""Raised when equal input gives other files: those of an older format are then made again."""
AHEAD = 4
"""Batches a thread that are read ahead of the one being written."""
MAX_MAPPED = 256
"""Files mapped at once: each holds a file descriptor."""

Report = Callable[[int, int], None]
"""Called now and then with the documents and tokens so far."""


@dataclass(frozen=True)
class Row:
    """Where a document comes from."""

    shard: str
    """Name of the shard in its corpus."""
    row: int
    """From 0; of a JSONL shard, one less than the line."""

    def __str__(self) -> str:
        return f"{self.shard}:{self.row}"


class TokenFiles:
    """The token files of a corpus; documents are numbered from 0 across all shards.

    Files are mapped when they are first read; only 4 bytes a document are held in memory.
    """

    def __init__(self, folder: Path, manifests: Sequence[dict[str, Any]]) -> None:
        """See `open_tokens`."""
        self.folder, self.manifests = folder, manifests
        self._mapped = lru_cache(MAX_MAPPED)(_map)
        counts = [manifest["documents"] for manifest in manifests]
        self._first = np.cumsum([0, *counts])  # (shards + 1,) number of each shard's first document
        lengths = [np.diff(self._part(shard, "offsets")).astype(np.int32) for shard in range(len(counts))]
        self.lengths: np.ndarray = np.concatenate(lengths)
        """(n,), int32: tokens of each document, its marks included."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """All tokens, the marks included."""
        return sum(manifest["tokens"] for manifest in self.manifests)

    @property
    def tokenizer(self) -> str:
        """The digest of the tokenizer, as `tokenizer_digest` gives it."""
        return str(self.manifests[0]["made_of"]["tokenizer"])

    @property
    def digest(self) -> str:
        """A sha256 in hex over all ids, the documents' bounds and their order: what a model learns from."""
        return sha256_bytes(canonical_json([[m["files"]["ids"], m["files"]["offsets"]] for m in self.manifests]))

    def gather(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of some documents end to end, (total,) int64, and their lengths, (k,) int32.

        Args:
            documents: (k,) integers, numbers of documents in any order, repeats allowed.
        """
        lengths = self.lengths[documents]
        ends = np.cumsum(lengths, dtype=np.int64)
        ids = np.empty(int(ends[-1]) if len(ends) else 0, np.int64)
        shards = self._shard_of(documents)
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            starts = self._part(shard, "offsets")[documents[here] - self._first[shard]]
            source = _spans(starts, lengths[here])
            ids[_spans(ends[here] - lengths[here], lengths[here])] = self._part(shard, "ids")[source]
        return ids, lengths

    def rows(self, documents: Iterable[int]) -> list[Row]:
        """Return where documents come from, for a message that names them."""
        found = []
        for document in documents:
            shard = int(self._shard_of(np.array([document]))[0])
            row = self._part(shard, "rows")[document - self._first[shard]]
            found.append(Row(self.manifests[shard]["made_of"]["shard"]["name"], int(row)))
        return found

    def _shard_of(self, documents: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first, documents, side="right") - 1

    def _part(self, shard: int, kind: str) -> np.ndarray:
        return self._mapped(_path(self.folder, int(shard), kind), self.manifests[shard]["dtypes"][kind])


def tokenise(
    shards: Sequence[Shard],
    column: str,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    *,
    workers: int = 1,
    max_length: int = 512,
    report: Report = lambda documents, tokens: None,
) -> TokenFiles:
    """Tokenise a corpus into `out`, but for the shards that are there already.

    Each text gets the marks of `document_marks`. One of more than `max_length` tokens, marks included, is cut into
    pieces which all get them. Empty texts are skipped and counted. A special token's name inside a text is text.

    Args:
        shards: the corpus, in the order that documents are numbered in.
        column: the column that holds the text.
        tokenizer: the tokenizer.
        out: the folder; a lock beside it keeps a second process out.
        workers: threads. The tokenizers library works outside Python's interpreter lock; a tenth of the time is
            spent inside it, so more than about ten threads gain little.
        max_length: in tokens.
        report: told of the progress.

    Raises:
        InputError: a shard cannot be read, or no shard has a token, or another process writes to `out`.
    """
    encoder = _Encoder.of(tokenizer, max_length)
    wanted = {"format": FORMAT, "column": column, "tokenizer": tokenizer_digest(tokenizer), "max_length": max_length}
    with exclusive(out, what="tokenise"), _one_thread_a_call(), ThreadPoolExecutor(workers) as pool:
        out.mkdir(exist_ok=True)
        task = _Task(out, column, encoder, pool, AHEAD * workers, report)
        manifests = [
            task.shard(number, shard, wanted | {"shard": _known_by(shard)}) for number, shard in enumerate(shards)
        ]
        if not sum(manifest["tokens"] for manifest in manifests):
            raise InputError(
                f"column {column}", f"no text in {len(shards)} shards", expected="documents that are not empty"
            )
        _write_index(out, len(shards))
    return open_tokens(out)


def open_tokens(folder: Path) -> TokenFiles:
    """Return the token files in `folder`. Sizes are checked; `tokenise` also checks the content.

    Raises:
        InputError: they are not there, or not whole, or of several runs.
    """
    index = read_json(folder / INDEX)
    seals = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(seals, list) or not seals:
        raise InputError(folder / INDEX, "no list of manifests", fix="tokenise again")
    manifests = []
    for number, seal in enumerate(seals):
        manifest = _read_manifest(folder, number)
        if manifest is None or sha256_file(_path(folder, number, "json")) != seal:
            raise InputError(
                _path(folder, number, "json"), f"not the manifest that {INDEX} names", fix="tokenise again"
            )
        for kind, size in _sizes(manifest).items():
            path = _path(folder, number, kind)
            found = path.stat().st_size if path.exists() else 0
            if found != size:
                raise InputError(path, f"{found} bytes", expected=f"{size} bytes", fix="tokenise again")
        manifests.append(manifest)
    return TokenFiles(folder, manifests)


# Encoding


@dataclass(frozen=True)
class _Encoded:
    """A batch of texts as ids."""

    ids: np.ndarray
    """(total,), of all documents end to end."""
    lengths: np.ndarray
    """(k,), int64: tokens of each document."""
    sources: np.ndarray
    """(k,), int64: which text of the batch each document is from."""
    texts: int
    """How many texts the batch had."""


@dataclass(frozen=True)
class _Encoder:
    """Turns texts into ids with marks."""

    backend: Tokenizer
    before: np.ndarray
    after: np.ndarray
    room: int
    """Most tokens of a document without its marks."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, max_length: int) -> _Encoder:
        backend = plain_backend(tokenizer)
        backend.encode_special_tokens = True  # a text cannot smuggle in a mark by its name
        dtype = "<u2" if max(tokenizer.get_vocab().values()) < 1 << 16 else "<u4"
        before, after = (np.array(ids, dtype) for ids in document_marks(tokenizer))
        room = max_length - len(before) - len(after)
        if room < 1:
            raise InputError(
                "max_length", str(max_length), expected=f"at least {max_length - room + 1}: the marks need room"
            )
        return cls(backend, before, after, room)

    def encode(self, texts: list[str]) -> _Encoded:
        """Return the documents that `texts` make; a text of white space makes none."""
        filled = [number for number, text in enumerate(texts) if not text.isspace()]
        encodings = self.backend.encode_batch_fast(
            texts if len(filled) == len(texts) else [texts[number] for number in filled], add_special_tokens=False
        )
        lists = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(chain.from_iterable(lists), self.before.dtype, int(lengths.sum()))
        return self._framed(ids, lengths, np.array(filled, np.int64), len(texts))

    def _framed(self, ids: np.ndarray, lengths: np.ndarray, sources: np.ndarray, texts: int) -> _Encoded:
        """Cut texts of more than `room` tokens and put the marks around each piece."""
        pieces = -(-lengths // self.room)  # per text, rounded up; 0 for one without tokens
        parts = np.full(pieces.sum(), self.room)  # (k,) tokens of each piece
        filled = pieces > 0
        parts[np.cumsum(pieces)[filled] - 1] = (lengths - (pieces - 1) * self.room)[filled]
        whole = parts + len(self.before) + len(self.after)
        ends = np.cumsum(whole)
        framed = np.empty(ends[-1] if len(ends) else 0, ids.dtype)
        is_text = np.ones(len(framed), bool)
        for place, mark in enumerate(self.before):
            framed[ends - whole + place] = mark
            is_text[ends - whole + place] = False
        for place, mark in enumerate(self.after[::-1], 1):
            framed[ends - place] = mark
            is_text[ends - place] = False
        framed[is_text] = ids
        return _Encoded(framed, whole, np.repeat(sources, pieces), texts)


@contextmanager
def _one_thread_a_call() -> Iterator[None]:
    """Keep the tokenizers library from starting threads of its own: `workers` says how many there are."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# Writing


@dataclass
class _Task:
    """One call of `tokenise`."""

    out: Path
    column: str
    encoder: _Encoder
    pool: ThreadPoolExecutor
    ahead: int
    """Batches that are encoded or wait to be written."""
    report: Report
    documents: int = 0
    tokens: int = 0

    def shard(self, number: int, shard: Shard, made_of: dict[str, Any]) -> dict[str, Any]:
        """Return the manifest of a shard's files, which are made unless they are there and verify."""
        manifest = _verified(self.out, number, made_of)
        if manifest is None:
            documents, tokens = self.documents, self.tokens
            with open_shard(shard) as opened, _ShardFiles(self.out, number, self.encoder) as files:
                for encoded in self._encoded(opened):
                    files.add(encoded)
                    self.report(documents + files.documents, tokens + files.tokens)
                manifest = files.finish(made_of, str(opened.shard.sha256))
        self.documents += manifest["documents"]
        self.tokens += manifest["tokens"]
        self.report(self.documents, self.tokens)
        return manifest

    def _encoded(self, opened: OpenShard) -> Iterator[_Encoded]:
        """Yield the shard's batches in order, encoded by all threads; few are in memory at any time."""
        waiting: deque[Future[_Encoded]] = deque()
        for texts in opened.documents(self.column):
            waiting.append(self.pool.submit(self.encoder.encode, texts))
            if len(waiting) > self.ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass
class _Aside:
    """A file that is written under another name, and hashed meanwhile."""

    path: Path
    digest: Any = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        self.aside = self.path.with_name(f".{self.path.name}.aside")  # the lock keeps a second writer out
        self.file = self.aside.open("wb")

    def write(self, values: np.ndarray) -> None:
        data = values.tobytes()
        self.digest.update(data)
        self.file.write(data)

    def finish(self) -> str:
        """Flush the file to the disk and give it its name; return its sha256."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.aside.rename(self.path)
        return str(self.digest.hexdigest())

    def drop(self) -> None:
        self.file.close()
        self.aside.unlink(missing_ok=True)


class _ShardFiles:
    """The three files of one shard while they are written. What was not finished is removed."""

    def __init__(self, folder: Path, number: int, encoder: _Encoder) -> None:
        self._folder, self._number = folder, number
        self._dtypes = {"ids": encoder.before.dtype.str, "offsets": "<i8", "rows": "<i8"}
        self.documents = self.tokens = self._texts = self._filled = 0

    def __enter__(self) -> _ShardFiles:
        with ExitStack() as stack:
            self._files = {kind: _Aside(_path(self._folder, self._number, kind)) for kind in KINDS}
            for file in self._files.values():
                stack.callback(file.drop)
            self._files["offsets"].write(np.zeros(1, "<i8"))
            self._dropped = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._dropped.close()

    def add(self, encoded: _Encoded) -> None:
        """Write the documents of the shard's next batch."""
        self._files["ids"].write(encoded.ids)
        self._files["offsets"].write((self.tokens + np.cumsum(encoded.lengths)).astype("<i8"))
        self._files["rows"].write((self._texts + encoded.sources).astype("<i8"))
        self.documents += len(encoded.lengths)
        self.tokens += len(encoded.ids)
        self._texts += encoded.texts
        self._filled += len(np.unique(encoded.sources))

    def finish(self, made_of: dict[str, Any], shard_sha256: str) -> dict[str, Any]:
        """Put the files in place, then their manifest, which is returned."""
        _path(self._folder, self._number, "json").unlink(missing_ok=True)  # of files that are now replaced
        digests = {kind: file.finish() for kind, file in self._files.items()}
        fsync_directory(self._folder)
        manifest = {
            "made_of": made_of,
            "sha256": shard_sha256,
            "documents": self.documents,
            "tokens": self.tokens,
            "texts": self._texts,
            "skipped": self._texts - self._filled,
            "dtypes": self._dtypes,
            "files": digests,
        }
        sealed = {"content": manifest, "sha256": sha256_bytes(canonical_json(manifest))}
        write_atomic(_path(self._folder, self._number, "json"), canonical_json(sealed))
        return manifest


def _write_index(folder: Path, count: int) -> None:
    """Write the list of manifests, and remove the files of shards beyond it, which an earlier run left."""
    seals = [sha256_file(_path(folder, number, "json")) for number in range(count)]
    write_atomic(folder / INDEX, canonical_json({"manifests": seals}))
    for path in folder.glob("[0-9]*.*"):
        if path.stem.isdigit() and int(path.stem) >= count:
            path.unlink()


# Manifests


def _known_by(shard: Shard) -> dict[str, Any]:
    """Return what tells whether a shard is still the same: its content, or what S3 calls it before it is read."""
    version = {"sha256": shard.sha256} if shard.etag is None else {"etag": shard.etag}
    return {"name": shard.name, "size": shard.size, **version}


def _verified(folder: Path, number: int, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a shard whose files are there and whole; None if they are to be made."""
    if not _path(folder, number, "json").exists():
        return None
    manifest = _read_manifest(folder, number)
    if manifest is None:
        why = "the manifest is damaged"
    elif manifest["made_of"] != made_of:
        why = "of another shard, column, tokenizer or length"
    elif damaged := _damaged_file(folder, number, manifest):
        why = f"{damaged} differs from its manifest"
    else:
        return manifest
    print(f"{folder / f'{number:05d}'}: {why}; tokenised again", file=sys.stderr)
    return None


def _damaged_file(folder: Path, number: int, manifest: dict[str, Any]) -> str | None:
    for kind, digest in manifest["files"].items():
        path = _path(folder, number, kind)
        if not path.exists() or sha256_file(path) != digest:
            return path.name
    return None


def _read_manifest(folder: Path, number: int) -> dict[str, Any] | None:
    """Return a manifest that is as it was written, or None."""
    try:
        sealed = read_json(_path(folder, number, "json"))
        manifest: dict[str, Any] = sealed["content"]
        return manifest if sha256_bytes(canonical_json(manifest)) == sealed["sha256"] else None
    except (InputError, KeyError, TypeError):
        return None


def _sizes(manifest: dict[str, Any]) -> dict[str, int]:
    """Return how many bytes each file has."""
    counts = {"ids": manifest["tokens"], "offsets": manifest["documents"] + 1, "rows": manifest["documents"]}
    return {kind: count * np.dtype(manifest["dtypes"][kind]).itemsize for kind, count in counts.items()}


# Reading


def _path(folder: Path, number: int, kind: str) -> Path:
    return folder / f"{number:05d}.{kind}"


def _map(path: Path, dtype: str) -> np.ndarray:
    if path.stat().st_size == 0:  # nothing can be mapped
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r")


def _spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return start, start + 1, ... of each span, one after the other: (sum of lengths,) int64."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)
