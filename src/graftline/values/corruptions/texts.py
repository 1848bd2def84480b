"""Ways to spoil the words of a text, as hands, habits and scanners do.

At severity 1 to 5 each word is hit with a chance of 10% to 50%; those that are hit at one severity are hit at the next.
Of synonyms the chance is 20% to 100%, for most words have none: synonyms.txt has 9,154 English ones, WordNet's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

Draw = np.random.Generator

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
SYNONYMS = "synonyms"
_LETTERS = re.compile(r"(\W*)([^\W\d_]+)(\W*)")
"""A word between its marks."""
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Lines of the keyboard; each begins half a key further to the right than the one above."""
_LOOK_ALIKE = (
    ("rn", "m"), ("m", "rn"), ("cl", "d"), ("d", "cl"), ("vv", "w"), ("w", "vv"), ("l", "1"), ("1", "l"), ("o", "0"),
    ("0", "o"), ("O", "0"), ("S", "5"), ("5", "S"), ("I", "l"), ("i", "l"), ("e", "c"), ("c", "e"), ("h", "b"),
    ("n", "u"), ("u", "n"), ("B", "8"), ("g", "q"), ("t", "f"), ("a", "o"),
)  # fmt: skip
"""What a scanner reads one for the other."""


def _neighbours() -> dict[str, str]:
    places = {key: (line, column + line / 2) for line, keys in enumerate(_KEYS) for column, key in enumerate(keys)}
    return {
        key: "".join(other for other, (b, y) in places.items() if other != key and abs(a - b) <= 1 and abs(x - y) <= 1)
        for key, (a, x) in places.items()
    }


_NEXT_TO = _neighbours()


def typo(word: str, draw: Draw) -> str:
    """Return the word with a letter's neighbour on the keyboard; of a letter without one, with two letters swapped."""
    place = int(draw.integers(len(word)))
    letter, choice = word[place], draw.random()
    near = _NEXT_TO.get(letter.lower())
    if near:
        other = near[int(choice * len(near))]
        return word[:place] + (other.upper() if letter.isupper() else other) + word[place + 1 :]
    start = min(place, len(word) - 2)
    return word if len(word) < 2 else word[:start] + word[start + 1] + word[start] + word[start + 2 :]


def case(word: str, draw: Draw) -> str:
    """Return the word in capitals; one that is so already in small letters."""
    return word.lower() if word.isupper() else word.upper()


def ocr(word: str, draw: Draw) -> str:
    """Return the word with one of its letters, or two, read as what looks alike."""
    found = [(at.start(), one, other) for one, other in _LOOK_ALIKE for at in re.finditer(one, word)]
    choice = draw.random()
    if not found:
        return word
    start, one, other = found[int(choice * len(found))]
    return word[:start] + other + word[start + len(one) :]


def synonym(word: str, draw: Draw) -> str:
    """Return an English word's synonym, with its capitals; a word that has none as it is."""
    found, choice = _LETTERS.fullmatch(word), draw.random()
    others = _synonyms().get(found[2].lower()) if found else None
    if not found or not others:
        return word
    other = others[int(choice * len(others))]
    if found[2].isupper():
        other = other.upper()
    elif found[2][0].isupper():
        other = other.capitalize()
    return found[1] + other + found[3]


@cache
def _synonyms() -> dict[str, list[str]]:
    lines = Path(__file__).with_name("synonyms.txt").read_text(encoding="ascii").splitlines()
    sets = [line.split() for line in lines if not line.startswith("#")]
    return {word: [other for other in words if other != word] for words in sets for word in words}


WORD_BY_WORD: dict[str, Callable[[str, Draw], str]] = {"typos": typo, "case": case, "ocr": ocr, SYNONYMS: synonym}
"""Ways that leave as many words as there were."""


def spoil_words(name: str, words: Sequence[str], draw: Draw, level: int) -> list[str]:
    """Return the words of a text spoiled; `level` is the severity less 1."""
    hit = draw.random(len(words)) < SHARES[level] * (2 if name == SYNONYMS else 1)
    if name in WORD_BY_WORD:
        seeds = draw.integers(0, 2**32, len(words))  # of its own for each word, whichever others are hit
        one = WORD_BY_WORD[name]
        return [
            one(word, np.random.default_rng(seed)) if struck and word else word
            for word, struck, seed in zip(words, hit, seeds, strict=True)
        ]
    if name == "dropped_words":
        kept = [word for word, struck in zip(words, hit, strict=True) if not struck]
        return kept or list(words[:1])
    found = list(words)
    for place in np.flatnonzero(hit[:-1]).tolist():
        found[place], found[place + 1] = found[place + 1], found[place]
    return found


def spoil_text(name: str, text: str, draw: Draw, level: int) -> str:
    """Return a text spoiled; the white space between its words stays where no word is dropped."""
    words = text.split()
    spoiled = spoil_words(name, words, draw, level)
    if len(spoiled) != len(words):
        return " ".join(spoiled)
    gaps = re.findall(r"\s+", text.strip())
    return "".join(part for pair in zip(spoiled, [*gaps, ""], strict=True) for part in pair)
