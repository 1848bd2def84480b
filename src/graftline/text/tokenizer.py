"""Tokenizers: trained on a corpus or taken from a checkpoint, kept in the layout that transformers opens.

    <folder>/tokenizer.json  <folder>/tokenizer_config.json

WordPiece (Schuster and Nakajima 2012; Devlin et al. 2019) for encoders, `[CLS] text [SEP]`. Byte-level BPE (Sennrich
et al. 2016; Radford et al. 2019) for decoders, `<|endoftext|> text`: the mark starts a document, so that a model can
write from nothing, and ends it, so that it learns to stop. AutoTokenizer adds the first mark and not the last: what
follows a prompt is the model's to say. The same with a mask and padding for models that read one text and write
another, `text </s>`, as BART's (Lewis et al. 2020).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from graftline.canonical import canonical_json, read_json
from graftline.errors import InputError, brief
from graftline.tasks.parameters import Params

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, CLASS, SEPARATOR, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
END = "<|endoftext|>"
PADDING, FINISH, HIDDEN = "<pad>", "</s>", "<mask>"
FILES = ("tokenizer.json", "tokenizer_config.json")
SPARE = 0.25
"""Share of a checkpoint's embeddings that may lack a token: they are padded to round sizes, by far less than this."""


class TokenizerParams(Params):
    """A tokenizer that is trained on the task's own text."""

    kind: Literal["wordpiece", "bpe", "bpe_mask"] = "wordpiece"
    """`wordpiece` for masked language models, `bpe` (byte-level) for causal ones, `bpe_mask` (the same with a mask and
    padding) for those that read one text and write another."""
    vocabulary: int = Field(default=4096, ge=64, le=1_000_000)
    """Most tokens, special ones included. Byte-level BPE has at least 257, with a mask and padding 259."""
    lowercase: bool = False
    """Whether text is lowercased and stripped of accents first; a model that writes then writes in lower case."""
    sample_megabytes: float = Field(default=64, gt=0, le=4096)
    """Text that the tokenizer is trained on, from the corpus's start, in millions of characters."""

    @model_validator(mode="after")
    def _check(self) -> TokenizerParams:
        least = {"wordpiece": 0, "bpe": 257, "bpe_mask": 259}[self.kind]
        if self.vocabulary < least:
            raise ValueError(f"vocabulary {self.vocabulary}: byte-level BPE has at least {least} tokens")
        return self


def train_tokenizer(documents: Iterable[str], params: TokenizerParams) -> PreTrainedTokenizerFast:
    """Return a tokenizer trained on the first `sample_megabytes` of the documents; equal input gives equal bytes.

    Raises:
        InputError: there is no text.
    """
    sample = list(_sample(documents, int(params.sample_megabytes * 1e6)))
    if not sample:
        raise InputError("tokenizer", "no text to train on", fix="give documents that are not empty")
    if params.kind == "wordpiece":
        return _train_wordpiece(sample, params)
    return _train_bpe(sample, params, [END] if params.kind == "bpe" else [PADDING, FINISH, HIDDEN])


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write FILES into `folder`; `AutoTokenizer.from_pretrained(folder)` opens them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer in `folder`. No code of the folder is run and nothing is fetched.

    Raises:
        InputError: the folder has none, or one that is damaged, or one that has no fast form.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    for name in FILES:
        read_json(folder / name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # noqa: BLE001  (the library raises bare Exceptions for what it cannot parse)
        reason = f"{type(error).__name__}: {brief(error)}"
        raise InputError(folder, f"not a tokenizer ({reason})", fix="make the folder again") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(folder, "a tokenizer without a fast form", expected="a tokenizer.json")
    return tokenizer


def plain_backend(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return a copy of the tokenizers library's object that neither truncates nor pads, whatever was set before."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a sha256 in hex over all that decides which ids a text becomes."""
    frame = [list(ids) for ids in document_marks(tokenizer)]
    return hashlib.sha256(canonical_json([plain_backend(tokenizer).to_str(), frame])).hexdigest()


def document_marks(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Return the ids that stand before and after a document in training.

    They are what the tokenizer itself adds; one that has an end mark and adds none after the text gets it here.
    """
    backend = plain_backend(tokenizer)
    text = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a").ids
    start = next(i for i in range(len(whole) + 1) if whole[i : i + len(text)] == text)
    before, after = whole[:start], whole[start + len(text) :]
    if not after and tokenizer.eos_token_id is not None:
        after = [int(tokenizer.eos_token_id)]
    return before, after


def check_fits(
    tokenizer: PreTrainedTokenizerFast, vocab_size: int, where: object, *, needs: Sequence[str] = ()
) -> None:
    """Raise InputError unless the tokenizer and a checkpoint with `vocab_size` embeddings fit together.

    Args:
        tokenizer: the tokenizer.
        vocab_size: rows of the checkpoint's input embedding.
        where: the checkpoint, for the error.
        needs: special tokens that must be there, such as `mask_token` and `pad_token`.
    """
    highest = max(tokenizer.get_vocab().values(), default=-1)
    another = "take the tokenizer that was saved with the checkpoint"
    if highest >= vocab_size:
        raise InputError(
            where,
            f"its tokenizer has ids up to {highest}, its model {vocab_size} embeddings",
            expected="an embedding for each token",
            fix=another,
        )
    if highest + 1 < (1 - SPARE) * vocab_size:
        raise InputError(
            where,
            f"its tokenizer has {highest + 1} tokens, its model {vocab_size} embeddings",
            expected="about as many",
            fix=another,
        )
    if missing := [name for name in needs if getattr(tokenizer, name) is None]:
        raise InputError(
            where, f"its tokenizer has no {' and no '.join(missing)}", expected=", ".join(needs), fix=another
        )


# Training


def _sample(documents: Iterable[str], characters: int) -> Iterator[str]:
    for text in documents:
        if characters <= 0:
            return
        if text:
            yield text[:characters]
            characters -= len(text)


def _train_wordpiece(sample: list[str], params: TokenizerParams) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    special = [PAD, UNKNOWN, CLASS, SEPARATOR, MASK]
    normalizer = normalizers.BertNormalizer(lowercase=params.lowercase)

    def empty(vocabulary: dict[str, int]) -> Tokenizer:
        made = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
        made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        return made

    # The library gives ids to `##x` in the order of a hash table that differs from process to process, and breaks
    # ties by id. With these pieces listed first, in order, training is a function of the text.
    alphabet = _alphabet(sample, normalizer, (params.vocabulary - len(special)) // 4)
    pieces = [*special, *alphabet, *(f"##{character}" for character in alphabet)]
    learner = empty({})
    learner.train_from_iterator(
        sample,
        trainers.WordPieceTrainer(
            vocab_size=params.vocabulary,
            special_tokens=pieces,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        ),
    )
    trained = empty(learner.get_vocab())
    trained.add_special_tokens(special)
    first, last = trained.token_to_id(CLASS), trained.token_to_id(SEPARATOR)
    trained.post_processor = processors.TemplateProcessing(
        single=f"{CLASS} $A {SEPARATOR}",
        pair=f"{CLASS} $A {SEPARATOR} $B:1 {SEPARATOR}:1",
        special_tokens=[(CLASS, first), (SEPARATOR, last)],
    )
    return _wrapped(trained, pad_token=PAD, unk_token=UNKNOWN, cls_token=CLASS, sep_token=SEPARATOR, mask_token=MASK)


def _alphabet(sample: list[str], normalizer: Any, limit: int) -> list[str]:
    """Return the characters of the normalised sample in order: the `limit` most frequent ones."""
    counts: Counter[str] = Counter()
    for start in range(0, len(sample), 1000):
        # A line break between documents, not a space: it is dropped below like all white space.
        counts.update(normalizer.normalize_str("\n".join(sample[start : start + 1000])))
    characters = [(count, character) for character, count in counts.items() if not character.isspace()]
    characters.sort(key=lambda pair: (-pair[0], pair[1]))
    return sorted(character for _, character in characters[:limit])


def _train_bpe(sample: list[str], params: TokenizerParams, special: list[str]) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    trained = Tokenizer(models.BPE())
    if params.lowercase:
        trained.normalizer = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trained.train_from_iterator(
        sample,
        trainers.BpeTrainer(
            vocab_size=params.vocabulary,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    if special == [END]:
        trained.post_processor = processors.TemplateProcessing(
            single=f"{END} $A", pair=f"{END} $A $B:1", special_tokens=[(END, trained.token_to_id(END))]
        )
        return _wrapped(trained, bos_token=END, eos_token=END, pad_token=END)
    pair = f"$A {FINISH} $B:1 {FINISH}:1"
    trained.post_processor = processors.TemplateProcessing(
        single=f"$A {FINISH}", pair=pair, special_tokens=[(FINISH, trained.token_to_id(FINISH))]
    )
    names = ["input_ids", "attention_mask"]
    return _wrapped(trained, eos_token=FINISH, pad_token=PADDING, mask_token=HIDDEN, model_input_names=names)


def _wrapped(backend: Tokenizer, **special: Any) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast  # its constructor has no types
    made: PreTrainedTokenizerFast = make(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)
    return made
