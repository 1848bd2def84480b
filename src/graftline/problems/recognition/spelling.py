"""Transcripts as they are learned: by a rule for case and punctuation, in a vocabulary of characters; without torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from graftline.canonical import read_json
from graftline.errors import InputError
from graftline.jsonfile import write_json
from graftline.problems.recognition.parameters import RecognitionParams

BLANK, UNKNOWN, BETWEEN = SPECIAL = ("<pad>", "<unk>", "|")
"""What CTC says between two characters; what stands for a character that is not in the vocabulary; the space."""
VOCABULARY = "vocab.json"
_APOSTROPHE = re.compile("(?<=\\w)['\u2019](?=\\w)")


def spelled(text: str, params: RecognitionParams) -> str:
    """Return a transcript as it is learned, in Unicode's composed form (NFC)."""
    text = unicodedata.normalize("NFC", text)
    if params.case != "keep":
        text = text.lower() if params.case == "lower" else text.upper()
    if params.punctuation == "drop":
        text = _APOSTROPHE.sub("\0", text)
        text = "".join(letter if letter == "\0" or unicodedata.category(letter)[0] in "LMN" else " " for letter in text)
        text = text.replace("\0", "'")
    return " ".join(text.replace(BETWEEN, " ").split())


def vocabulary_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the tokens by number: the special ones, and all characters but the space, in Unicode's order."""
    return (*SPECIAL, *sorted({letter for text in texts for letter in text} - {" "}))


def frames_needed(text: str) -> int:
    """Return the least frames in which CTC can say a text: one a character, and one between two equal ones."""
    return len(text) + sum(one == other for one, other in pairwise(text))


def save_processor(tokens: tuple[str, ...], folder: Path) -> None:
    """Write vocab.json and what else transformers' Wav2Vec2Processor reads; preprocessor_config.json is there."""
    from transformers import Wav2Vec2CTCTokenizer

    numbers = {token: number for number, token in enumerate(tokens)}
    write_json(numbers, folder / VOCABULARY)
    Wav2Vec2CTCTokenizer(
        str(folder / VOCABULARY), pad_token=BLANK, unk_token=UNKNOWN, bos_token=None, eos_token=None,
        word_delimiter_token=BETWEEN,
    ).save_pretrained(folder)  # fmt: skip


def read_vocabulary(folder: Path, size: int) -> tuple[str, ...]:
    """Return the `size` tokens by number. Raises InputError: vocab.json has not these."""
    path, numbers = folder / VOCABULARY, read_json(folder / VOCABULARY)
    if not isinstance(numbers, dict) or set(numbers.values()) != set(range(size)):
        raise InputError(path, "other tokens", expected=f"{size} of them, numbered from 0", fix="run finetune again")
    tokens = tuple(sorted(numbers, key=lambda token: int(numbers[token])))
    if tokens[: len(SPECIAL)] != SPECIAL or any(len(token) != 1 for token in tokens[len(SPECIAL) :]):
        raise InputError(path, f"tokens {', '.join(tokens)[:60]}", expected=f"{', '.join(SPECIAL)} and characters")
    return tokens
