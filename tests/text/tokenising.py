"""Tokenises a corpus as a process that a test kills: `python tokenising.py CORPUS TOKENIZER OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from graftline.text.corpus import list_shards
from graftline.text.tokenizer import load_tokenizer
from graftline.text.tokens import tokenise

if __name__ == "__main__":
    corpus, tokenizer, out = map(Path, sys.argv[1:])
    tokenise(list_shards(corpus), "text", load_tokenizer(tokenizer), out, max_length=64)
