"""Byte-level byte pair encoding: the most frequent pair of neighbouring pieces becomes a piece, again and again.

    (a, b)* = argmax n(ab);  V <- V + {ab};  starting from the 256 bytes; encoding applies the merges in that order

Sennrich et al. 2016, arXiv:1508.07909 sec. 3.2; over bytes: Radford et al. 2019 (GPT-2) sec. 2.2. Ties: the smaller
pair of ids. Text is cut into words by GPT-2's rule first. GPT-2, GPT-3, RoBERTa, Llama 3. With the extra `fast` it is
encoded by another engine, checked to give the same ids, about a hundred times as fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import tokenizers
from pydantic import Field
from tokenizers import decoders, models, pre_tokenizers, trainers

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization._fast import Encode, accelerated
from sevenfold.blocks.tokenization._text import TrainedText, printable

LONGEST = 4096
"""Characters in a row without a space that are learned from as one word: longer ones (a genome) are cut for learning, as
its time grows with the square of a word's length."""


def cut(text: str) -> Iterator[str]:
    """The text in pieces, cut inside runs longer than LONGEST only."""
    begin = 0
    for run in re.finditer(rf"\S{{{LONGEST + 1},}}", text):
        for place in range(run.start() + LONGEST, run.end(), LONGEST):
            yield text[begin:place]
            begin = place
    yield text[begin:]


class BPE(TrainedText):
    """str → ids [n], lossless. `size` is config.size, or less when the data has fewer pairs."""

    class Config(Tokenizer.Config):
        size: int = Field(4096, ge=260, le=1_000_000)
        """The most ids: 4 special tokens, 256 bytes, and merges."""
        min_count: int = Field(2, ge=1)
        """A pair must occur this often to be merged."""

    special_pieces = {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "mask": "<mask>"}
    model = models.BPE
    _engine: Encode | Literal[False] | None = None
    """The faster engine; None: not looked for yet, False: there is none."""

    def train(self, raws: Iterator[str]) -> tokenizers.Tokenizer:
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.config.size,
            min_frequency=self.config.min_count,
            special_tokens=list(self.special_pieces.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator((piece for raw in raws for piece in cut(raw)), trainer)
        return inner

    def _ids(self, text: str) -> np.ndarray:
        if self._engine is None and self.inner.get_vocab_size(False) != self.inner.get_vocab_size():
            self._engine = False  # words were added to it, which the engine does not know
        if self._engine is None:
            self._engine = (
                accelerated(self.inner, [*self.example(1), " \n\t<pad>it's 中文 é\u0301 1234 \U0001f600\x00"]) or False
            )
        return self._engine(text) if self._engine else super()._ids(text)

    def _adopt(self, inner: tokenizers.Tokenizer) -> None:
        super()._adopt(inner)
        self._engine = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_engine": None}

    def piece(self, id: int) -> str:
        written = super().piece(id)
        if self.inner is None or id in self.specials.values():
            return written
        text = self.inner.decode([id])
        return written if "\ufffd" in text else printable(text)
