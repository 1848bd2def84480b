"""A transformer over the items of a history: transformers' own ModernBERT, whose tokens are items.

It sees [MASK] and what is given of a history, and says at [MASK] which items belong there. All items of a set stand at
one position, so that their order does not count; those of an ordered history stand one after the other, [MASK] last.
In training an item's vector is the sum of its own and the mean of its words'; a release has the sums as its embeddings:

config.json model.safetensors    AutoModelForMaskedLM.from_pretrained(folder)
items.json                       which item each token is
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from graftline.durable import write_new
from graftline.errors import InputError
from graftline.learning.device import send
from graftline.trunks import CONFIG, WEIGHTS, load_weights, read_config
from graftline.trunks.items.parameters import ItemsParams
from graftline.trunks.items.vocabulary import Vocabulary, load_vocabulary
from graftline.trunks.layout import quiet

if TYPE_CHECKING:
    from transformers import ModernBertConfig

KIND = "items"
_SPECIAL = 2
"""Tokens that are no items: [MASK] and padding."""


class ItemTrunk(nn.Module):
    """Histories to (n, items) logits."""

    own: torch.Tensor
    """(items,) bool: which have vectors of their own."""
    flat: torch.Tensor
    """All items' words, one item after the other."""
    starts: torch.Tensor
    """(items,) where each item's words begin."""

    def __init__(self, params: ItemsParams, vocabulary: Vocabulary, *, joined: bool = False) -> None:
        """Build an untrained one; its weights are drawn from torch's global generator.

        `joined`: all items have vectors, in which their words are already.
        """
        from transformers import ModernBertForMaskedLM

        super().__init__()
        quiet()
        self.params, self.vocabulary = params, vocabulary
        made: Any = ModernBertForMaskedLM(_config(params, vocabulary))
        made.set_attn_implementation("sdpa")
        self.base, self.head = made.model, made.head
        self.bias = nn.Parameter(torch.zeros(len(vocabulary)))
        own = torch.ones(len(vocabulary), dtype=torch.bool) if joined else torch.from_numpy(vocabulary.own)
        self.register_buffer("own", own, persistent=False)
        self.words: nn.EmbeddingBag | None = None
        self.word_bias: nn.EmbeddingBag | None = None
        if vocabulary.bags and not joined:
            self.words = nn.EmbeddingBag(len(vocabulary.words), params.width, mode="mean")
            self.word_bias = nn.EmbeddingBag(len(vocabulary.words), 1, mode="mean")
            nn.init.normal_(self.words.weight, std=0.02)
            nn.init.zeros_(self.word_bias.weight)
            flat = torch.tensor([word for bag in vocabulary.bags for word in bag], dtype=torch.int64)
            sizes = torch.tensor([len(bag) for bag in vocabulary.bags])
            self.register_buffer("flat", flat, persistent=False)
            self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)

    @property
    def embeddings(self) -> torch.Tensor:
        """(items + 2, width): each item's own vector, then those of [MASK] and padding."""
        found: torch.Tensor = self.base.embeddings.tok_embeddings.weight
        return found

    def table(self, kept: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each item's vector, (items, width), and its bias, (items,).

        Of items where `kept`, (items,) bool, is false, and of those without a vector of their own, the words' alone.
        """
        own = self.own if kept is None else self.own & kept
        vectors, bias = self.embeddings[: len(self.vocabulary)] * own[:, None], self.bias * own
        if self.words is not None and self.word_bias is not None:
            vectors = vectors + self.words(self.flat, self.starts)
            bias = bias + self.word_bias(self.flat, self.starts)[:, 0]
        return vectors, bias

    def states(self, ids: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Return (n, width): the last hidden state at [MASK], which stands for the whole history.

        Args:
            ids: (n, longest) of each history, then padding; on the trunk's device.
            vectors: (items, width), as `table` returns them.
        """
        seen = ids != self.vocabulary.padding
        table = torch.cat([vectors, self.embeddings[len(self.vocabulary) :]])
        asked = torch.full_like(ids[:, :1], self.vocabulary.mask)
        positions = torch.zeros(len(ids), 1 + ids.shape[1], dtype=torch.int64, device=ids.device)
        if self.vocabulary.ordered:  # [MASK] comes first in the table and stands last in the history
            steps = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
            positions = torch.cat([seen.sum(dim=1, keepdim=True), steps], dim=1)
        found: torch.Tensor = self.base(
            inputs_embeds=nn.functional.embedding(torch.cat([asked, ids], dim=1), table),
            attention_mask=torch.cat([torch.ones_like(seen[:, :1]), seen], dim=1).long(),
            position_ids=positions,
        ).last_hidden_state[:, 0]
        return found

    def logits(self, states: torch.Tensor, vectors: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return (n, items) float32."""
        found: torch.Tensor = nn.functional.linear(self.head(states), vectors, bias)
        return found.float()

    def save(self, folder: Path) -> None:
        """Write the trunk with its items' words apart, so that learning can go on."""
        from safetensors.torch import save

        write_new(folder / WEIGHTS, save(self.state_dict()))
        self.vocabulary.save(folder)

    def save_joined(self, folder: Path) -> None:
        """Write the network in the Hugging Face layout, its items' vectors as they are with their words."""
        from transformers import ModernBertForMaskedLM

        whole: Any = ModernBertForMaskedLM(self.base.config)
        whole.model.load_state_dict(self.base.state_dict())
        whole.head.load_state_dict(self.head.state_dict())
        with torch.no_grad():
            vectors, bias = self.table()
            whole.model.embeddings.tok_embeddings.weight[: len(vectors)] = vectors.cpu()
            whole.decoder.bias.zero_()[: len(bias)] = bias.cpu()
        whole.save_pretrained(folder, safe_serialization=True, max_shard_size="1TB")
        self.vocabulary.save(folder)


def _config(params: ItemsParams, vocabulary: Vocabulary) -> ModernBertConfig:
    from transformers import ModernBertConfig

    special: dict[str, Any] = {"mask_token_id": vocabulary.mask, "pad_token_id": vocabulary.padding}
    special |= dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
    # All layers global, as in trunks/text: no history is so long that a local window pays.
    return ModernBertConfig(
        vocab_size=len(vocabulary) + _SPECIAL,
        hidden_size=params.width,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        intermediate_size=params.hidden,
        layer_types=["full_attention"] * params.layers,
        embedding_dropout=params.dropout,
        attention_dropout=0.0,
        mlp_dropout=params.dropout,
        tie_word_embeddings=True,
        **special,
    )


def load_trunk(folder: Path, *, weights: bool = True) -> ItemTrunk:
    """Return the trunk in `folder`, or with `weights=False` an untrained one of its shape and with its items.

    Raises:
        InputError: it is none, or its weights do not fit.
    """
    config = read_config(folder, KIND)
    try:
        params = ItemsParams.model_validate(config["trunk"])
    except ValueError as error:
        found = f"not a trunk's config ({str(error).splitlines()[0]})"
        raise InputError(folder / CONFIG, found, fix="run pretrain again") from None
    trunk = ItemTrunk(params, load_vocabulary(folder))
    if weights:
        load_weights(trunk, folder / WEIGHTS, fix="run pretrain again")
    return trunk


def load_joined(folder: Path, params: ItemsParams) -> ItemTrunk:
    """Return the trunk of a model that `save_joined` wrote. Raises InputError."""
    from safetensors import SafetensorError
    from transformers import ModernBertForMaskedLM

    trunk = ItemTrunk(params, load_vocabulary(folder), joined=True)
    try:
        whole: Any = ModernBertForMaskedLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, local_files_only=True
        )
        trunk.base.load_state_dict(whole.model.state_dict())
        trunk.head.load_state_dict(whole.head.state_dict())
        with torch.no_grad():
            trunk.bias.copy_(whole.decoder.bias[: len(trunk.bias)])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(folder, f"no model that loads ({reason})", fix="run finetune again") from None
    return trunk


def padded(histories: Sequence[torch.Tensor], padding: int, to: torch.device) -> torch.Tensor:
    """Return (n, longest) int64 ids on a device, at least one wide."""
    width = max(1, *(len(history) for history in histories))
    ids = torch.full((len(histories), width), padding, dtype=torch.int64)
    for place, history in enumerate(histories):
        ids[place, : len(history)] = history
    return send(ids, to)
