"""A head's model: one of transformers' own, from a trunk in the Hugging Face layout, and saved in it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import nn

from graftline.canonical import read_json
from graftline.dataset import Schema
from graftline.errors import InputError
from graftline.learning.device import compile_if_worth, device, send
from graftline.learning.distributed import World, share
from graftline.learning.precision import arithmetic, autocast
from graftline.learning.randomness import generator
from graftline.problems.documents import ANSWER_TOKENS, ROUND, Documents, by_length, documents_of, padded
from graftline.problems.problem import E, Model, Problem
from graftline.problems.text_parameters import Lora, TextHeadParams, TransformerParams
from graftline.text.tokenizer import load_tokenizer, save_tokenizer
from graftline.trunks import read_config
from graftline.trunks.layout import quiet
from graftline.trunks.text.trunk import KIND, attend, save_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_AS_IT_IS = {
    "attn_implementation": "sdpa", "dtype": torch.float32, "output_loading_info": True, "local_files_only": True,
    "use_safetensors": True,
}  # fmt: skip


def start_model(
    auto: type, trunk: Path, *, scratch: bool, kind: str = KIND, **settings: Any
) -> tuple[PreTrainedModel, frozenset[str]]:
    """Return transformers' model of the class `auto` on the trunk in a folder, and its new parameters' names.

    Both arms draw the same initial weights from torch's global generator; then, but for `scratch`, what
    pretraining saved replaces them. So the new parameters (the head's) are equal in both.

    Args:
        auto: such as AutoModelForSequenceClassification.
        trunk: a folder in the Hugging Face layout.
        scratch: keep the initial weights.
        kind: of the trunk.
        settings: what differs from the trunk's config.

    Raises:
        InputError: the folder holds no such model, or its tensors do not fit.
    """
    from transformers import AutoConfig

    read_config(trunk, kind)
    with _loading(trunk, "run pretrain again"):
        config = AutoConfig.from_pretrained(trunk, local_files_only=True)
        for name, value in settings.items():
            setattr(config, name, value)
        fresh = auto.from_config(config, attn_implementation="sdpa", dtype=torch.float32)  # type: ignore[attr-defined]
        loaded, found = auto.from_pretrained(trunk, config=config, **_AS_IT_IS)  # type: ignore[attr-defined]
    new = frozenset(found["missing_keys"])
    if scratch:
        return fresh, new
    initial = fresh.state_dict()
    loaded.load_state_dict({name: initial[name] for name in new}, strict=False)
    return loaded, new


def longest(folder: Path, wanted: int) -> int:
    """Return how many tokens an input may have: `wanted`, or fewer if the model in `folder` has fewer positions."""
    config = read_json(folder / "config.json")
    positions = config.get("max_position_embeddings", config.get("n_positions", wanted))
    return min(wanted, int(positions))


def with_dropout(share: float) -> dict[str, float]:
    """Return every name under which transformers' configs know dropout, each with `share`."""
    names = (
        "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "embedding_dropout",
        "mlp_dropout", "attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop",
    )  # fmt: skip
    return dict.fromkeys(names, share)


@contextmanager
def _loading(folder: Path, fix: str) -> Iterator[None]:
    """Raise InputError, not transformers' own errors, about a model in a folder that does not load."""
    quiet()
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        text = " ".join(str(error).split())
        text = text if len(text) <= 200 else text[:197] + "..."
        raise InputError(folder, f"no model that loads ({text})", fix=fix) from None


class TransformerModel(Model[E]):
    """One of transformers' models, some of whose parameters are the head's."""

    narrow_on_cpu: ClassVar[bool] = True
    """Whether the arithmetic `auto` narrows on a CPU that can."""
    _params: Any

    def __init__(self, network: PreTrainedModel, new: frozenset[str], params: TransformerParams) -> None:
        """Train `network`, of which the parameters named in `new` are the head's, as `params` say."""
        super().__init__()
        self.network: PreTrainedModel = network.to(device())  # type: ignore[arg-type]
        self.scores, self._params, self._new, self._frozen = params.scores, params, new, False
        self.dtype = arithmetic(params.precision, narrow_on_cpu=self.narrow_on_cpu)
        self._drops = params.dropout > 0

    def add_adapters(self, lora: Lora) -> None:
        """Give the trunk's linear layers low-rank adapters, and learn those instead of the layers."""
        from peft import LoraConfig, inject_adapter_in_model
        from transformers.pytorch_utils import Conv1D

        linear = [n for n, m in self.network.named_modules() if isinstance(m, nn.Linear | Conv1D)]
        inside = [n for n in linear if n.startswith(self.network.base_model_prefix + ".")]
        if lora.targets is not None:
            inside = [n for n in inside if n.split(".")[-1] in lora.targets]
            if not inside:
                known = sorted({n.split(".")[-1] for n in linear if n not in self._new})
                raise InputError(
                    "finetune.head.lora.targets",
                    f"none of {', '.join(lora.targets)} is in the trunk",
                    expected=f"some of {', '.join(known)}",
                )
        swapped = any(isinstance(self.network.get_submodule(name), Conv1D) for name in inside)
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=inside, fan_in_fan_out=swapped)
        inject_adapter_in_model(config, self.network)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_("lora_" in name or name in self._new)

    def head_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.network.named_parameters() if name in self._new]

    def trunk_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.network.named_parameters() if name not in self._new and p.requires_grad]

    def freeze_trunk(self) -> None:
        self._frozen = True
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in self._new)

    def go_on_from(self, other: Model[E]) -> None:
        own, given = self.state_dict(), other.state_dict()
        # A saved model has its adapters merged into the layers that new ones stand on, which say nothing yet.
        layers = {name: name.replace(".base_layer.", ".") for name in own if ".lora_" not in name}
        self.load_state_dict(own | {name: given[saved] for name, saved in layers.items()})

    def compile_if_worth(self, steps: int) -> None:
        compile_if_worth(self.network.base_model, steps)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self._frozen:
            self.network.base_model.eval()
        return self

    def learning(self, documents: E, seed: int, step: int, part: World | None = None) -> AbstractContextManager[object]:
        """Return the context of a forward pass that is learned from; dropout is a pure function of (seed, step).

        Of several processes each drops by draws of its own: other ones than a single process would make.
        """
        if self._drops:
            purpose = f"dropout {part.rank}" if part and part.rank else "dropout"
            torch.manual_seed(generator(seed, step, purpose).initial_seed())
        return autocast(self.dtype, self.network.device)

    def answering(self, *, fast: bool) -> AbstractContextManager[object]:
        """Return the context of one that is not: in float32, as the released model answers, if not `fast`."""
        return autocast(self.dtype if fast else "float32", self.network.device)

    @abstractmethod
    def inputs(self, examples: E) -> dict[str, torch.Tensor]:
        """Return what the network takes of examples, by the names of its arguments."""

    def merge_adapters(self) -> None:
        """Add what adapters learnt to the layers, and leave them out."""
        from peft.tuners.lora import LoraLayer

        for name, module in list(self.network.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge()
                parent, _, last = name.rpartition(".")
                setattr(self.network.get_submodule(parent), last, module.get_base_layer())


P = TypeVar("P", bound=TransformerParams)


class TransformerProblem(Problem[E], Generic[E, P]):
    """A head on one of transformers' models."""

    model: ClassVar[type[TransformerModel[Any]]]

    def __init__(self, params: P) -> None:
        self._params = params

    @property
    def params(self) -> P:
        return self._params

    def environment(self, trunk: Path) -> dict[str, str]:
        return {"dtype": arithmetic(self._params.precision, narrow_on_cpu=self.model.narrow_on_cpu)}

    @staticmethod
    @abstractmethod
    def architecture() -> type:
        """Return transformers' Auto class of the model; the import is heavy."""

    def settings(self, schema: Schema) -> dict[str, Any]:
        """Return what the model's config says of what is learned. Raises InputError if nothing can be."""
        return {}


D = TypeVar("D", bound=Documents)


class TextModel(TransformerModel[D]):
    """A model of text, and the tokenizer that goes with it."""

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, new: frozenset[str], params: TextHeadParams
    ) -> None:
        super().__init__(network, new, params)
        self.tokenizer = tokenizer

    def learning(self, documents: D, seed: int, step: int, part: World | None = None) -> AbstractContextManager[object]:
        attend(self.network, int(documents.lengths.max()), learning=True)
        return super().learning(documents, seed, step, part)

    def answering(self, *, fast: bool) -> AbstractContextManager[object]:
        attend(self.network, 0, learning=False)
        return super().answering(fast=fast)

    def inputs(self, documents: Documents) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask`, (n, width) each; width is the longest, rounded up."""
        fill = self.tokenizer.pad_token_id or 0
        place = self.network.device
        lengths = documents.lengths
        longest = int(lengths.max())
        width = max(longest, min(longest + -longest % ROUND, self.network.config.max_position_embeddings))
        mask = padded(torch.ones(len(documents.ids)), lengths, 0, width)
        ids = padded(documents.ids, lengths, int(fill), width)
        return {"input_ids": send(ids, place), "attention_mask": send(mask, place)}

    def save(self, folder: Path) -> dict[str, Any]:
        """Write model and tokenizer in the Hugging Face layout, adapters merged."""
        attend(self.network, 0, learning=False)
        self.merge_adapters()
        save_model(self.network, folder)
        save_tokenizer(self.tokenizer, folder)
        return {}


class Labelled(TransformerModel[D]):
    """Learns to tell something of each unit, such as a document or a word."""

    @staticmethod
    def targets(examples: D) -> torch.Tensor:
        """Return (units, ...): what is to be told of labelled examples."""
        assert examples.labels is not None
        return examples.labels

    @abstractmethod
    def criterion(self, outputs: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Return the mean loss of (units, outputs), on one device with their labels; each times its weight, if any."""

    @abstractmethod
    def logits(self, examples: D, *, fast: bool = False) -> torch.Tensor:
        """Return (units, outputs) float32 on the CPU, in the units' order."""

    def loss(self, examples: D, seed: int, step: int, part: World | None = None) -> torch.Tensor:
        mine = examples if part is None else examples.take(share(torch.arange(len(examples)), part))
        with self.learning(mine, seed, step, part):
            outputs = self(mine)
        targets = self.targets(mine)
        loss = self.criterion(outputs, send(targets, outputs.device), mine.unit_weights())
        return loss * (len(targets) / len(self.targets(examples)))


class LabelledText(Labelled[D], TextModel[D]):
    """On text."""


class WholeModel(Labelled[D]):
    """Documents, or what is as long as it is, to (n, outputs) float32."""

    at_once: int = ANSWER_TOKENS
    """Tokens that are answered at once, with padding."""

    def forward(self, documents: D) -> torch.Tensor:
        outputs: torch.Tensor = self.network(**self.inputs(documents)).logits
        return outputs.float()

    def logits(self, examples: D, *, fast: bool = False) -> torch.Tensor:
        self.eval()
        parts, places = [], list(by_length(examples.lengths, self.at_once))
        with torch.inference_mode(), self.answering(fast=fast):
            for chosen in places:
                parts.append(self(examples.take(chosen)).cpu())
        return torch.cat(parts)[torch.cat(places).argsort()]


class DocumentModel(WholeModel[D], LabelledText[D]):
    """On text."""


def encode(
    folder: Path, texts: list[str], wanted: int, rows: np.ndarray, labels: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays of documents as the trunk or model in `folder` takes texts: `wanted` tokens at most."""
    most = longest(folder, wanted)
    tokenizer = load_tokenizer(folder)
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=most)["input_ids"]
    return {**documents_of(ids, rows, labels), "cut": cut_tokens(tokenizer, texts, ids, most)}


def cut_tokens(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], ids: list[list[int]], most: int, **options: Any
) -> np.ndarray:
    """Return (n,) int32: by how many tokens texts are longer than their token ids, `most` of each at most."""
    cut = np.zeros(len(texts), dtype=np.int32)
    full = [place for place, found in enumerate(ids) if len(found) >= most]
    if full:
        whole = tokenizer([texts[place] for place in full], verbose=False, **options)["input_ids"]
        cut[full] = [len(found) - most for found in whole]
    return cut


def saved_model(auto: type, folder: Path) -> PreTrainedModel:
    """Return the model that was saved in `folder`. Raises InputError if its tensors do not fit."""
    with _loading(folder, "run finetune again"):
        model, found = auto.from_pretrained(folder, **_AS_IT_IS)  # type: ignore[attr-defined]
    if found["missing_keys"] or found["mismatched_keys"]:
        names = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
        raise InputError(
            folder / "model.safetensors",
            f"{names[0]} is missing or of another shape",
            expected="tensors that fit the config beside it",
            fix="run finetune again",
        )
    network: PreTrainedModel = model
    return network
