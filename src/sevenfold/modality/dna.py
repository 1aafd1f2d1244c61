"""DNA: a str of A C G T (and N) becomes ids along one axis.

By default 6-mers side by side (`kmer`), as in the Nucleotide Transformer; k = 1 for HyenaDNA and Evo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.core import part
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._features import Features, Shingles, both_strands, kmers
from sevenfold.modality._strings import facts, letter_edits, letters_lost, mean_length, need_string, shown

COMPLEMENT = str.maketrans("ACGTRYSWKMBDHV", "TGCAYRSWMKVHDB")


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

    def edits(self, raw: str, draw: np.random.Generator) -> dict[str, str]:
        """One base replaced, inserted, deleted; and the other strand, read in its own direction."""
        raw = raw.upper()
        strand = raw.translate(COMPLEMENT)[::-1]
        return {**letter_edits(raw, draw, "ACGT", "base"), "reverse complement (order reversed)": strand}

    def units(self, raw: str) -> np.ndarray:
        """Codons of frame 0: three bases each from the first on."""
        begins = np.arange(0, len(raw) - 2, 3, dtype=np.int64)
        return np.stack([begins, begins + 3], axis=1)

    def features(self, train: Sequence[str]) -> tuple[Features, ...]:
        """k-mers; and the base at each place, where all sequences have one length."""
        return kmers(train, "ACGT", 4, "base")

    def shingles(self, raw: str) -> Shingles:
        """12-mers of either strand."""
        return Shingles(both_strands(raw, raw.translate(COMPLEMENT)[::-1], 12), contained=True)

    def error(self, raw: str, back: str) -> float:
        """The share of bases that differ."""
        return letters_lost(raw, back)

    unit = "codons of frame 0"
    error_unit = "share of bases"

    def augmentation(self) -> Augmentation:
        """Either strand, a piece of most of it, a few bases exchanged; pieces are of a third or so."""
        change = {"kind": "reverse_complement"}, {"kind": "mutate", "rate": 0.05, "alphabet": "ACGT"}
        return Augmentation(
            ({"kind": "crop", "share": (0.7, 1.0)}, *change), ({"kind": "crop", "share": (0.2, 0.5)}, *change)
        )

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
