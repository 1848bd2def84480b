"""Text trunks: transformers' own models, in its own layout, so that a trunk opens without Graftline.

trunk.json                           kind "text", the shape's parameters, the objective's
config.json model.safetensors        AutoModelForMaskedLM, ForCausalLM or ForSeq2SeqLM .from_pretrained(folder)
tokenizer.json tokenizer_config.json AutoTokenizer.from_pretrained(folder)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.canonical import read_json
from graftline.errors import InputError, brief
from graftline.text.attention import SHORT
from graftline.trunks.rootstock import CONFIG
from graftline.trunks.text.parameters import TextParams

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

KIND = "text"


def build_config(params: TextParams, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """Return transformers' configuration of the shape, without dropout, for the tokenizer's vocabulary."""
    import transformers

    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id,
    }
    shape = {"vocab_size": len(tokenizer), "tie_word_embeddings": True, **special}
    if params.architecture == "gpt2":
        return transformers.GPT2Config(
            n_embd=params.width, n_layer=params.layers, n_head=params.heads, n_inner=params.hidden,
            n_positions=params.max_length, activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, **shape,
        )  # fmt: skip
    if params.form == "encoder-decoder":
        of: Any = transformers.MBartConfig if params.architecture == "mbart" else transformers.BartConfig
        sides = {
            f"{side}_{name}": value
            for side in ("encoder", "decoder")
            for name, value in (
                ("layers", params.layers),
                ("attention_heads", params.heads),
                ("ffn_dim", params.hidden),
            )
        }
        # The end mark of a text is what the decoder starts from, as in both papers' models.
        config: PreTrainedConfig = of(
            d_model=params.width, max_position_embeddings=params.max_length, dropout=0.0,
            attention_dropout=0.0, activation_dropout=0.0, decoder_start_token_id=tokenizer.eos_token_id,
            forced_eos_token_id=None, **sides, **shape,
        )  # fmt: skip
        return config
    shape |= {
        "hidden_size": params.width,
        "num_hidden_layers": params.layers,
        "num_attention_heads": params.heads,
        "intermediate_size": params.hidden,
        "max_position_embeddings": params.max_length,
    }
    if params.architecture == "bert":
        return transformers.BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **shape)
    if params.architecture == "llama":
        return transformers.LlamaConfig(num_key_value_heads=params.heads, **shape)
    # All layers global: documents of this length fit its local window anyhow, and one mask serves all layers.
    return transformers.ModernBertConfig(
        layer_types=["full_attention"] * params.layers,
        embedding_dropout=0.0,
        attention_dropout=0.0,
        mlp_dropout=0.0,
        classifier_pooling="mean",
        cls_token_id=special["bos_token_id"],
        sep_token_id=special["eos_token_id"],
        **shape,
    )


def build_model(config: PreTrainedConfig, *, decodes: bool) -> PreTrainedModel:
    """Return an untrained language model; its weights are drawn from torch's global generator."""
    of = _class_of(bool(config.is_encoder_decoder), decodes)
    model: PreTrainedModel = of.from_config(config, attn_implementation="sdpa")
    return model


def load_model(folder: Path, *, decodes: bool) -> PreTrainedModel:
    """Return the language model in `folder`, in float32.

    Raises:
        InputError: it is not one, or its weights do not fit.
    """
    import torch

    of = _class_of(bool(read_json(folder / CONFIG).get("is_encoder_decoder")), decodes)
    try:
        model: PreTrainedModel = of.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        found, fix = brief(error), "run pretrain again"
        raise InputError(folder, found, expected="a language model in safetensors", fix=fix) from None
    return model


def _class_of(encodes_and_decodes: bool, decodes: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    if encodes_and_decodes:
        return AutoModelForSeq2SeqLM
    return AutoModelForCausalLM if decodes else AutoModelForMaskedLM


def attend(network: PreTrainedModel, longest: int, *, learning: bool) -> None:
    """Choose how attention is computed, for texts of `longest` tokens at most.

    On CPUs the fused kernel's backward pass in bfloat16 takes several times that of plain matrix products.
    """
    plain = learning and network.device.type == "cpu" and longest <= SHORT
    implementation = "eager" if plain else "sdpa"
    if network.config._attn_implementation != implementation:
        network.set_attn_implementation(implementation)


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write config.json and model.safetensors into `folder`; equal weights give equal bytes."""
    model.save_pretrained(folder, safe_serialization=True, max_shard_size="1TB")


def count_parameters(model: PreTrainedModel) -> dict[str, int]:
    """Return how many weights there are: `all`, and `layers` without embeddings and prediction head.

    Tied weights count once. The layers' count is the N of the scaling laws (Kaplan et al., 2020).
    """
    tables = {id(table.weight) for table in (model.get_input_embeddings(), model.get_output_embeddings()) if table}
    sizes = {id(weight): weight.numel() for weight in model.parameters()}
    return {"all": sum(sizes.values()), "layers": sum(n for key, n in sizes.items() if key not in tables)}


def embedding_ids(model: PreTrainedModel) -> set[int]:
    """Return `id` of the weights that are tables of vectors: an optimizer for matrices must leave them alone."""
    import torch

    tables: set[int] = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    head: Any = model.get_output_embeddings()
    return tables | ({id(head.weight)} if head is not None else set())


def training_flops(model: PreTrainedModel, tokens: int, length: float) -> int:
    """Return about how many floating-point operations training on `tokens` tokens takes.

    6 a weight of the layers and token (Kaplan et al., 2020, arXiv:2001.08361), and attention's share for documents
    of `length` tokens; the prediction head is left out, as there.
    """
    config = model.config
    attention: float = 12 * config.num_hidden_layers * config.hidden_size * length
    return round(tokens * (6 * count_parameters(model)["layers"] + attention))
