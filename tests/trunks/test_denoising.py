"""Denoising: what is hidden of a text, and the loss of writing it whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_writing
import torch

from graftline.errors import InputError
from graftline.learning.distributed import World
from graftline.learning.randomness import generator
from graftline.text.batches import Packed, pack
from graftline.text.tokenizer import load_tokenizer
from graftline.trunks.text.denoising import Denoising, infill
from graftline.trunks.text.encoder_decoder import ToWrite
from graftline.trunks.text.parameters import DenoisingParams, MaskedLMParams, TextParams
from graftline.trunks.text.rootstock import check_learns
from graftline.trunks.text.trunk import build_config, build_model, load_model

MASK, END = 1000, 999


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_writing.trunk(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def denoising(folder: Path) -> Denoising:
    return Denoising(load_model(folder, decodes=False), load_tokenizer(folder), "float32", DenoisingParams())


def batch(count: int = 12) -> Packed:
    lengths = np.sort(np.random.default_rng(0).integers(3, 20, count))
    ids = np.random.default_rng(1).integers(5, 350, int(lengths.sum()))
    ids[np.cumsum(lengths) - 1] = 1  # </s>
    return pack(ids, lengths, np.arange(count))


def holes(count: int, ratio: float, span: float, seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return documents of which each token is another one, and the same with holes."""
    lengths = torch.from_numpy(np.random.default_rng(seed).integers(2, 40, count))
    ids = torch.arange(int(lengths.sum())) + 2000
    ids[lengths.cumsum(0) - 1] = END
    source, kept = infill(ids, lengths, ratio, span, MASK, generator(seed, 0, "test"))
    return list(ids.split(lengths.tolist())), list(source.split(kept.tolist()))


@pytest.mark.parametrize(("ratio", "span"), [(0.35, 3.0), (0.5, 1.0), (0.15, 6.0)])
def test_about_the_share_is_hidden_in_spans_of_about_the_length(ratio: float, span: float) -> None:
    whole, seen = holes(2000, ratio, span)
    tokens = sum(len(text) - 1 for text in whole)
    masks = sum(int((text == MASK).sum()) for text in seen)
    hidden = tokens - sum(len(text) - 1 for text in seen) + masks
    # Short texts cut spans off at their ends, and spans that touch are one.
    assert 0.75 * ratio < hidden / tokens < 1.05 * ratio
    assert hidden / masks > 0.9 * span
    assert masks / tokens < ratio / span


def test_what_is_left_stands_in_its_order_and_each_text_ends_with_its_mark() -> None:
    for whole, seen in zip(*holes(300, 0.35, 3.0), strict=True):
        assert seen[-1] == END and len(seen) <= len(whole)
        left = seen[seen != MASK]
        assert torch.equal(left, whole[torch.isin(whole, left)])
        assert not ((seen[1:] == MASK) & (seen[:-1] == MASK)).any()


def test_the_loss_is_transformers_own_on_each_text_alone(denoising: Denoising) -> None:
    given = batch()
    texts = denoising.holed(given, DenoisingParams(), generator(0, 7, "objective"))
    total = torch.zeros(())
    for source, target in zip(texts.source, texts.target, strict=True):
        labels = target[None]
        before = torch.cat([labels.new_tensor([[1]]), labels[:, :-1]], dim=1)
        total += denoising.model(input_ids=source[None], decoder_input_ids=before, labels=labels).loss * len(target)
    expected = total / sum(map(len, texts.target))
    torch.testing.assert_close(denoising.loss(given, generator(0, 7, "objective")), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_the_addends_of_several_processes_add_up_to_the_loss(denoising: Denoising, size: int) -> None:
    given = batch()
    whole = denoising.loss(given, generator(0, 5, "objective"))
    parts = [
        denoising.loss(given, generator(0, 5, "objective"), World(rank=rank, size=size, local_size=size))
        for rank in range(size)
    ]
    torch.testing.assert_close(sum(parts), whole, atol=1e-5, rtol=1e-5)
    assert len({part.item() for part in parts}) == size


def test_held_out_holes_do_not_depend_on_the_recipe(denoising: Denoising, folder: Path) -> None:
    other = Denoising(denoising.model, load_tokenizer(folder), "float32", DenoisingParams(mask_ratio=0.6, span=1.0))
    assert denoising.held_out_loss([batch()]) == other.held_out_loss([batch()])


def test_a_bart_is_built_too_and_a_shape_that_does_not_fit_the_objective_is_refused(folder: Path) -> None:
    shape = TextParams.model_validate({**small_writing.TRUNK, "architecture": "bart"})
    model = build_model(build_config(shape, load_tokenizer(folder)), decodes=False)
    assert model.config.model_type == "bart" and model.config.decoder_start_token_id == model.config.eos_token_id
    texts = ToWrite([torch.tensor([5, 6, 1])], [torch.tensor([7, 1])])
    assert torch.isfinite(
        Denoising(model, load_tokenizer(folder), "float32", DenoisingParams())._cross_entropy(texts, learning=True)
    )
    with pytest.raises(ValueError, match=r"objective denoising needs mbart or bart, trunk\.architecture is modernbert"):
        TextParams().check(DenoisingParams(), "trunk")
    with pytest.raises(ValueError, match=r"objective masked_lm needs modernbert or bert, trunk\.architecture is bart"):
        shape.check(MaskedLMParams(), "trunk")


def test_a_checkpoint_is_gone_on_with_by_the_objective_of_its_architecture(folder: Path) -> None:
    assert check_learns(folder, "denoising").architecture == "mbart"
    with pytest.raises(InputError, match="masked_lm; expected denoising; the checkpoint is of the architecture mbart"):
        check_learns(folder, "masked_lm")
