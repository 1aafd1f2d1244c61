"""Amino acids as ids, in ESM's alphabet and order.

    z_i = place of residue i in  <cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - ...

Rives et al. 2021, doi:10.1073/pnas.2016239118; the order is that of the released models. ESM-1b, ESM-2, ESMFold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer, letters, line, need_text, table
from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import write_atomic
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

FILE = "vocab.txt"
RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO.-"
VOCABULARY = ["<cls>", "<pad>", "<eos>", "<unk>", *RESIDUES, "<null_1>", "<mask>"]
UNKNOWN, WRONG = 3, -1
IDS = table(RESIDUES + "J*", [*range(4, 4 + len(RESIDUES)), UNKNOWN, UNKNOWN], WRONG)


class Residue(Tokenizer):
    """str of one-letter codes in any case → ids [n]. J (L or I) and * (stop) are unk, which decodes to X."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.specials = {"pad": 1, "unk": UNKNOWN, "bos": 0, "eos": 2, "mask": 32}
        self.size = len(VOCABULARY)
        self._letters = np.zeros(self.size, np.uint8)
        self._letters[4 : 4 + len(RESIDUES)] = letters(RESIDUES)
        self._letters[UNKNOWN] = ord("X")

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        draw = numpy_generator("protein", seed)
        return ["M" + "".join(draw.choice(list(RESIDUES[:20]), draw.integers(12, 40))) for _ in range(24)]

    def encode(self, raw: Any) -> Tokens:
        """Raises ValueError for a character that is no amino acid's, with its position from 0."""
        ids = IDS[letters(need_text(raw, self))]
        wrong = np.flatnonzero(ids == WRONG)
        if len(wrong):
            place = int(wrong[0])
            raise ValueError(f"{raw[place]!r} at position {place} is not a one-letter code of an amino acid")
        return Tokens(ids, line(len(ids)))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str:
        spelled = self._letters[np.asarray(values, np.int64)]
        return spelled[spelled > 0].tobytes().decode("ascii")

    def spans(self, raw: Any) -> np.ndarray:
        """One residue each."""
        begins = np.arange(len(need_text(raw, self)), dtype=np.int64)
        return np.stack([begins, begins + 1], axis=1)

    def piece(self, id: int) -> str:
        return VOCABULARY[id]

    def published(self) -> dict[str, Any]:
        return {"tokenizer_class": "EsmTokenizer"}

    def save(self, folder: str | Path) -> list[str]:
        names = super().save(folder)
        write_atomic(Path(folder) / FILE, "\n".join(VOCABULARY))
        return [*names, FILE]

    def read_published(self, folder: Path) -> bool | None:
        if (folder / FILE).is_file():
            self.restore(folder)
        return True

    def write_published(self, folder: Path) -> list[str]:
        write_atomic(folder / "tokenizer_config.json", json.dumps(self.published(), indent=1) + "\n")
        write_atomic(folder / FILE, "\n".join(VOCABULARY))
        return ["tokenizer_config.json", FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        try:
            found = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: cannot be read as text: {error}") from None
        if found != VOCABULARY:
            raise CheckpointError(f"{path}: is not ESM's alphabet of {len(VOCABULARY)} tokens")
