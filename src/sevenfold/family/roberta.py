"""RoBERTa: BERT trained longer, on one segment, over byte pairs or sentence pieces; positions count from behind the padding's.

    x <- LN(E[id] + T[padding + 1 + place] + S);  then as BERT;  logits = E LN(gelu(V x)) + b

Liu 2019, arXiv:1907.11692; XLM-RoBERTa: Conneau 2019, arXiv:1911.02116; CamemBERT: Martin 2019, arXiv:1911.03894.
Weights: huggingface.co/FacebookAI/roberta-base. Objective: masked_token. The rows of T that no word stands at, and heads of
other tasks, are carried along.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.core.errors import ConfigError
from sevenfold.family import Op, Rule
from sevenfold.family.bert import BERT, EncoderConfig

FRONT = "luggage.positions"
BASE = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
XLM = {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForMaskedLM"], "vocab_size": 250002}
CAMEMBERT = {"model_type": "camembert", "architectures": ["CamembertForMaskedLM"], "vocab_size": 32005}


class RoBERTa(BERT):
    class Config(EncoderConfig):
        model_type: Literal["roberta", "xlm-roberta", "camembert"] = "roberta"
        """Which published config this is; they differ in words only."""
        architectures: tuple[str, ...] | None = ("RobertaForMaskedLM",)
        """What stands on the encoder: a head for masked words (also if nothing is said), or another or none, as in RobertaModel."""
        vocab_size: int = Field(50265, ge=64, le=1 << 22)
        """Ids."""
        pad_token_id: int = Field(1, ge=0)
        """The id of padding, and the row of the position table that padding has; the first word has the next."""

    sizes = {
        "base": BASE,
        "large": {**BASE, **LARGE},
        "distil_base": {**BASE, "num_hidden_layers": 6},
        "xlm_base": {**BASE, **XLM},
        "xlm_large": {**BASE, **LARGE, **XLM},
        "camembert_base": {**BASE, **CAMEMBERT},
    }
    spellings = [(r"^(embeddings|encoder|pooler)\.", r"roberta.\1."), *BERT.spellings[1:]]
    unused = [r"roberta\.embeddings\.position_ids"]
    copies = {
        r"lm_head\.decoder\.weight": "roberta.embeddings.word_embeddings.weight",
        r"lm_head\.decoder\.bias": "lm_head.bias",
    }
    carried = [r"roberta\.pooler\..*", r"(classifier|qa_outputs)\..*"]
    prefix = "roberta"
    head = ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")

    def __init__(self, config: Any):
        super().__init__(config)
        self.front = config.pad_token_id + 1
        if config.max_position_embeddings <= self.front:
            raise ConfigError(
                f"roberta config: max_position_embeddings: {config.max_position_embeddings} leaves no place for a word behind "
                f"the {self.front} of padding"
            )

    def _places(self, theirs: str) -> Rule:
        return after_padding("enc", theirs, self.front)


def after_padding(trunk: str, theirs: str, front: int) -> Rule:
    """A table of positions, and the `front` rows of it at which no word stands; 0 in a model that began here."""

    def give(ours: list[Any]) -> list[Tensor]:
        (table,), before = ours
        return [torch.cat([table.new_zeros(front, table.shape[1]) if before is None else before, table])]

    take = Op(lambda theirs: [theirs[0][None, front:], theirs[0][:front]], give)
    return Rule((f"trunks.{trunk}.position.tables", FRONT), theirs, take)
