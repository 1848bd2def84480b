"""Token files: what was written is what a model should see, made once, whatever kills or damages the files."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import forked
import numpy as np
import prose
import pytest
from transformers import PreTrainedTokenizerFast

from graftline.errors import InputError
from graftline.text.corpus import list_shards
from graftline.text.tokenizer import TokenizerParams, document_marks, save_tokenizer, train_tokenizer
from graftline.text.tokens import TokenFiles, open_tokens, tokenise

LENGTH = 64


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return prose.paragraphs()[:800]


@pytest.fixture(scope="session")
def wordpiece(texts: list[str]) -> PreTrainedTokenizerFast:
    return train_tokenizer(texts, TokenizerParams(vocabulary=1000))


@pytest.fixture
def corpus(tmp_path: Path, texts: list[str]) -> Path:
    return prose.write_corpus(tmp_path / "corpus", texts, 3)


def made(corpus: Path, tokenizer: PreTrainedTokenizerFast, out: Path, **options: int) -> TokenFiles:
    return tokenise(list_shards(corpus), "text", tokenizer, out, **{"max_length": LENGTH, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def inodes(folder: Path) -> dict[str, int]:
    """Return each file's inode: another one after a run means that the file was written again."""
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_documents_are_the_tokenizers_ids_with_marks_in_order(
    corpus: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str], tmp_path: Path
) -> None:
    files = made(corpus, tokenizer, tmp_path / "tokens", max_length=5000)
    before, after = document_marks(tokenizer)
    full = [text for text in texts if text]
    expected = [[*before, *tokenizer(t, add_special_tokens=False)["input_ids"], *after] for t in full]
    ids, lengths = files.gather(np.arange(len(files)))
    assert [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] == expected
    assert ids.dtype == np.int64 and lengths.dtype == np.int32
    assert sum(manifest["skipped"] for manifest in files.manifests) == len(texts) - len(full)
    assert files.tokens == files.lengths.sum() == len(ids)


def test_gather_takes_any_documents_in_any_order(
    corpus: Path, wordpiece: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    files = made(corpus, wordpiece, tmp_path / "tokens")
    ids, lengths = files.gather(np.arange(len(files)))
    documents = np.split(ids, np.cumsum(lengths)[:-1])
    wanted = np.random.default_rng(0).integers(0, len(files), 300)
    found, sizes = files.gather(wanted)
    assert np.array_equal(found, np.concatenate([documents[n] for n in wanted]))
    assert np.array_equal(sizes, files.lengths[wanted])
    nothing, none = files.gather(np.empty(0, np.int64))
    assert len(nothing) == len(none) == 0


def test_long_texts_are_cut_into_pieces_with_marks(
    corpus: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str], tmp_path: Path
) -> None:
    whole = made(corpus, tokenizer, tmp_path / "whole", max_length=5000)
    cut = made(corpus, tokenizer, tmp_path / "cut", max_length=16)
    before, after = document_marks(tokenizer)
    marks = len(before) + len(after)
    assert cut.lengths.max() == 16
    assert cut.tokens - marks * len(cut) == whole.tokens - marks * len(whole)
    longest = int(whole.lengths.argmax())
    (row,) = whole.rows([longest])
    pieces = np.array([n for n, found in enumerate(cut.rows(range(len(cut)))) if found == row])
    assert len(pieces) == -(-(whole.lengths[longest] - marks) // (16 - marks))
    joined = [part[len(before) : -len(after)] for part in (cut.gather(np.array([n]))[0] for n in pieces)]
    assert np.array_equal(np.concatenate(joined), whole.gather(np.array([longest]))[0][len(before) : -len(after)])


def test_rows_lead_back_to_the_shard(wordpiece: PreTrainedTokenizerFast, texts: list[str], tmp_path: Path) -> None:
    documents = ["", *texts[:400], " \t "]
    prose.write_parquet(tmp_path / "corpus/a.parquet", documents)
    (tmp_path / "corpus/b.jsonl").write_bytes(prose.jsonl(documents))
    files = made(tmp_path / "corpus", wordpiece, tmp_path / "tokens", max_length=5000)
    for document in (0, 7, len(files) - 1):
        (row,) = files.rows([document])
        ids = files.gather(np.array([document]))[0]
        assert ids.tolist() == wordpiece(documents[row.row])["input_ids"]
    assert str(files.rows([0])[0]) == "a.parquet:1"
    assert files.rows([len(files) - 1])[0].shard == "b.jsonl"


def test_bytes_do_not_depend_on_the_number_of_threads(
    wordpiece: PreTrainedTokenizerFast, texts: list[str], tmp_path: Path
) -> None:
    prose.write_corpus(tmp_path / "corpus", texts * 2, 1)
    made(tmp_path / "corpus", wordpiece, tmp_path / "one")
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    made(tmp_path / "corpus", wordpiece, tmp_path / "three", workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before


def test_all_threads_work_on_a_single_shard(
    wordpiece: PreTrainedTokenizerFast, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from graftline.text import tokens

    both, seen = threading.Barrier(2, timeout=30), set()
    encode = tokens._Encoder.encode

    def meeting(self, batch):  # type: ignore[no-untyped-def]
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait()  # goes on only when a second thread encodes at the same time
        return encode(self, batch)

    monkeypatch.setattr(tokens._Encoder, "encode", meeting)
    prose.write_corpus(tmp_path / "corpus", texts, 1)
    made(tmp_path / "corpus", wordpiece, tmp_path / "tokens", workers=2)
    assert len(seen) == 2


def test_a_killed_run_goes_on_after_its_last_whole_shard(
    wordpiece: PreTrainedTokenizerFast, texts: list[str], tmp_path: Path
) -> None:
    corpus = prose.write_corpus(tmp_path / "corpus", texts * 8, 5)
    save_tokenizer(wordpiece, tmp_path / "tokenizer")
    made(corpus, wordpiece, tmp_path / "unbroken")
    out = tmp_path / "tokens"
    script = Path(__file__).parent / "tokenising.py"
    process = forked.Popen([sys.executable, str(script), str(corpus), str(tmp_path / "tokenizer"), str(out)])
    half = out / ".00002.ids.aside"
    while process.poll() is None and not (half.exists() and half.stat().st_size):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert half.exists() and not (out / "00002.json").exists()
    with pytest.raises(InputError, match=r"tokens\.json"):
        open_tokens(out)

    before = inodes(out)
    made(corpus, wordpiece, out)
    assert contents(out) == contents(tmp_path / "unbroken")
    whole = [name for name in before if name.startswith(("00000", "00001"))]
    assert len(whole) == 8
    assert all(inodes(out)[name] == before[name] for name in whole)


def test_nothing_is_done_twice(corpus: Path, wordpiece: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    first = made(corpus, wordpiece, tmp_path / "tokens")
    before = inodes(tmp_path / "tokens")
    again = made(corpus, wordpiece, tmp_path / "tokens")
    assert {name: inode for name, inode in inodes(tmp_path / "tokens").items() if name != "tokens.json"} == {
        name: inode for name, inode in before.items() if name != "tokens.json"
    }
    assert again.digest == first.digest


@pytest.mark.parametrize("name", ["00001.ids", "00001.offsets", "00001.rows", "00001.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_files_are_made_again_and_said_so(
    name: str,
    damage: str,
    corpus: Path,
    wordpiece: PreTrainedTokenizerFast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "tokens"
    made(corpus, wordpiece, out)
    whole, before = contents(out), inodes(out)
    if damage == "flip":
        flip_bit(out / name)
    elif damage == "cut":
        os.truncate(out / name, (out / name).stat().st_size - 2)
    else:
        (out / name).unlink()
    if damage != "flip" or name.endswith("json"):
        with pytest.raises(InputError, match=name):
            open_tokens(out)
    capsys.readouterr()
    made(corpus, wordpiece, out)
    assert contents(out) == whole
    assert inodes(out)["00000.ids"] == before["00000.ids"]
    said = capsys.readouterr().err
    assert ("00001" in said and "tokenised again" in said) or (damage == "remove" and name.endswith("json"))


def test_another_shard_tokenizer_column_or_length_is_tokenised_again(
    corpus: Path, wordpiece: PreTrainedTokenizerFast, texts: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    digests = [made(corpus, wordpiece, out).digest]
    digests.append(made(corpus, wordpiece, out, max_length=32).digest)
    digests.append(made(corpus, train_tokenizer(texts, TokenizerParams(vocabulary=900)), out).digest)
    prose.write_parquet(corpus / "part-1.parquet", texts[:40])
    digests.append(made(corpus, wordpiece, out).digest)
    assert len(set(digests)) == 4
    made(corpus, wordpiece, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_files_of_shards_that_are_gone_are_removed(
    corpus: Path, wordpiece: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    three = made(corpus, wordpiece, tmp_path / "tokens")
    (corpus / "part-2.parquet").unlink()
    two = made(corpus, wordpiece, tmp_path / "tokens")
    assert len(two) < len(three) and len(open_tokens(tmp_path / "tokens")) == len(two)
    assert not list((tmp_path / "tokens").glob("00002*"))


def test_a_shard_that_cannot_be_read_leaves_those_before_it(
    corpus: Path, wordpiece: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    whole = (corpus / "part-1.parquet").read_bytes()
    (corpus / "part-1.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"part-1\.parquet"):
        made(corpus, wordpiece, tmp_path / "tokens")
    assert sorted(contents(tmp_path / "tokens")) == ["00000.ids", "00000.json", "00000.offsets", "00000.rows"]


def test_a_corpus_in_s3_gives_the_same_tokens(
    moto_url: str, corpus: Path, wordpiece: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    import boto3

    client = boto3.session.Session().client("s3")
    bucket, _, prefix = moto_url.removeprefix("s3://").partition("/")
    for path in corpus.iterdir():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{path.name}", Body=path.read_bytes())
    local = made(corpus, wordpiece, tmp_path / "local")
    remote = tokenise(list_shards(moto_url), "text", wordpiece, tmp_path / "remote", max_length=LENGTH)
    assert remote.digest == local.digest
    shas = [[manifest["sha256"] for manifest in files.manifests] for files in (local, remote)]
    assert shas[0] == shas[1]

    client.put_object(Bucket=bucket, Key=f"{prefix}/part-2.parquet", Body=(corpus / "part-0.parquet").read_bytes())
    before = inodes(tmp_path / "remote")
    tokenise(list_shards(moto_url), "text", wordpiece, tmp_path / "remote", max_length=LENGTH)
    after = inodes(tmp_path / "remote")
    assert after["00001.ids"] == before["00001.ids"]
    assert open_tokens(tmp_path / "remote").digest != local.digest


def test_the_name_of_a_special_token_inside_a_text_is_text(wordpiece: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    prose.write_parquet(tmp_path / "corpus/a.parquet", ["the [MASK] and the [SEP] token"])
    files = made(tmp_path / "corpus", wordpiece, tmp_path / "tokens")
    ids = files.gather(np.array([0]))[0].tolist()
    assert wordpiece.mask_token_id not in ids
    assert ids.count(wordpiece.sep_token_id) == 1


def test_a_large_vocabulary_takes_four_bytes_an_id(
    wordpiece: PreTrainedTokenizerFast, corpus: Path, tmp_path: Path
) -> None:
    save_tokenizer(wordpiece, tmp_path / "tokenizer")
    from graftline.text.tokenizer import load_tokenizer

    large = load_tokenizer(tmp_path / "tokenizer")
    large.add_tokens([f"extra{n}" for n in range(66_000)])
    small, wide = made(corpus, wordpiece, tmp_path / "small"), made(corpus, large, tmp_path / "wide")
    assert (tmp_path / "small/00000.ids").stat().st_size == 2 * small.manifests[0]["tokens"]
    assert (tmp_path / "wide/00000.ids").stat().st_size == 4 * wide.manifests[0]["tokens"]
    assert np.array_equal(small.gather(np.arange(9))[0], wide.gather(np.arange(9))[0])


def test_a_corpus_without_text_is_refused(wordpiece: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    prose.write_parquet(tmp_path / "corpus/a.parquet", ["", " ", None])
    with pytest.raises(InputError, match="no text in 1 shards"):
        made(tmp_path / "corpus", wordpiece, tmp_path / "tokens")


def test_a_length_without_room_for_text_is_refused(
    corpus: Path, wordpiece: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="max_length: 2; expected at least 3"):
        made(corpus, wordpiece, tmp_path / "tokens", max_length=2)


def test_a_second_process_at_the_same_folder_is_refused(
    corpus: Path, wordpiece: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from graftline.durable import exclusive

    with exclusive(tmp_path / "tokens", what="tokenise"), pytest.raises(InputError, match="another run of tokenise"):
        made(corpus, wordpiece, tmp_path / "tokens")
