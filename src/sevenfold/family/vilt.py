"""ViLT: words and patches of a picture side by side in one encoder, with nothing before it but their embeddings.

    t <- LN(E[id] + T[place] + S[0]) + m_0;   v <- [c, W p_1, ..., W p_n] + P + m_1;   x <- [t, v];   x <- x + attention(LN(x));
    x <- x + W gelu(U LN(x));   logits of hidden words = E LN(gelu(V LN(x))) + b

Kim 2021, arXiv:2102.03334 eq. 1-5. Weights: huggingface.co/dandelin/vilt-b32-mlm. Objective: masked_token. P is stretched
over pictures of other sizes, bilinear. What the tables S and m say of a second text and a second picture, and the heads of
other tasks (pooler, classifier, rank_output), are carried along.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.model import ModelConfig
from sevenfold.core import part
from sevenfold.core.types import Batch
from sevenfold.family import Op, Rule, affine, first_rows, lead, patches, unread
from sevenfold.family._pictures import Pictures, cells, encoder
from sevenfold.family.vit import LAYERS, VisionConfig

TABLE = Op(lambda theirs: [theirs[0][0, 0], theirs[0][0, 1:]], lambda ours: [torch.cat([ours[0][None], ours[1]])[None]])
"""The class token's row and those of the grid."""
SEGMENTS, PICTURES = "luggage.segments", "luggage.pictures"


class ViLT(Pictures):
    class Config(VisionConfig):
        model_type: Literal["vilt"] = "vilt"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = ("ViltForMaskedLM",)
        """What stands on the encoder: a head for masked words, a head of another task, or nothing (ViltModel)."""
        vocab_size: int = Field(30522, ge=64, le=1 << 22)
        """Ids."""
        type_vocab_size: int = Field(2, ge=1, le=64)
        """Rows of the table of texts."""
        modality_type_vocab_size: int = Field(2, ge=2, le=64)
        """Rows of the table of text, first picture, second picture."""
        max_position_embeddings: int = Field(40, ge=1, le=1 << 22)
        """Rows of the words' position table."""
        image_size: int = Field(384, ge=1, le=1 << 16)
        """Height and width of the pictures that the patches' positions are of."""
        patch_size: int = Field(32, ge=1, le=256)
        """Height and width of a patch."""
        hidden_act: Literal["gelu"] = "gelu"
        """The exact GELU, in the head too."""
        max_image_length: Literal[-1] = -1
        """All patches of a picture are read, not a random part."""
        tie_word_embeddings: Literal[True] = True
        """The head is the embedding."""

    sizes = {"b32": {}}
    spellings = [
        (r"^(embeddings|encoder|layernorm|pooler)\.", r"vilt.\1."),
        (r"^mlm_score\.bias$", "mlm_score.decoder.bias"),
    ]
    unused = [r"vilt\.embeddings\.text_embeddings\.position_ids"]
    copies = {r"mlm_score\.decoder\.weight": "vilt.embeddings.text_embeddings.word_embeddings.weight"}
    carried = [r"classifier\..*", r"rank_output\..*"]
    objective = {"kind": "masked_token", "stream": "text"}
    processor = "Vilt"
    states = {"both": "hidden_states"}

    def _is(self, architecture: str) -> bool:
        return architecture in (self.config.architectures or ("ViltForMaskedLM",))

    def grid(self, config: Any) -> None:
        """Pictures have grids of their own."""

    def compared(self, state: Tensor, batch: Batch) -> Tensor:
        """Words: the reference reads patches in a random order."""
        return state[:, : batch["text"].values.shape[1]]

    def model(self) -> ModelConfig:
        c = self.config
        block = {
            "mixer": {
                "kind": "attention",
                "heads": c.num_attention_heads,
                "dropout": c.attention_probs_dropout_prob,
                "qkv": {"kind": "linear", "bias": c.qkv_bias},
            },
            "nonlinearity": {"kind": "gelu", "inner": c.intermediate_size},
            "norm": {"kind": "layer", "eps": c.layer_norm_eps},
            "projection": {"kind": "linear", "bias": True},
            "dropout": c.hidden_dropout_prob,
        }
        grid = {"kind": "stretched", "rows": cells(c), "columns": cells(c), "class_row": True}
        dropout = {"dropout": c.hidden_dropout_prob}
        trunk = {
            "inputs": ["text", "image"],
            "width": c.hidden_size,
            "depth": c.num_hidden_layers,
            "position": "none",
            "entries": {
                "text": {
                    "mark": True,
                    "position": {"kind": "learned", "size": c.max_position_embeddings},
                    "norm": True,
                    **dropout,
                },
                "image": {"position": grid, "class_token": True, **dropout},
            },
            "stream_embedding": True,
            "block": block,
        }
        words, length = {"kind": "published", "size": c.vocab_size}, c.max_position_embeddings
        streams = {
            "text": {"kind": "text", "tokenizer": words, "length": length, "closed": True},
            "image": self.stream(c),
        }
        head = {"trunk": "both", "stream": "text", "projection": {"kind": "tied", "bias": True}, "transform": True}
        heads = {"text": head} if self._is("ViltForMaskedLM") else {}
        return part.decode(ModelConfig, {"streams": streams, "trunks": {"both": trunk}, "heads": heads}, "vilt")

    def rules(self) -> list[Rule]:
        c, ours, theirs = self.config, "trunks.both", "vilt.embeddings"
        words, head, place = f"{theirs}.text_embeddings", "mlm_score", f"{ours}.entries.image.position"
        rules = [
            Rule(f"{ours}.embeds.text.weight", f"{words}.word_embeddings.weight"),
            Rule(f"{ours}.entries.text.position.tables", f"{words}.position_embeddings.weight", lead(-1)),
            Rule(
                (f"{ours}.entries.text.mark", SEGMENTS),
                f"{words}.token_type_embeddings.weight",
                first_rows(1, c.type_vocab_size),
            ),
            *affine(f"{ours}.entries.text.norm", f"{words}.LayerNorm"),
            Rule(f"{ours}.entries.image.token", f"{theirs}.cls_token", lead(2)),
            Rule((f"{place}.first", f"{place}.table"), f"{theirs}.position_embeddings", TABLE),
            *affine(
                f"{ours}.embeds.image", f"{theirs}.patch_embeddings.projection", patches(c.patch_size, c.num_channels)
            ),
            Rule(
                (f"{ours}.marks.text", f"{ours}.marks.image", PICTURES),
                f"{theirs}.token_type_embeddings.weight",
                first_rows(2, c.modality_type_vocab_size),
            ),
            *encoder("both", c.num_hidden_layers, "vilt.encoder.layer.{i}", LAYERS, c.qkv_bias),
            *affine(f"{ours}.norm", "vilt.layernorm"),
        ]
        if not self._is("ViltForTokenClassification"):
            rules += [unread("vilt.pooler.dense.weight", c.hidden_size, c.hidden_size)]
            rules += [unread("vilt.pooler.dense.bias", c.hidden_size)]
        if self._is("ViltForMaskedLM"):
            rules += affine("heads.text.dense", f"{head}.transform.dense")
            rules += affine("heads.text.norm", f"{head}.transform.LayerNorm")
            rules.append(Rule("heads.text.projection.bias", f"{head}.decoder.bias"))
        return rules
