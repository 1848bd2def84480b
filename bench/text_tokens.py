"""Tokenise a large corpus: peak memory, and the rate against the tokenizers library's own `encode_batch`.

`python -m bench tokenise [--megabytes 1000]` repeats and shuffles the glosses of WordNet into 8
Parquet shards, tokenises them in a process of its own and prints its peak memory; then it tokenises a sample and
calls `encode_batch` on the same documents, in turn, and prints the medians. It deletes everything.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import Figure
from graftline.environment import ROOT
from graftline.text.corpus import iterate_documents, list_shards
from graftline.text.tokenizer import TokenizerParams, load_tokenizer, plain_backend, save_tokenizer, train_tokenizer
from graftline.text.tokens import TokenFiles, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXT = ROOT / "data/glosses/raw/glosses.parquet"
SHARDS = 8
ROUNDS = 5
BATCH = 1000
"""Documents a call of `encode_batch`, as `Dataset.map(batched=True)` calls it by default."""
SAMPLE_MEGABYTES = 6
KINDS = ("wordpiece", "bpe")
POLL_SECONDS = 0.2


def measure_tokenise(megabytes: int) -> list[Figure]:
    """Return the peak memory on a corpus of `megabytes` and the rates with one thread and with two."""
    command = f"python -m bench tokenise --megabytes {megabytes}"
    figures = []
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as folder:
        work = Path(folder)
        make_corpus(work / "large", megabytes)
        make_corpus(work / "sample", SAMPLE_MEGABYTES)
        peak, facts = _peak(work, "large", threads=2, command="once")
        print(json.dumps(facts | {"peak_mib": peak >> 20}), file=sys.stderr, flush=True)
        name = f"memory of tokenising {megabytes:,} MB"
        figures.append(Figure(name, peak / 2**30, "<", 1, "GiB", command))
        for threads in (1, 2):
            _, ratios = _peak(work, "sample", threads=threads, command="compare")
            print(json.dumps({"threads": threads} | ratios), file=sys.stderr, flush=True)
            for kind in KINDS:
                name = f"tokenising rate / encode_batch, {kind}, {threads} threads"
                figures.append(Figure(name, ratios[kind]["ratio"], ">=", 0.9, "", command))
    return figures


def make_corpus(folder: Path, megabytes: int) -> None:
    """Write shards that hold `megabytes` (millions of bytes) of glosses in random order, each as often as any."""
    folder.mkdir()
    glosses = pq.read_table(TEXT, columns=["text"]).column("text").combine_chunks()
    size = sum(map(len, glosses.to_pylist()))
    generator, left = np.random.default_rng(0), megabytes * 1e6
    schema = pa.schema([("text", pa.string())])
    for number in range(SHARDS):
        with pq.ParquetWriter(folder / f"part-{number}.parquet", schema, compression="zstd") as file:
            while left > megabytes * 1e6 * (SHARDS - 1 - number) / SHARDS:
                share = min(1.0, megabytes * 1e6 / SHARDS / size)
                order = generator.permutation(len(glosses))[: int(share * len(glosses))]
                file.write_table(pa.table([glosses.take(pa.array(order))], schema=schema))
                left -= share * size


def _peak(work: Path, corpus: str, *, threads: int, command: str) -> tuple[int, dict[str, Any]]:
    """Run a command of this file in a process of its own; return its peak memory (PSS, bytes) and what it printed."""
    # Niced: the machine stays usable meanwhile, and both sides of a comparison are.
    arguments = ["nice", sys.executable, "-m", "bench.text_tokens", command, str(work), corpus]
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*arguments, "--threads", str(threads)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8"
    )
    peak, watched = 0, psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(member.memory_full_info().pss for member in family))
        except psutil.Error:
            pass
        time.sleep(POLL_SECONDS)
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with exit code {process.returncode}")
    facts = json.loads(output.splitlines()[-1])
    return max(peak, facts.pop("peak_bytes")), facts


def tokenise_once(work: Path, corpus: str, threads: int) -> dict[str, Any]:
    """Train a tokenizer on the sample and tokenise a corpus."""
    tokenizer = _tokenizer(work, "wordpiece")
    seconds, files = _timed(lambda: _tokenise(work, corpus, tokenizer, threads))
    return {
        "documents": len(files),
        "tokens": files.tokens,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(files.tokens / seconds),
    }


def compare(work: Path, corpus: str, threads: int) -> dict[str, Any]:
    """Return for each kind of tokenizer the median rates, in turn, and the median of the rounds' ratios."""
    documents = list(iterate_documents(list_shards(work / corpus), "text"))
    results = {}
    for kind in KINDS:
        tokenizer = _tokenizer(work, kind)
        backend = plain_backend(tokenizer)
        rounds = []
        for _ in range(ROUNDS + 1):
            theirs, _ = _timed(lambda backend=backend: _encode_batches(backend, documents))  # type: ignore[misc]
            ours, files = _timed(lambda tokenizer=tokenizer: _tokenise(work, corpus, tokenizer, threads))  # type: ignore[misc]
            rounds.append((files.tokens / ours, files.tokens / theirs))
        rounds = rounds[1:]  # the first one warms the caches
        results[kind] = {
            "tokens_per_second": round(statistics.median(ours for ours, _ in rounds)),
            "encode_batch": round(statistics.median(theirs for _, theirs in rounds)),
            "ratio": round(statistics.median(ours / theirs for ours, theirs in rounds), 3),
        }
    return results


def _tokenizer(work: Path, kind: str) -> PreTrainedTokenizerFast:
    folder = work / f"tokenizer-{kind}"
    if not folder.exists():
        documents = iterate_documents(list_shards(work / "sample"), "text")
        params = TokenizerParams.model_validate({"kind": kind, "vocabulary": 4096, "sample_megabytes": 5})
        save_tokenizer(train_tokenizer(documents, params), folder)
    return load_tokenizer(folder)


def _tokenise(work: Path, corpus: str, tokenizer: PreTrainedTokenizerFast, threads: int) -> TokenFiles:
    """Tokenise from scratch: reading Parquet, hashing and flushing to the disk are all in it."""
    shutil.rmtree(work / "tokens", ignore_errors=True)
    return tokenise(list_shards(work / corpus), "text", tokenizer, work / "tokens", workers=threads)


def _encode_batches(backend: Any, documents: list[str]) -> None:
    """Encode documents that are in memory, and throw the result away."""
    for start in range(0, len(documents), BATCH):
        backend.encode_batch(documents[start : start + BATCH])


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def main() -> None:
    """One command of `_peak`, in its process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["once", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("corpus")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # for encode_batch; tokenise sets its own
    run = {"once": tokenise_once, "compare": compare}[arguments.command]
    facts = run(arguments.folder, arguments.corpus, arguments.threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(facts | {"peak_bytes": peak}))


if __name__ == "__main__":
    main()
