"""Packed documents get the attention that each gets alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from graftline.text.attention import SHORT, packed
from graftline.text.batches import pack
from graftline.trunks.text.parameters import TextParams
from graftline.trunks.text.trunk import build_model

ARCHITECTURES = ["modernbert", "bert", "llama", "gpt2"]
SHAPE = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def new_model(architecture: str, layers: int = 2) -> Any:
    torch.manual_seed(0)
    config: Any = {
        "modernbert": lambda: transformers.ModernBertConfig(
            hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=48,
            global_attn_every_n_layers=1, cls_token_id=1, sep_token_id=2, **SHAPE,
        ),
        "bert": lambda: transformers.BertConfig(
            hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=48, **SHAPE
        ),
        "llama": lambda: transformers.LlamaConfig(
            hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=48, **SHAPE,
        ),
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=layers, n_head=2, n_inner=48, **SHAPE),
    }[architecture]()  # fmt: skip
    return build_model(config, decodes=TextParams(architecture=architecture).decodes).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_documents_get_the_logits_that_each_gets_alone(architecture: str) -> None:
    model = new_model(architecture)
    lengths = np.array([1, 3, 3, 9, 20, SHORT + 7])
    ids = np.random.default_rng(0).integers(3, 64, int(lengths.sum()))
    batch = pack(ids, lengths, np.arange(len(lengths)))
    with torch.no_grad():
        with packed(model):
            together = model(
                input_ids=batch.ids, position_ids=batch.positions, runs=batch.runs, use_cache=False
            ).logits[0]
        alone = [model(input_ids=part[None]).logits[0] for part in batch.ids[0].split(lengths.tolist())]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_token_of_one_document_changes_no_other_document(architecture: str) -> None:
    model = new_model(architecture)
    lengths = np.array([4, 4, 6])
    ids = np.arange(3, 17)
    changed = ids.copy()
    changed[5] = 60
    results = []
    for tokens in (ids, changed):
        batch = pack(tokens, lengths, np.arange(3))
        with torch.no_grad(), packed(model):
            output = model.base_model(
                input_ids=batch.ids, position_ids=batch.positions, runs=batch.runs, use_cache=False
            )
        results.append(output.last_hidden_state[0])
    same = [bool(torch.equal(a, b)) for a, b in zip(*(r.split([4, 4, 6]) for r in results), strict=True)]
    assert same == [True, False, True]


def test_the_model_has_its_own_attention_again_after_the_block() -> None:
    model = new_model("bert")
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="stop"), packed(model):
        raise RuntimeError("stop")
    assert model.config._attn_implementation == before


def test_a_compiled_model_gives_the_same_and_is_not_compiled_anew_for_each_batch() -> None:
    """As on a GPU, but traced only: no code is generated."""
    import torch._dynamo as dynamo

    dynamo.reset()
    plain, compiled = new_model("modernbert", 1), new_model("modernbert", 1)
    compiled.base_model.compile(dynamic=True, backend="eager")
    draw, graphs = np.random.default_rng(0), []
    for _ in range(5):
        lengths = np.sort(draw.integers(3, 20, 10))
        batch = pack(draw.integers(3, 64, int(lengths.sum())), lengths, np.arange(10))
        outputs = []
        for model in (plain, compiled):
            with torch.no_grad(), packed(model):
                hidden = model.base_model(input_ids=batch.ids, position_ids=batch.positions, runs=batch.runs)
            outputs.append(hidden.last_hidden_state)
        torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
        graphs.append(dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[-1] == graphs[2]
    dynamo.reset()
