"""BERT: a bidirectional encoder, post-norm, trained to fill in hidden words.

    x <- LN(E[id] + T[place] + S[0]);  x <- LN(x + attention(x));  x <- LN(x + W gelu(U x));  logits = E LN(gelu(V x)) + b

Devlin 2018, arXiv:1810.04805, sizes from section 3. Weights: huggingface.co/google-bert. Objective: masked_token.
S is the table of segments; our single stream is segment A. What S says of segment B, and the heads of other tasks (the next
sentence, classes, answers), are carried along. MiniLM and other small encoders of this shape.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.family import Family, Op, Rule, affine, blocks, lead

SEGMENTS = "luggage.segments"

LAYERS: dict[str, str | tuple[str, ...]] = {
    "mixer.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "mixer.out": "attention.output.dense",
    "norms.0": "attention.output.LayerNorm",
    "feed.up": "intermediate.dense",
    "feed.out": "output.dense",
    "norms.1": "output.LayerNorm",
}


HEADED = ("ForMaskedLM", "ForPreTraining", "LMHeadModel", "ForCausalLM")
"""How architectures end that have a head for words."""


class EncoderConfig(Family.Config):
    """What BERT and RoBERTa say."""

    vocab_size: int = Field(30522, ge=64, le=1 << 22)
    """Ids."""
    hidden_size: int = Field(768, ge=1, le=1 << 16)
    """Width."""
    num_hidden_layers: int = Field(12, ge=1, le=4096)
    """Blocks."""
    num_attention_heads: int = Field(12, ge=1, le=4096)
    """Heads."""
    intermediate_size: int = Field(3072, ge=1)
    """Inner width of the feed-forward part."""
    max_position_embeddings: int = Field(512, ge=1, le=1 << 22)
    """Rows of the position table."""
    type_vocab_size: int = Field(2, ge=1, le=64)
    """Rows of the segment table."""
    layer_norm_eps: float = 1e-12
    """Added to the variance."""
    hidden_dropout_prob: float = 0.1
    """Dropout of each part's output and of the embedded tokens."""
    attention_probs_dropout_prob: float = 0.1
    """Dropout of attention weights."""
    hidden_act: Literal["gelu"] = "gelu"
    """The exact GELU."""
    position_embedding_type: Literal["absolute"] = "absolute"
    """Positions are a learned table."""
    is_decoder: Literal[False] = False
    """It looks both ways."""
    tie_word_embeddings: Literal[True] = True
    """The head is the embedding."""


class BERT(Family):
    class Config(EncoderConfig):
        model_type: Literal["bert"] = "bert"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = ("BertForMaskedLM",)
        """What stands on the encoder: a head for masked words (also if nothing is said), or another or none, as in BertModel."""

    sizes = {
        "base": {},
        "large": {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
        "minilm_l6": {
            "architectures": ["BertModel"],
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "intermediate_size": 1536,
        },
    }
    spellings = [
        (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    ]
    unused = [r"bert\.embeddings\.position_ids"]
    copies = {
        r"cls\.predictions\.decoder\.weight": "bert.embeddings.word_embeddings.weight",
        r"cls\.predictions\.decoder\.bias": "cls.predictions.bias",
    }
    carried = [r"bert\.pooler\..*", r"cls\.seq_relationship\..*", r"(classifier|qa_outputs)\..*"]
    prefix: ClassVar[str] = "bert"
    """What published names of the encoder begin with."""
    head: ClassVar[tuple[str, str, str]] = (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    )
    """The published names of the head for words: dense layer, norm, bias."""
    front = 0
    """Rows of the position table in front of the first word's."""
    states = {"enc": "hidden_states"}
    objective = {"kind": "masked_token"}

    @property
    def headed(self) -> bool:
        """Whether it has a head for masked words."""
        return any(name.endswith(HEADED) for name in self.config.architectures or HEADED)

    def model(self) -> ModelConfig:
        c = self.config
        block = {
            "mixer": {"kind": "attention", "heads": c.num_attention_heads, "dropout": c.attention_probs_dropout_prob},
            "nonlinearity": {"kind": "gelu", "inner": c.intermediate_size},
            "norm": {"kind": "layer", "eps": c.layer_norm_eps},
            "projection": {"kind": "linear", "bias": True},
            "post_norm": True,
            "dropout": c.hidden_dropout_prob,
        }
        length = c.max_position_embeddings - self.front
        trunk = {
            "inputs": ["text"],
            "width": c.hidden_size,
            "depth": c.num_hidden_layers,
            "position": {"kind": "learned", "size": length},
            "stream_embedding": True,
            "input_norm": True,
            "final_norm": False,
            "block": block,
            "dropout": c.hidden_dropout_prob,
        }
        text = {
            "kind": "text",
            "tokenizer": {"kind": "published", "size": c.vocab_size},
            "length": length,
            "closed": True,
        }
        head = {"trunk": "enc", "stream": "text", "projection": {"kind": "tied", "bias": True}, "transform": True}
        heads = {"text": head} if self.headed else {}
        data = {"streams": {"text": text}, "trunks": {"enc": trunk}, "heads": heads}
        return part.decode(ModelConfig, data, f"{self.kind} config")

    def rules(self) -> list[Rule]:
        embeddings = f"{self.prefix}.embeddings"
        rules = [
            Rule("trunks.enc.embeds.text.weight", f"{embeddings}.word_embeddings.weight"),
            self._places(f"{embeddings}.position_embeddings.weight"),
            self._segments(f"{embeddings}.token_type_embeddings.weight"),
            *affine("trunks.enc.input_norm", f"{embeddings}.LayerNorm"),
            *blocks("enc", self.config.num_hidden_layers, f"{self.prefix}.encoder.layer.{{i}}", LAYERS),
        ]
        if self.headed:
            dense, norm, bias = self.head
            rules += affine("heads.text.dense", dense)
            rules += affine("heads.text.norm", norm)
            rules.append(Rule("heads.text.projection.bias", bias))
        return rules

    def _places(self, theirs: str) -> Rule:
        """The table of positions."""
        return Rule("trunks.enc.position.tables", theirs, lead(-1))

    def _segments(self, theirs: str) -> Rule:
        """Segment A's row of the table, and the others, if any; of a model that began here, the others are as A."""
        ours, others = "trunks.enc.marks.text", self.config.type_vocab_size - 1
        if not others:
            return Rule(ours, theirs, lead(1))

        def give(ours: list[Any]) -> list[Tensor]:
            first, rest = ours
            return [torch.cat([first[None], first.expand(others, -1) if rest is None else rest])]

        return Rule((ours, SEGMENTS), theirs, Op(lambda theirs: [theirs[0][0], theirs[0][1:]], give))
