"""Mamba: a causal stack of selective state spaces, without attention, positions or feed-forward parts.

    x <- x + W (s(u) * silu(z)),   [u z] = U N(x);   logits = E N(x)          s: short convolution, selection, scan

Gu 2023, arXiv:2312.00752, sizes from its table 12. Weights: huggingface.co/state-spaces/mamba-130m-hf. Objective: next_token.
What a block keeps is of one size however long the text is: `length` is only what it was trained at.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.family import Family, Op, Rule, repeat

TRAINED = 2048
"""Tokens of a text in training, which the config does not say."""
TAPS = Op(lambda theirs: [theirs[0].squeeze(1)], lambda ours: [ours[0].unsqueeze(1)])
"""A depthwise convolution's weight, [channels 1 taps]."""


class Mamba(Family):
    class Config(Family.Config):
        model_type: Literal["mamba"] = "mamba"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = ("MambaForCausalLM",)
        """What stands on the stack: a head for the next token, unless it is only MambaModel."""
        vocab_size: int = Field(50280, ge=8, le=1 << 22)
        """Ids."""
        hidden_size: int = Field(768, ge=1, le=1 << 16)
        """Width."""
        num_hidden_layers: int = Field(32, ge=1, le=4096)
        """Blocks."""
        state_size: int = Field(16, ge=1, le=1024)
        """Numbers that a channel keeps."""
        expand: int = Field(2, ge=1, le=64)
        """Channels inside, as a multiple of the width."""
        conv_kernel: int = Field(4, ge=2, le=64)
        """Taps of the short convolution."""
        time_step_rank: Literal["auto"] | Annotated[int, Field(ge=1, le=1 << 16)] = "auto"
        """Numbers of which the step sizes are made; auto: width / 16, rounded up."""
        use_bias: bool = False
        """Whether the first and the last layer of a block have biases."""
        use_conv_bias: bool = True
        """Whether the short convolution has one."""
        layer_norm_epsilon: float = Field(1e-5, gt=0, lt=1)
        """Added to the mean square."""
        hidden_act: Literal["silu"] = "silu"
        """The function after the convolution, and of the gate."""
        residual_in_fp32: bool = True
        """Whether the stream is float32 beside weights in bf16; ours is as the embedding's table is."""
        tie_word_embeddings: bool = True
        """Whether the head is the embedding."""

    sizes = {
        "130m": {"num_hidden_layers": 24},
        "370m": {"hidden_size": 1024, "num_hidden_layers": 48},
        "790m": {"hidden_size": 1536, "num_hidden_layers": 48},
        "1.4b": {"hidden_size": 2048, "num_hidden_layers": 48},
        "2.8b": {"hidden_size": 2560, "num_hidden_layers": 64},
    }
    states = {"lm": "hidden_states"}
    first_state = 1
    objective = {"kind": "next_token"}
    spellings = [
        (r"^(embeddings?|layers|norm_f)\.", r"backbone.\1."),
        (r"^backbone\.embedding\.", "backbone.embeddings."),
    ]

    def __init__(self, config: Any):
        super().__init__(config)
        self.copies = {r"lm_head\.weight": "backbone.embeddings.weight"} if config.tie_word_embeddings else {}

    @property
    def headed(self) -> bool:
        """Whether it has a head for the next token."""
        return tuple(self.config.architectures or ()) != ("MambaModel",)

    def model(self) -> ModelConfig:
        c = self.config
        rank = math.ceil(c.hidden_size / 16) if c.time_step_rank == "auto" else c.time_step_rank
        mixer = {
            "kind": "selective_ssm",
            "state": c.state_size,
            "expand": c.expand,
            "kernel": c.conv_kernel,
            "rank": rank,
            "conv_bias": c.use_conv_bias,
            "select": {"kind": "linear"},
        }
        block = {
            "mixer": mixer,
            "nonlinearity": None,
            "norm": {"kind": "rms", "eps": c.layer_norm_epsilon},
            "projection": {"kind": "linear", "bias": c.use_bias},
        }
        trunk = {
            "inputs": ["text"],
            "width": c.hidden_size,
            "depth": c.num_hidden_layers,
            "position": {"kind": "none"},
            "mask": {"causal": True},
            "block": block,
        }
        text = {"kind": "text", "tokenizer": {"kind": "published", "size": c.vocab_size}, "length": TRAINED}
        head = {"trunk": "lm", "stream": "text", "projection": "tied" if c.tie_word_embeddings else "linear"}
        data = {"streams": {"text": text}, "trunks": {"lm": trunk}, "heads": {"text": head} if self.headed else {}}
        return part.decode(ModelConfig, data, "mamba")

    def rules(self) -> list[Rule]:
        c = self.config
        ours, theirs = "trunks.lm.blocks.{i}", "backbone.layers.{i}"
        names = {
            "mixer.up.weight": "mixer.in_proj.weight",
            "mixer.select.weight": "mixer.x_proj.weight",
            "mixer.dt_weight": "mixer.dt_proj.weight",
            "mixer.dt_bias": "mixer.dt_proj.bias",
            "mixer.A_log": "mixer.A_log",
            "mixer.D": "mixer.D",
            "mixer.out.weight": "mixer.out_proj.weight",
            "norms.0.weight": "norm.weight",
        }
        if c.use_bias:
            names |= {"mixer.up.bias": "mixer.in_proj.bias", "mixer.out.bias": "mixer.out_proj.bias"}
        if c.use_conv_bias:
            names["mixer.taps_bias"] = "mixer.conv1d.bias"
        block = [Rule(f"{ours}.mixer.taps", f"{theirs}.mixer.conv1d.weight", TAPS)]
        block += [Rule(f"{ours}.{own}", f"{theirs}.{their}") for own, their in names.items()]
        found = [
            Rule("trunks.lm.embeds.text.weight", "backbone.embeddings.weight"),
            *repeat(c.num_hidden_layers, block),
            Rule("trunks.lm.norm.weight", "backbone.norm_f.weight"),
        ]
        if self.headed and not c.tie_word_embeddings:
            found.append(Rule("heads.text.projection.weight", "lm_head.weight"))
        return found
