"""What pretraining on text asks of a model."""

from __future__ import annotations

import numpy as np
import pytest
import small_text
import torch

from graftline.learning.distributed import World
from graftline.learning.randomness import generator
from graftline.text.batches import Packed, pack
from graftline.text.tokenizer import load_tokenizer
from graftline.trunks.text.causal_lm import CausalLM
from graftline.trunks.text.language_modelling import LanguageModel
from graftline.trunks.text.masked_lm import MaskedLM
from graftline.trunks.text.parameters import MaskedLMParams
from graftline.trunks.text.trunk import load_model


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> MaskedLM:
    folder = small_text.trunk(tmp_path_factory.getbasetemp())
    model, tokenizer = load_model(folder, decodes=False), load_tokenizer(folder)
    return MaskedLM(model, tokenizer, "float32", MaskedLMParams(mask_ratio=0.3))


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    folder = small_text.causal_trunk(tmp_path_factory.getbasetemp())
    return CausalLM(load_model(folder, decodes=True), load_tokenizer(folder), "float32")


def batch_of(objective: LanguageModel, count: int = 200) -> Packed:
    lengths = np.sort(np.random.default_rng(0).integers(4, 30, count))
    ids = np.random.default_rng(1).integers(5, 500, int(lengths.sum()))
    starts = np.cumsum(lengths) - lengths
    ids[starts], ids[starts + lengths - 1] = 2, 3  # [CLS] and [SEP]
    return pack(ids, lengths, np.arange(count))


def test_about_the_mask_ratio_is_asked_and_never_a_special_token(masked: MaskedLM) -> None:
    batch = batch_of(masked)
    wanted = masked.targets(batch, generator(0, 0, "objective"))
    ordinary = ~masked.is_special(batch.ids[0])
    assert ordinary[wanted.asked].all()
    assert len(wanted.asked) / int(ordinary.sum()) == pytest.approx(0.3, abs=0.03)


def test_of_the_asked_tokens_80_percent_are_hidden_and_10_stay(masked: MaskedLM) -> None:
    batch = batch_of(masked, count=2000)
    wanted = masked.targets(batch, generator(0, 0, "objective"))
    seen, right = wanted.inputs[0][wanted.asked], batch.ids[0][wanted.asked]
    assert (seen == 4).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (seen == right).float().mean().item() == pytest.approx(0.1, abs=0.02)
    others = torch.ones(batch.ids.shape[1], dtype=torch.bool)
    others[wanted.asked] = False
    assert torch.equal(wanted.inputs[0][others], batch.ids[0][others])


def test_held_out_masks_do_not_depend_on_the_training_ratio(masked: MaskedLM) -> None:
    batch = batch_of(masked)
    first = masked.held_out_targets(batch)
    other = MaskedLM(masked.model, load_like(masked), "float32", MaskedLMParams(mask_ratio=0.5)).held_out_targets(batch)
    assert torch.equal(first.asked, other.asked)
    assert torch.equal(first.inputs, other.inputs)


def load_like(objective: MaskedLM) -> object:
    """Return a stand-in with the facts that the objective reads of a tokenizer."""

    class Facts:
        all_special_ids = (0, 1, 2, 3, 4)
        pad_token_id = 0
        mask_token_id = 4

        def __len__(self) -> int:
            return int(objective.model.config.vocab_size)

    return Facts()


def test_the_loss_is_the_models_own_on_each_document_alone(masked: MaskedLM) -> None:
    """The shortcut, the head on asked positions of a packed row, gives what transformers' forward gives."""
    batch = batch_of(masked, count=12)
    wanted = masked.targets(batch, generator(0, 0, "objective"))
    sizes = [length for count, length in batch.runs for _ in range(count)]
    labels = torch.full_like(batch.ids[0], -100)
    labels[wanted.asked] = wanted.answers
    total = torch.zeros(())
    for inputs, right in zip(wanted.inputs[0].split(sizes), labels.split(sizes), strict=True):
        if asked := int((right != -100).sum()):
            total += masked.model(input_ids=inputs[None], labels=right[None]).loss * asked
    expected = total / len(wanted.asked)
    torch.testing.assert_close(masked.loss(batch, generator(0, 0, "objective")), expected, atol=1e-5, rtol=1e-5)


def test_a_causal_model_is_asked_for_the_next_token_inside_each_document(causal: CausalLM) -> None:
    batch = pack(np.array([5, 6, 7, 8, 9, 10, 11]), np.array([2, 2, 3]), np.arange(3))
    wanted = causal.targets(batch, generator(0, 0, "objective"))
    assert wanted.asked.tolist() == [0, 2, 4, 5]
    assert wanted.answers.tolist() == [6, 8, 10, 11]


def test_the_causal_loss_is_the_models_own_on_each_document_alone(causal: CausalLM) -> None:
    batch = batch_of(causal, count=8)
    sizes = [length for count, length in batch.runs for _ in range(count)]
    losses = [
        (causal.model(input_ids=ids[None], labels=ids[None]).loss * (len(ids) - 1)) for ids in batch.ids[0].split(sizes)
    ]
    expected = torch.stack(losses).sum() / sum(size - 1 for size in sizes)
    torch.testing.assert_close(causal.loss(batch, generator(0, 0, "objective")), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_the_addends_of_several_processes_add_up_to_the_loss(masked: MaskedLM, size: int) -> None:
    batch = batch_of(masked)
    whole = masked.loss(batch, generator(0, 5, "objective"))
    parts = [
        masked.loss(batch, generator(0, 5, "objective"), World(rank=rank, size=size, local_size=size))
        for rank in range(size)
    ]
    torch.testing.assert_close(sum(parts), whole, atol=1e-5, rtol=1e-5)
    assert len({part.item() for part in parts}) == size


def test_bfloat16_changes_the_loss_little(masked: MaskedLM) -> None:
    batch = batch_of(masked)
    exact = masked.loss(batch, generator(0, 0, "objective"))
    rough = MaskedLM(masked.model, load_like(masked), "bfloat16", MaskedLMParams()).loss(
        batch, generator(0, 0, "objective")
    )
    assert rough.dtype == torch.float32
    assert rough.item() != exact.item()
    torch.testing.assert_close(rough, exact, atol=0.02, rtol=0.01)
