"""Molecules: a SMILES string becomes ids along one axis.

By default atom by atom (`smiles`). Molecular Transformer, ChemBERTa, MolFormer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization.smiles import pieces
from sevenfold.core import part
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._features import Features, Shingles, shingles, words
from sevenfold.modality._strings import facts, mean_length, need_string, shown

ORGANIC = ("C", "N", "O", "S", "F", "Cl", "Br", "c", "n", "o", "s")
"""Atoms that an edit puts in place of another."""


class Molecule(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("smiles")
        """How raw items become tokens."""
        ends: bool = True
        """Whether a begin and an end token are put around an item."""

    axes = ("atom",)
    unit = "atoms"
    error_unit = "share of molecules that differ"

    def check(self, raw: Any) -> str:
        """A SMILES string without spaces around it; its grammar of rings and brackets is not checked."""
        text = need_string(raw, "a molecule").strip()
        pieces(need_string(text, "a molecule"))
        return text

    def summary(self, raws: Sequence[str]) -> dict[str, Any]:
        found = facts(raws, "characters")
        if raws:
            sizes = [sum(map(_is_atom, pieces(self.check(raw)))) for raw in raws]
            found["atoms but hydrogen, on average"] = round(float(np.mean(sizes)), 1)
        return found

    def html(self, raw: str) -> str:
        return shown(raw)

    def features(self, train: Sequence[str]) -> tuple[Features, ...]:
        """Atoms, bonds and runs of up to three of them, by tf-idf."""
        return (words(train, pieces, "bag of atoms and bonds", 4096, (1, 3)),)

    def shingles(self, raw: str) -> Shingles:
        """Runs of 5 characters."""
        return Shingles(shingles(raw, 5), contained=False)

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, Any]:
        """One atom exchanged for another of the same kind (aromatic or not), and one put at the end."""
        found = pieces(self.check(raw))
        places = [place for place, piece in enumerate(found) if piece in ORGANIC]
        changed = {"one atom added at the end": "".join([*found, "C"])}
        if places:
            place = int(draw.choice(places))
            like = [atom for atom in ORGANIC if atom.islower() == found[place].islower() and atom != found[place]]
            changed["one atom exchanged"] = "".join([*found[:place], str(draw.choice(like)), *found[place + 1 :]])
        return changed

    def units(self, raw: Any) -> np.ndarray:
        """Where atoms begin and end."""
        found = pieces(self.check(raw))
        ends = np.cumsum([len(piece) for piece in found])
        return np.array([(end - len(piece), end) for end, piece in zip(ends, found) if _is_atom(piece)]).reshape(-1, 2)

    def augmentation(self) -> Augmentation:
        """A quarter of the atoms hidden, as MolCLR; half of them in pieces."""
        return Augmentation(({"kind": "mask_atoms", "rate": 0.25},), ({"kind": "mask_atoms", "rate": 0.5},))

    @classmethod
    def suggest(cls, name: str, raws: Sequence[str], items: int) -> Suggestion:
        """Atom tokens, a trunk that sees both sides, hidden tokens filled in."""
        return Suggestion(
            stream={"kind": "molecule", "tokenizer": "smiles", "length": 128, "pack": True},
            trunks={"enc": {"inputs": [name], "position": "rotary"}},
            objective={"kind": "masked_token"},
            train={"batch_tokens": 8192},
            tokens=mean_length(raws),
            why=[
                f"{name}: SMILES, atom by atom; hidden atoms and bonds are filled in from both sides (as ChemBERTa), which is "
                "what makes good embeddings"
            ],
            tower={"inputs": [name], "position": "rotary", "block": {"dropout": 0.1}},
        )


def _is_atom(piece: str) -> bool:
    return piece[0] == "[" or piece == "*" or piece[0].isalpha()
