"""Proteins: a str of one-letter codes becomes ids along one axis.

By default ESM's alphabet (`residue`) with a begin and an end token. ESM-1b, ESM-2, ESMFold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.core import part
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._features import Features, Shingles, kmers, shingles
from sevenfold.modality._strings import facts, letter_edits, letters_lost, mean_length, need_string, shown

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


class Protein(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("residue")
        """How raw items become tokens."""
        ends: bool = True
        """Whether a begin and an end token are put around an item."""

    axes = ("residue",)

    def check(self, raw: Any) -> str:
        """A str that is not empty, in upper case; its letters are checked by the tokenizer."""
        return need_string(raw, "a protein sequence").upper()

    def summary(self, raws: Sequence[str]) -> dict[str, Any]:
        return facts([raw.upper() for raw in raws], "residues")

    def html(self, raw: str) -> str:
        return shown(raw)

    def edits(self, raw: str, draw: np.random.Generator) -> dict[str, str]:
        """One residue replaced, inserted, deleted."""
        return letter_edits(raw.upper(), draw, AMINO_ACIDS, "residue")

    def features(self, train: Sequence[str]) -> tuple[Features, ...]:
        """Residues and pairs of them; and the residue at each place, where all sequences have one length."""
        return kmers(train, AMINO_ACIDS, 2, "residue")

    def shingles(self, raw: str) -> Shingles:
        """5-mers."""
        return Shingles(shingles(raw, 5), contained=True)

    def error(self, raw: str, back: str) -> float:
        """The share of residues that differ."""
        return letters_lost(raw, back)

    error_unit = "share of residues"

    def augmentation(self) -> Augmentation:
        """A piece of most of it, a few residues exchanged; pieces are of a third or so."""
        change = {"kind": "mutate", "rate": 0.05, "alphabet": AMINO_ACIDS}
        return Augmentation(
            ({"kind": "crop", "share": (0.7, 1.0)}, change), ({"kind": "crop", "share": (0.2, 0.5)}, change)
        )

    @classmethod
    def suggest(cls, name: str, raws: Sequence[str], items: int) -> Suggestion:
        """ESM's alphabet, a trunk that sees both sides, hidden residues filled in."""
        return Suggestion(
            stream={"kind": "protein", "tokenizer": "residue", "length": 256, "pack": True},
            trunks={"enc": {"inputs": [name], "position": "rotary"}},
            objective={"kind": "masked_token"},
            train={"batch_tokens": 8192},
            tokens=mean_length(raws),
            why=[
                f"{name}: hidden residues are filled in from both sides (as ESM-2), which is what makes good embeddings"
            ],
        )
