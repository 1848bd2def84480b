"""The parameters of text trunks and of what they learn from; without torch, like all parameter models."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from pydantic import Field

from graftline.trunks.parameters import ObjectiveParams, RotaryLayersParams

Form = Literal["encoder", "decoder", "encoder-decoder"]
"""Whether a token sees all others, only those before it, or a text is read and another written."""
ARCHITECTURES: dict[Form, tuple[str, ...]] = {
    "encoder": ("modernbert", "bert"),
    "decoder": ("llama", "gpt2"),
    "encoder-decoder": ("mbart", "bart"),
}


class TextParams(RotaryLayersParams):
    """The shape of a text trunk that is trained from scratch."""

    family: ClassVar[str] = "text"

    name: Literal["text"] = "text"
    architecture: Literal["modernbert", "bert", "llama", "gpt2", "mbart", "bart"] = "modernbert"
    """Encoders, for masked_lm: modernbert (pre-norm, rotary positions, gated layers; Warner et al., 2024,
    arXiv:2412.13663) or bert (Devlin et al., 2019). Decoders, for causal_lm: llama (Touvron et al., 2023) or gpt2
    (Radford et al., 2019). Encoders with a decoder, for denoising: mbart (pre-norm; Liu et al., 2020, arXiv:2001.08210)
    or bart (post-norm; Lewis et al., 2020, arXiv:1910.13461)."""
    layers: int = Field(default=2, ge=1, le=200)
    """Transformer blocks; of mbart and bart, as many in the encoder and as many in the decoder."""
    width: int = Field(default=128, ge=8, le=16_384)
    """Length of a token's vector; a multiple of `heads`."""
    heads: int = Field(default=2, ge=1, le=256)
    """Attention heads."""
    hidden: int = Field(default=256, ge=8, le=65_536)
    """Width inside the feed-forward layer; a gated one (modernbert, llama) has two such projections."""
    max_length: int = Field(default=128, ge=8, le=131_072)
    """Tokens of the longest document; longer ones are cut into pieces."""

    @property
    def form(self) -> Form:
        return next(form for form, names in ARCHITECTURES.items() if self.architecture in names)

    @property
    def decodes(self) -> bool:
        """Whether a token sees only what is before it."""
        return self.form == "decoder"

    def check(self, objective: ObjectiveParams, where: str) -> None:
        super().check(objective, where)
        assert isinstance(objective, get_args(TextObjectiveParams))
        if self.form != objective.form:
            fits = " or ".join(ARCHITECTURES[objective.form])
            raise ValueError(f"objective {objective.name} needs {fits}, {where}.architecture is {self.architecture}")

    @property
    def layer_weights(self) -> float:
        """As of alike layers; an encoder with a decoder has twelve matrices of attention and four others."""
        if self.form == "encoder-decoder":
            return self.layers * (12 * self.width**2 + 4 * self.width * self.hidden)
        return super().layer_weights


class _OnText(ObjectiveParams):
    family: ClassVar[str] = "text"
    loss_unit: ClassVar[str] = "nats a predicted token"
    needs: ClassVar[str] = "a text trunk or a rootstock"

    form: ClassVar[Form] = "encoder"
    """What it trains."""
    narrow_on_cpu: ClassVar[bool] = True
    """Whether the arithmetic `auto` narrows on a CPU that can."""


class MaskedLMParams(_OnText):
    """Parameters of the objective `masked_lm`."""

    name: Literal["masked_lm"] = "masked_lm"
    mask_ratio: float = Field(default=0.3, gt=0, lt=1)
    """Share of tokens that are hidden in training (0.3 to 0.4: Wettig et al., 2023, arXiv:2202.08005). Held-out
    documents always have 0.15 hidden, the same tokens for every recipe, so that losses compare."""


class CausalLMParams(_OnText):
    """Parameters of the objective `causal_lm`."""

    name: Literal["causal_lm"] = "causal_lm"

    decodes: ClassVar[bool] = True
    form: ClassVar[Form] = "decoder"
    tokens: ClassVar[Literal["wordpiece", "bpe", "bpe_mask"]] = "bpe"


class DenoisingParams(_OnText):
    """Parameters of the objective `denoising`."""

    name: Literal["denoising"] = "denoising"
    mask_ratio: float = Field(default=0.35, gt=0, lt=1)
    """Share of tokens that are hidden, as in mBART. Held-out documents always have 0.35 hidden, in spans of 3 on
    average, the same tokens for every recipe, so that losses compare."""
    span: float = Field(default=3.0, ge=1, le=50)
    """Tokens that are hidden together, on average: one mask stands for all of them."""

    form: ClassVar[Form] = "encoder-decoder"
    narrow_on_cpu: ClassVar[bool] = False
    """oneDNN compiles a bfloat16 kernel for each shape, and tables of two texts have many: 6,000 tokens a second in
    float32, 2,100 over the first 200 steps in bfloat16."""
    tokens: ClassVar[Literal["wordpiece", "bpe", "bpe_mask"]] = "bpe_mask"


TextObjectiveParams = MaskedLMParams | CausalLMParams | DenoisingParams
