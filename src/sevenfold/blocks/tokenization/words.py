"""Whole words and signs as ids, the most frequent ones; all others are one unknown token.

    z_i = rank of word i by n(word),  or unk

The contrast to pieces: sequences are short, and what was not seen often in training is lost. Language models before 2016:
Bengio 2003, jmlr.org/papers/v3/bengio03a.html; Mikolov 2013 (word2vec), arXiv:1301.3781.
"""

from __future__ import annotations

from collections.abc import Iterator

import tokenizers
from pydantic import Field
from tokenizers import models, normalizers, pre_tokenizers

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization._text import TrainedText, words_of


class Words(TrainedText):
    """str → ids [n]. Not lossless: rare words and spaces are not kept. Decoding puts one space between words."""

    class Config(Tokenizer.Config):
        size: int = Field(4096, ge=8, le=1_000_000)
        """The most ids, special tokens included."""
        lowercase: bool = False
        """Whether text is put into lower case and accents are removed."""
        min_count: int = Field(1, ge=1)
        """A word must occur this often to be known."""

    special_pieces = {"pad": "[PAD]", "unk": "[UNK]", "bos": "[CLS]", "eos": "[SEP]", "mask": "[MASK]"}
    model = models.WordLevel
    lossless = False
    variants = ({"lowercase": True},)

    def train(self, raws: Iterator[str]) -> tokenizers.Tokenizer:
        inner = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        inner.normalizer = normalizers.BertNormalizer(lowercase=self.config.lowercase)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        specials = list(self.special_pieces.values())
        counts = words_of(inner, raws)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        known = [word for word in ranked if counts[word] >= self.config.min_count and word not in specials]
        vocabulary = {word: id for id, word in enumerate([*specials, *known][: self.config.size])}
        inner.model = models.WordLevel(vocabulary, unk_token="[UNK]")
        inner.add_special_tokens(specials)
        return inner
