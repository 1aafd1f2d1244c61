"""ESM-2: an encoder of proteins, pre-norm, rotary, trained to fill in hidden residues; with learned positions, ESM-1b and ESM-1v.

    x <- s E[id] (0 at masks; s: see projection token_dropout) [+ T[2 + place]] [normed, in ESM-1b]
    x <- x + attention(LN(x));  x <- x + W gelu(U LN(x));  logits = E LN(gelu(V LN(x))) + b

Lin 2023, doi:10.1126/science.ade2574, sizes from its table S1; Rives 2021, doi:10.1073/pnas.2016239118 (ESM-1b). Rotary:
arXiv:2104.09864, by the frequencies that the files hold. Weights: huggingface.co/facebook/esm2_t33_650M_UR50D. Objective:
masked_token. The regression from attention to contacts, the pooler and heads of other tasks are carried along.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.family import Family, Rule, affine, blocks
from sevenfold.family.roberta import after_padding

LAYERS: dict[str, str | tuple[str, ...]] = {
    "norms.0": "attention.LayerNorm",
    "mixer.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "mixer.out": "attention.output.dense",
    "norms.1": "LayerNorm",
    "feed.up": "intermediate.dense",
    "feed.out": "output.dense",
}
OLD = {"position_embedding_type": "absolute", "num_hidden_layers": 33, "hidden_size": 1280, "intermediate_size": 5120}


class ESM2(Family):
    class Config(Family.Config):
        model_type: Literal["esm"] = "esm"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = ("EsmForMaskedLM",)
        """What stands on the encoder: a head for masked residues (also if nothing is said), or another or none."""
        vocab_size: Literal[33] = 33
        """Ids: ESM's alphabet."""
        mask_token_id: Literal[32] = 32
        """The id that hides a residue."""
        pad_token_id: Literal[1] = 1
        """The id of padding."""
        hidden_size: int = Field(320, ge=1, le=1 << 16)
        """Width."""
        num_hidden_layers: int = Field(6, ge=1, le=4096)
        """Blocks."""
        num_attention_heads: int = Field(20, ge=1, le=4096)
        """Heads."""
        intermediate_size: int = Field(1280, ge=1)
        """Inner width of the feed-forward part."""
        max_position_embeddings: int = Field(1026, ge=3, le=1 << 22)
        """The most tokens of a protein, and 2; rows of the position table, where there is one."""
        position_embedding_type: Literal["rotary", "absolute"] = "rotary"
        """Turned queries and keys, or a learned table (ESM-1b)."""
        rope_theta: float = Field(10000.0, gt=1)
        """The rotary base; what counts are the frequencies in the weights."""
        layer_norm_eps: float = 1e-5
        """Added to the variance."""
        emb_layer_norm_before: bool | None = False
        """The embedded tokens are normed (ESM-1b)."""
        token_dropout: bool | None = True
        """Masks are embedded as 0, and the rest scaled for it."""
        hidden_dropout_prob: float | None = Field(0.0, ge=0, lt=1)
        """Dropout of each part's output."""
        attention_probs_dropout_prob: float | None = Field(0.0, ge=0, lt=1)
        """Dropout of attention weights."""
        is_folding_model: Literal[False] | None = False
        """It predicts no structure (ESMFold)."""
        is_decoder: Literal[False] | None = False
        """It looks both ways."""
        add_cross_attention: Literal[False] | None = False
        """No cross-attention."""
        tie_word_embeddings: Literal[True] = True
        """The head is the embedding."""

    sizes = {
        "8m": {},
        "35m": {"num_hidden_layers": 12, "hidden_size": 480, "intermediate_size": 1920},
        "150m": {"num_hidden_layers": 30, "hidden_size": 640, "intermediate_size": 2560},
        "650m": {"num_hidden_layers": 33, "hidden_size": 1280, "intermediate_size": 5120},
        "3b": {"num_hidden_layers": 36, "hidden_size": 2560, "num_attention_heads": 40, "intermediate_size": 10240},
        "15b": {"num_hidden_layers": 48, "hidden_size": 5120, "num_attention_heads": 40, "intermediate_size": 20480},
        "esm1b": {**OLD, "emb_layer_norm_before": True},
        "esm1v": OLD,
    }
    spellings = [
        (r"^(embeddings|rotary_embeddings|encoder|pooler|contact_head)\.", r"esm.\1."),
        (r"^esm\.encoder\.layer\.[0*]\.attention\.self\.(rotary_embeddings\.inv_freq)$", r"esm.\1"),
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    ]
    unused = [
        r"esm\.embeddings\.position_ids",
        r"esm\.embeddings\.position_embeddings\.weight",  # beside rotary ones, of which older files hold one, never trained
        r"esm\.encoder\.layer\.\d+\.attention\.self\.rotary_embeddings\.inv_freq",  # of the first block, once more
    ]
    copies = {r"lm_head\.decoder\.weight": "esm.embeddings.word_embeddings.weight"}
    carried = [r"esm\.(pooler|contact_head)\..*", r"classifier\..*"]
    states = {"enc": "hidden_states"}
    objective = {"kind": "masked_token"}

    def __init__(self, config: Any):
        super().__init__(config)
        self.headed = "EsmForMaskedLM" in (config.architectures or ("EsmForMaskedLM",))
        self.rotary = config.position_embedding_type == "rotary"
        if config.hidden_size // config.num_attention_heads < 2 and self.rotary:
            raise ConfigError("esm2 config: heads of width 1 hold no pair to turn: choose fewer num_attention_heads")

    def model(self) -> ModelConfig:
        c = self.config
        block = {
            "mixer": {
                "kind": "attention",
                "heads": c.num_attention_heads,
                "dropout": c.attention_probs_dropout_prob or 0.0,
            },
            "nonlinearity": {"kind": "gelu", "inner": c.intermediate_size},
            "norm": {"kind": "layer", "eps": c.layer_norm_eps},
            "projection": {"kind": "linear", "bias": True},
            "dropout": c.hidden_dropout_prob or 0.0,
        }
        length = c.max_position_embeddings - c.pad_token_id - 1
        rotary = {"kind": "stored_rotary", "base": c.rope_theta}
        trunk = {
            "inputs": ["protein"],
            "width": c.hidden_size,
            "depth": c.num_hidden_layers,
            "position": rotary if self.rotary else {"kind": "learned", "size": length},
            "input_norm": bool(c.emb_layer_norm_before),
            "block": block,
        }
        embedding = {"kind": "token_dropout", "mask_id": c.mask_token_id} if c.token_dropout else {"kind": "embedding"}
        protein = {
            "kind": "protein",
            "tokenizer": {"kind": "residue"},
            "length": length,
            "closed": True,
            "projection": embedding,
        }
        head = {"trunk": "enc", "stream": "protein", "projection": {"kind": "tied", "bias": True}, "transform": True}
        heads = {"protein": head} if self.headed else {}
        data = {"streams": {"protein": protein}, "trunks": {"enc": trunk}, "heads": heads}
        return part.decode(ModelConfig, data, "esm2 config")

    def rules(self) -> list[Rule]:
        c = self.config
        rules = [Rule("trunks.enc.embeds.protein.weight", "esm.embeddings.word_embeddings.weight")]
        if self.rotary:
            rules.append(Rule("trunks.enc.position.frequencies", "esm.rotary_embeddings.inv_freq"))
        else:
            rules.append(after_padding("enc", "esm.embeddings.position_embeddings.weight", c.pad_token_id + 1))
        if c.emb_layer_norm_before:
            rules += affine("trunks.enc.input_norm", "esm.embeddings.layer_norm")
        rules += blocks("enc", c.num_hidden_layers, "esm.encoder.layer.{i}", LAYERS)
        rules += affine("trunks.enc.norm", "esm.encoder.emb_layer_norm_after")
        if self.headed:
            rules += affine("heads.protein.dense", "lm_head.dense")
            rules += affine("heads.protein.norm", "lm_head.layer_norm")
            rules.append(Rule("heads.protein.projection.bias", "lm_head.bias"))
        return rules
