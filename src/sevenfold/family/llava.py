"""LLaVA: a tower of pictures whose patches, through a small network, stand among the words that a language model reads.

    p = tower(picture) after block -2, without class token;   x <- [E[id_1 … id_k], W_2 gelu(W_1 p + b_1) + b_2, E[id_k+2 …]]
    x <- x + attention(N(x));  x <- x + W (silu(G N(x)) * U N(x));  logits = V N(x)

Liu 2023, arXiv:2304.08485 section 4.1; LLaVA 1.5 arXiv:2310.03744. Weights: huggingface.co/llava-hf/llava-1.5-7b-hf.
Objective: next_token on the text. The tower is CLIP's or SigLIP's; its blocks above that layer are carried along. A picture
stands where a text says `<image>` (once, or once for each patch), and in front of one that does not.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch
from sevenfold.family import SAME, Family, Rule, affine, blocks, lead, patches, unread
from sevenfold.family import _decoder as decoder
from sevenfold.family._pictures import ACTIVATIONS, OPENAI, Pictures, cells, table
from sevenfold.family.clip import LAYERS, PictureConfig, tower
from sevenfold.family.llama import Llama

SIGLIP = {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
"""Where SigLIP's tower differs from CLIP's, if its config says nothing."""


class TowerConfig(PictureConfig):
    """The tower of pictures."""

    model_type: Literal["clip_vision_model", "siglip_vision_model"] = "clip_vision_model"
    """Whose it is: CLIP's has a class token and a norm in front."""
    vision_use_head: bool = True
    """Whether SigLIP's has its pooling head, which is carried along."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        siglip = isinstance(given, dict) and given.get("model_type") == "siglip_vision_model"
        return {**SIGLIP, **given} if siglip else given

    @property
    def is_clip(self) -> bool:
        """Whether it is CLIP's."""
        return self.model_type == "clip_vision_model"


LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""CLIP's large tower for pictures of 336 pixels."""
VICUNA = {"vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
WIDER = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}


class LLaVA(Pictures):
    class Config(Family.Config):
        model_type: Literal["llava"] = "llava"
        """Which published config this is."""
        architectures: tuple[Literal["LlavaForConditionalGeneration"], ...] | None = ("LlavaForConditionalGeneration",)
        """The language model has its head for the next token."""
        text_config: Llama.Config = Llama.Config(**VICUNA)
        """The language model."""
        vision_config: TowerConfig = TowerConfig(**LARGE)
        """The tower of pictures."""
        image_token_index: int = Field(32000, ge=0)
        """The id of the placeholder."""
        projector_hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu"] = "gelu"
        """What stands between the two maps of the connector."""
        vision_feature_select_strategy: Literal["default", "full"] = "default"
        """Whether the tower's class token is left out (default)."""
        vision_feature_layer: int = -2
        """After which block the tower is read: from the first on (0: before all), or, negative, from the last back."""
        multimodal_projector_bias: bool = True
        """Whether the connector has biases."""
        tie_word_embeddings: bool = False
        """Whether the head is the embedding."""

    sizes = {
        "1.5_7b": {},
        "1.5_13b": {"text_config": {**VICUNA, **WIDER}},
    }
    processor = "CLIP"
    colours = OPENAI
    states = {"lm": "hidden_states"}
    objective = {"kind": "next_token", "trunk": "lm", "stream": "text"}
    spellings = [
        (r"^model\.language_model\.", "language_model.model."),
        (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^vision_tower\.vision_model\.", "vision_tower."),
    ]
    unused = [r".*rotary_emb\.inv_freq", r"vision_tower\.embeddings\.position_ids"]

    def __init__(self, config: Any):
        super().__init__(config)
        self.tied = config.tie_word_embeddings or config.text_config.tie_word_embeddings
        if self.tied:
            self.copies = {r"language_model\.lm_head\.weight": "language_model.model.embed_tokens.weight"}
        depth, layer = config.vision_config.num_hidden_layers, config.vision_feature_layer
        self.depth = layer if layer >= 0 else depth + 1 + layer
        if not 0 <= self.depth <= depth:
            raise ConfigError(
                f"vision_feature_layer: the tower has {depth} blocks, and none before or after is {layer}"
            )
        if not config.vision_config.is_clip and config.vision_feature_select_strategy == "default":
            raise ConfigError(
                "vision_feature_select_strategy: 'default' leaves out a class token, and SigLIP's tower has none: say 'full'"
            )

    def published(self) -> dict[str, Any]:
        return {**super().published(), "text_config": Llama(self.config.text_config).published()}

    def model(self) -> ModelConfig:
        c, vision, text = self.config, self.config.vision_config, self.config.text_config
        cells(vision)
        between = {**ACTIVATIONS[c.projector_hidden_act], "inner": text.hidden_size}
        enters = {
            "connector": {"kind": "mlp", "nonlinearity": between, "bias": c.multimodal_projector_bias},
            "extras": c.vision_feature_select_strategy == "full",
            "splice": {"stream": "text", "id": c.image_token_index},
        }
        words = decoder.words(text)
        words["tokenizer"]["place"] = c.image_token_index
        data = {
            "streams": {"image": self.stream(vision, bias=not vision.is_clip), "text": words},
            "trunks": {
                "v": {
                    **tower(vision, "image", 1),
                    "depth": self.depth,
                    "position": self.position(vision, class_row=vision.is_clip),
                    "class_token": vision.is_clip,
                    "input_norm": vision.is_clip,
                    "final_norm": False,
                },
                "lm": {**decoder.trunk(text, ("v", "text")), "index": True, "entries": {"v": enters}},
            },
            "heads": {"text": {"trunk": "lm", "stream": "text", "projection": "tied" if self.tied else "linear"}},
        }
        return part.decode(ModelConfig, data, "llava")

    def rules(self) -> list[Rule]:
        words, bias = "language_model", SAME if self.config.multimodal_projector_bias else None
        rules = self._tower()
        rules += affine("trunks.lm.embeds.v.feed.up", "multi_modal_projector.linear_1", bias=bias)
        rules += affine("trunks.lm.embeds.v.feed.out", "multi_modal_projector.linear_2", bias=bias)
        rules += decoder.rules(self.config.text_config, "lm", "text", f"{words}.model")
        if not self.tied:
            rules.append(Rule("heads.text.projection.weight", f"{words}.lm_head.weight"))
        return rules

    def _tower(self) -> list[Rule]:
        """The tower up to where it is read, and what is above."""
        vision, theirs = self.config.vision_config, "vision_tower"
        convolution = patches(vision.patch_size, vision.num_channels)
        bias = None if vision.is_clip else SAME
        rules = affine("trunks.v.embeds.image", f"{theirs}.embeddings.patch_embedding", convolution, bias)
        rules.append(table("v", f"{theirs}.embeddings.position_embedding.weight", vision.is_clip, axes=0))
        if vision.is_clip:
            rules.append(Rule("trunks.v.tokens", f"{theirs}.embeddings.class_embedding", lead(-1)))
            rules += affine("trunks.v.input_norm", f"{theirs}.pre_layrnorm")
        rules += blocks("v", self.depth, f"{theirs}.encoder.layers.{{i}}", LAYERS)
        return [*rules, *(unread(f"{theirs}.{name}", *shape) for name, shape in above(vision, self.depth).items())]

    def trial(self, model: Model) -> tuple[Batch, dict[str, Tensor]]:
        """With the placeholder behind the first words: once in ours, once for each token of the picture in theirs."""
        batch, given = super().trial(model)
        text, place = batch["text"], self.config.image_token_index
        ids = torch.where(text.values == place, place - 1, text.values)
        ids[:, 2] = place
        tokens = batch["image"].values.shape[1] + (self.config.vision_feature_select_strategy == "full") * int(
            self.config.vision_config.is_clip
        )
        repeated = torch.full((len(ids), tokens), place)
        return {**batch, "text": text._replace(values=ids)}, {
            **given,
            "input_ids": torch.cat([ids[:, :2], repeated, ids[:, 3:]], 1),
        }


def above(vision: TowerConfig, depth: int) -> dict[str, tuple[int, ...]]:
    """What a tower has above its first `depth` blocks: published name → shape."""
    d, inner = vision.hidden_size, vision.intermediate_size
    found: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = shape, shape[:1]

    for index in range(depth, vision.num_hidden_layers):
        place = f"encoder.layers.{index}"
        for norm in ("layer_norm1", "layer_norm2"):
            layer(f"{place}.{norm}", d)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            layer(f"{place}.self_attn.{name}", d, d)
        layer(f"{place}.mlp.fc1", inner, d)
        layer(f"{place}.mlp.fc2", d, inner)
    layer("post_layernorm", d)
    if not vision.is_clip and vision.vision_use_head:
        found |= {"head.probe": (1, 1, d), "head.attention.in_proj_weight": (3 * d, d)}
        found["head.attention.in_proj_bias"] = (3 * d,)
        layer("head.attention.out_proj", d, d)
        layer("head.layernorm", d)
        layer("head.mlp.fc1", inner, d)
        layer("head.mlp.fc2", d, inner)
    return found
