"""DNA: a str of A C G T (and N) becomes ids along one axis.

By default 6-mers side by side (`kmer`), as in the Nucleotide Transformer; k = 1 for HyenaDNA and Evo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.core import part
from sevenfold.modality import Modality, Suggestion
from sevenfold.modality._strings import facts, mean_length, need_string, shown


class DNA(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("kmer")
        """How raw items become tokens."""

    axes = ("base",)

    def check(self, raw: Any) -> str:
        """A str that is not empty, in upper case; its letters are checked by the tokenizer."""
        return need_string(raw, "a DNA sequence").upper()

    def summary(self, raws: Sequence[str]) -> dict[str, Any]:
        raws = [raw.upper() for raw in raws]
        strong, total = (sum(raw.count(letter) for raw in raws for letter in some) for some in ("GC", "ACGT"))
        share = {"G and C": f"{100 * strong / total:.1f}%"} if total else {}
        return {**facts(raws, "bases"), **share}

    def html(self, raw: str) -> str:
        return shown(raw)

    @classmethod
    def suggest(cls, name: str, raws: Sequence[str], items: int) -> Suggestion:
        """Single bases, convolution and attention in turn, the next base predicted."""
        block = {"nonlinearity": "swiglu", "norm": "rms"}
        pattern = [{**block, "mixer": {"kind": "conv", "kernel": 9}}, block]
        return Suggestion(
            stream={"kind": "dna", "tokenizer": {"kind": "kmer", "k": 1}, "length": 512, "pack": True, "ends": True},
            trunks={"lm": {"inputs": [name], "mask": {"causal": True}, "position": "rotary", "block": pattern}},
            objective={"kind": "next_token"},
            train={"batch_tokens": 8192},
            tokens=mean_length(raws),
            why=[
                f"{name}: tokens are single bases, so nothing is lost",
                f"{name}: the next base is predicted, by convolutions (motifs) and attention (what is far) in turn",
            ],
        )
