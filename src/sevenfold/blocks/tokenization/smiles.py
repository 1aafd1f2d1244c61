"""SMILES strings of molecules, atom by atom.

    \\[…\\] | Br | Cl | B C N O P S F I | b c n o p s | bonds - = # $ : / \\ | ( ) | . | > | % d d | digit | * | @ … in brackets

A bracket atom is one token; two-letter atoms come before one-letter ones. The tokens of a string are those of the
training molecules; others are unk. Schwaller 2019, doi:10.1021/acscentsci.9b00576 (the pattern); Weininger 1988,
doi:10.1021/ci00057a005 (SMILES). Molecular Transformer, ChemBERTa, MolFormer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready, line, need_text
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

PATTERN = re.compile(r"\[[^\[\]]+\]|Br|Cl|[BCNOPSFI]|[bcnops]|[()=#$:/\\.>*~+-]|%\d\d|\d")
FILE = "vocab.json"


class Smiles(Tokenizer):
    """str → ids [n], lossless on the tokens of the training molecules."""

    class Config(Tokenizer.Config):
        size: int = Field(1024, ge=8, le=100_000)
        """The most ids, special tokens included: the most frequent tokens are kept."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.specials = {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4}
        self.pieces: list[str] = []
        self._ids: dict[str, int] = {}

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        draw = numpy_generator("smiles", seed)
        rings, chains = (
            ["c1ccccc1", "C1CCCCC1", "c1ccncc1"],
            ["CC", "CCO", "C(=O)O", "C#N", "CCl", "CBr", "[NH3+]", "S"],
        )
        return ["".join([*draw.choice(chains, draw.integers(1, 4)), draw.choice(rings)]) for _ in range(24)]

    def fit(self, raws: Iterable[Any]) -> None:
        counts: Counter[str] = Counter()
        for raw in raws:
            counts.update(pieces(need_text(raw, self)))
        if not counts:
            raise DataError("the smiles tokenizer was given no molecules to learn from")
        most = self.config.size - len(self.specials)
        self._adopt(sorted(sorted(counts, key=lambda piece: (-counts[piece], piece))[:most]))

    def encode(self, raw: Any) -> Tokens:
        """Raises ValueError for a character that is no part of a SMILES string, with its position from 0."""
        check_ready(self)
        unknown = self.specials["unk"]
        ids = np.array([self._ids.get(piece, unknown) for piece in pieces(need_text(raw, self))], np.int64)
        return Tokens(ids, line(len(ids)))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str:
        """Unknown tokens become `*`, the atom of any kind."""
        check_ready(self)
        first = len(self.specials)
        ids = np.asarray(values).tolist()
        return "".join(
            "*" if id == self.specials["unk"] else self.pieces[id - first] for id in ids if id == 1 or id >= first
        )

    def spans(self, raw: Any) -> np.ndarray:
        ends = np.cumsum([len(piece) for piece in pieces(need_text(raw, self))]).astype(np.int64)
        return np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)

    def piece(self, id: int) -> str:
        place = id - len(self.specials)
        return self.pieces[place] if 0 <= place < len(self.pieces) else super().piece(id)

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        write_atomic(Path(folder) / FILE, json.dumps(self.pieces) + "\n")
        return [*names, FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        found = read_json(path)
        if (
            not isinstance(found, list)
            or not found
            or any(type(p) is not str or not PATTERN.fullmatch(p) for p in found)
        ):
            raise CheckpointError(f"{path}: is not a list of SMILES tokens")
        if found != sorted(set(found)):
            raise CheckpointError(f"{path}: its tokens are not sorted, or one stands twice")
        self._adopt(found)

    def _adopt(self, found: list[str]) -> None:
        self.pieces = found
        self._ids = {piece: id for id, piece in enumerate(found, len(self.specials))}
        self.size = len(self.specials) + len(found)


def pieces(text: str) -> list[str]:
    """A SMILES string as its tokens, which joined are the string; ValueError for what is no SMILES."""
    found = PATTERN.findall(text)
    if sum(map(len, found)) != len(text):
        place = 0
        for match in PATTERN.finditer(text):
            if match.start() != place:
                break
            place = match.end()
        raise ValueError(f"{text[place]!r} at position {place} is no part of a SMILES string")
    return found
