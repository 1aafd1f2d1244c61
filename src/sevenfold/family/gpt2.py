"""GPT-2: a causal decoder with learned positions, pre-norm, and an output head tied to the embedding.

    x <- x + attention(LN(x));  x <- x + W gelu_tanh(U LN(x));  logits = E LN(x)

Radford 2019, "Language Models are Unsupervised Multitask Learners", table 2. Weights: huggingface.co/openai-community/gpt2.
Objective: next_token.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.family import TRANSPOSE, Family, Rule, affine, lead, repeat


class GPT2(Family):
    class Config(Family.Config):
        model_type: Literal["gpt2"] = "gpt2"
        """Which published config this is."""
        vocab_size: int = Field(50257, ge=260, le=1 << 22)
        """Ids."""
        n_positions: int = Field(1024, ge=1, le=1 << 22)
        """Rows of the position table."""
        n_embd: int = Field(768, ge=1, le=1 << 16)
        """Width."""
        n_layer: int = Field(12, ge=1, le=4096)
        """Blocks."""
        n_head: int = Field(12, ge=1, le=4096)
        """Heads."""
        n_inner: int | None = Field(None, ge=1)
        """Inner width of the feed-forward part; by default 4 times the width."""
        layer_norm_epsilon: float = 1e-5
        """Added to the variance."""
        resid_pdrop: float = 0.1
        """Dropout of each part's output."""
        embd_pdrop: float = 0.1
        """Dropout of the embedded tokens."""
        attn_pdrop: float = 0.1
        """Dropout of attention weights."""
        activation_function: Literal["gelu_new", "gelu_pytorch_tanh"] = "gelu_new"
        """GELU in its tanh approximation, under either name."""
        scale_attn_weights: Literal[True] = True
        """Scores are divided by the root of the head width."""
        scale_attn_by_inverse_layer_idx: Literal[False] = False
        """Scores are not divided by the layer's number."""
        add_cross_attention: Literal[False] = False
        """No cross-attention."""
        tie_word_embeddings: Literal[True] = True
        """The head is the embedding."""

    sizes = {
        "small": {},
        "medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
        "large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
        "xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
    }
    states = {"lm": "hidden_states"}
    objective = {"kind": "next_token"}
    spellings = [(r"^(wte|wpe|h|ln_f)\.", r"transformer.\1.")]
    unused = [r"transformer\.h\.\d+\.attn\.(masked_)?bias"]
    copies = {r"lm_head\.weight": "transformer.wte.weight"}

    def model(self) -> ModelConfig:
        c = self.config
        block = {
            "mixer": {"kind": "attention", "heads": c.n_head, "dropout": c.attn_pdrop},
            "nonlinearity": {"kind": "gelu", "tanh": True, "inner": c.n_inner},
            "norm": {"kind": "layer", "eps": c.layer_norm_epsilon},
            "projection": {"kind": "linear", "bias": True},
            "dropout": c.resid_pdrop,
        }
        trunk = {
            "inputs": ["text"],
            "width": c.n_embd,
            "depth": c.n_layer,
            "position": {"kind": "learned", "size": c.n_positions},
            "mask": {"causal": True},
            "block": block,
            "dropout": c.embd_pdrop,
        }
        text = {"kind": "text", "tokenizer": {"kind": "published", "size": c.vocab_size}, "length": c.n_positions}
        head = {"trunk": "lm", "stream": "text", "projection": "tied"}
        return part.decode(
            ModelConfig, {"streams": {"text": text}, "trunks": {"lm": trunk}, "heads": {"text": head}}, "gpt2"
        )

    def rules(self) -> list[Rule]:
        ours, theirs = "trunks.lm.blocks.{i}", "transformer.h.{i}"
        block = [
            *affine(f"{ours}.norms.0", f"{theirs}.ln_1"),
            *affine(f"{ours}.mixer.qkv", f"{theirs}.attn.c_attn", TRANSPOSE),
            *affine(f"{ours}.mixer.out", f"{theirs}.attn.c_proj", TRANSPOSE),
            *affine(f"{ours}.norms.1", f"{theirs}.ln_2"),
            *affine(f"{ours}.feed.up", f"{theirs}.mlp.c_fc", TRANSPOSE),
            *affine(f"{ours}.feed.out", f"{theirs}.mlp.c_proj", TRANSPOSE),
        ]
        return [
            Rule("trunks.lm.embeds.text.weight", "transformer.wte.weight"),
            Rule("trunks.lm.position.tables", "transformer.wpe.weight", lead(-1)),
            *repeat(self.config.n_layer, block),
            *affine("trunks.lm.norm", "transformer.ln_f"),
        ]
