"""A public language model as a trunk's start: what it must be to be one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from graftline.errors import InputError, nearest
from graftline.text.tokenizer import check_fits, load_tokenizer
from graftline.trunks.rootstock import CONFIG, MODEL_FILES, CheckpointParams, check_plain, load, quietly, read_object
from graftline.trunks.text.parameters import ARCHITECTURES

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)


class RootstockParams(CheckpointParams):
    """A public language model that the trunk starts from."""

    family: ClassVar[str] = "text"
    files: ClassVar[tuple[str, ...]] = (*MODEL_FILES, "generation_config.json", *TOKENIZER_FILES)

    name: Literal["rootstock"] = "rootstock"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint turned out to be when it was loaded."""

    kind: Literal["masked_lm", "causal_lm", "denoising"]
    """The objective that its architecture is for."""
    architecture: str
    """transformers' model type, such as `bert`."""
    vocabulary: int
    """Rows of the input embedding."""
    parameters: int
    """Without a head."""


def check_loads(folder: Path) -> Checkpoint:
    """Load the checkpoint in `folder` with transformers' own classes, offline, and say what it is.

    Raises:
        InputError: transformers does not know the architecture; a file is damaged; a tensor is missing, has another
            shape than the config says, or is not finite; the tokenizer is another model's.
    """
    check_plain(folder)
    kind = _kind(folder)
    # A pooler is learned by a head's task; checkpoints of a bare language model have none.
    model = load(folder, "AutoModel", lambda name: "pooler" in name.split("."))
    rows = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    _check_tokenizer(folder, rows)
    size = sum(weights.numel() for weights in model.parameters())
    return Checkpoint(kind, model.config.model_type, rows, size)


def check_learns(folder: Path, objective: str) -> Checkpoint:
    """Return what the checkpoint is, once it is sure that the objective can go on with it. Raises InputError."""
    found = check_loads(folder)
    if (found.kind == "denoising") != (objective == "denoising"):
        raise InputError(
            "pretrain.objective.name",
            objective,
            expected="denoising" if found.kind == "denoising" else "masked_lm or causal_lm",
            fix=f"the checkpoint is of the architecture {found.architecture}",
        )
    if found.kind == "denoising":
        check_fits(load_tokenizer(folder), found.vocabulary, folder / TOKENIZER_FILES[0], needs=["mask_token"])
        if read_object(folder / CONFIG).get("decoder_start_token_id") is None:
            raise InputError(
                folder / CONFIG,
                "no decoder_start_token_id",
                expected="the token that every text to write starts from",
                fix="take a checkpoint that has one, or write into it the number of its end mark",
            )
    return found


def _kind(folder: Path) -> Literal["masked_lm", "causal_lm", "denoising"]:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    config = read_object(folder / CONFIG)
    architecture = config.get("model_type")
    if architecture in ARCHITECTURES["encoder-decoder"]:
        return "denoising"
    if architecture in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder"):
        return "masked_lm"
    if architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "causal_lm"
    known = sorted({*MODEL_FOR_MASKED_LM_MAPPING_NAMES, *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES})
    raise InputError(
        folder / CONFIG,
        f"model_type {architecture!r}{nearest(str(architecture), known)}",
        expected="an architecture that transformers has a masked or causal language model of, or "
        + " or ".join(ARCHITECTURES["encoder-decoder"]),
    )


def _check_tokenizer(folder: Path, rows: int) -> None:
    """Raise InputError unless the folder's tokenizer fits an input embedding of `rows` rows and the config's ids."""
    with quietly():
        tokenizer = load_tokenizer(folder)
    check_fits(tokenizer, rows, folder / TOKENIZER_FILES[0])
    config = read_object(folder / CONFIG)
    for name in ("pad", "bos", "cls", "sep"):
        want, have = config.get(f"{name}_token_id"), getattr(tokenizer, f"{name}_token_id", None)
        if isinstance(want, int) and have is not None and want != have:
            raise InputError(
                folder / TOKENIZER_FILES[0],
                f"the {name} token is number {have}",
                expected=f"{want}, by config.json",
                fix="take the tokenizer that was saved with the checkpoint",
            )
