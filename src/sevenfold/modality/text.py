"""Written language: a str becomes ids along one axis.

By default bytes (nothing to learn); `bpe` for anything larger. GPT-2, BERT, T5, and the text side of CLIP and LLaVA.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Tokens
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._features import Features, Shingles, shingles, words
from sevenfold.modality._strings import facts, letter_edits, letters_lost, mean_length, need_string, shown

CHARACTERS_A_PIECE = 1000
"""Characters of training text for each byte pair that is learned."""

WORDS = re.compile(r"\w+|[^\w\s]")
"""A run of letters, digits and underscores of any script, or one sign that is neither that nor a space."""


class Text(Modality):
    class Config(Modality.Config):
        ends: bool = True
        """Whether a begin and an end token are put around an item."""
        fill: int | None = Field(None, ge=0)
        """Fill items up to `length` with the tokenizer's padding token, or this id if it has none, as tokens like any other
        (SigLIP); by default rows of a batch are padded, and padding is not looked at."""

    axes = ("token",)

    def __init__(self, config: Any):
        super().__init__(config)
        if config.fill is not None and config.length is None:
            raise ConfigError("text: fill needs a length to fill up to")

    def _encoded(self, raw: Any, cut: bool) -> Tokens:
        tokens = super()._encoded(raw, cut)
        if self.config.fill is None or not cut:
            return tokens
        filling = self.tokenizer.specials.get("pad", self.config.fill)
        values = np.full(self.config.length, filling, np.int64)
        values[: len(tokens.values)] = tokens.values
        return Tokens(values, np.arange(len(values), dtype=np.int64)[:, None])

    def check(self, raw: Any) -> str:
        """A str that is not empty, unchanged."""
        return need_string(raw, "a text")

    def summary(self, raws: Sequence[str]) -> dict[str, Any]:
        return facts(raws, "characters")

    def html(self, raw: str) -> str:
        return shown(raw)

    def edits(self, raw: str, draw: np.random.Generator) -> dict[str, str]:
        """One character replaced, inserted, deleted; new ones are from the text itself."""
        return letter_edits(raw, draw, raw, "character")

    def units(self, raw: str) -> np.ndarray:
        """Words, and signs of punctuation one by one; spaces belong to none."""
        return np.array([found.span() for found in WORDS.finditer(raw)], np.int64).reshape(-1, 2)

    def features(self, train: Sequence[str]) -> tuple[Features, ...]:
        """Words and pairs of them, and characters in threes, both by tf-idf."""
        letters = words(train, list, "characters in threes", 2048, (1, 3))
        return words(train, lambda raw: WORDS.findall(raw.lower()), "bag of words", 4096, (1, 2)), letters

    def shingles(self, raw: str) -> Shingles:
        """Runs of 5 characters, spaces and case aside."""
        return Shingles(shingles(" ".join(raw.lower().split()), 5), contained=False)

    def error(self, raw: str, back: str) -> float:
        """The share of characters that differ."""
        return letters_lost(raw, back)

    unit = "words and signs"
    error_unit = "share of characters"

    def augmentation(self) -> Augmentation:
        """Independent pieces of it, as Contriever (arXiv:2112.09118); with `views: []` dropout alone, as SimCSE."""
        return Augmentation(({"kind": "crop", "share": (0.5, 1.0)},), ({"kind": "crop", "share": (0.2, 0.5)},))

    @classmethod
    def suggest(cls, name: str, raws: Sequence[str], items: int) -> Suggestion:
        """Byte pairs in a number that the text can teach, a causal trunk, the next token predicted."""
        letters = mean_length(raws)
        size = int(min(8192, max(384, 2 ** round(math.log2(max(letters * items / CHARACTERS_A_PIECE, 1))))))
        return Suggestion(
            stream={"kind": "text", "tokenizer": {"kind": "bpe", "size": size}, "length": 256, "pack": True},
            trunks={
                "lm": {
                    "inputs": [name],
                    "mask": {"causal": True},
                    "position": "rotary",
                    "block": {"nonlinearity": "swiglu", "norm": "rms"},
                }
            },
            objective={"kind": "next_token"},
            train={"batch_tokens": 8192},
            tokens=letters / 3,
            why=[
                f"{name}: byte-pair tokens, {size} of them, for about {letters * items:,.0f} characters",
                f"{name}: the next token is predicted; such a model continues a text, and its loss says how well it knows it",
            ],
            tower={"inputs": [name], "position": "rotary", "block": {"dropout": 0.1}},
        )
