"""Words as pieces, later pieces of a word marked ##; a word that cannot be spelled with the pieces is [UNK].

    encode(w) = longest piece that w begins with, then again on ##rest

BERT's layout: Devlin et al. 2018, arXiv:1810.04805 sec. 3; encoding: Wu et al. 2016, arXiv:1609.08144 sec. 4.1. The
pieces are learned by merging the most frequent pair, as Hugging Face does (Google's likelihood trainer is not public).
BERT, DistilBERT, ELECTRA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization._text import TrainedText


class WordPiece(TrainedText):
    """str → ids [n]. Not lossless: spaces, and case and accents if `lowercase`, are not kept."""

    class Config(Tokenizer.Config):
        size: int = Field(4096, ge=64, le=1_000_000)
        """The most ids, special tokens included."""
        lowercase: bool = True
        """Whether text is put into lower case and accents are removed."""
        min_count: int = Field(2, ge=1)
        """A pair must occur this often to be merged."""
        alphabet: int = Field(1000, ge=1)
        """The most characters that are kept, the most frequent ones; words with others are [UNK]. At most half of
        `size` is spent on them."""

    special_pieces = {"pad": "[PAD]", "unk": "[UNK]", "bos": "[CLS]", "eos": "[SEP]", "mask": "[MASK]"}
    model = models.WordPiece
    lossless = False

    def train(self, raws: Iterator[str]) -> tokenizers.Tokenizer:
        inner = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
        inner.normalizer = normalizers.BertNormalizer(lowercase=self.config.lowercase)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece(prefix="##")
        specials = list(self.special_pieces.values())
        vocabulary = self._learn(self._words(inner, raws), specials)
        inner.model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
        inner.add_special_tokens(specials)
        return inner

    def _words(self, inner: tokenizers.Tokenizer, raws: Iterator[str]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for raw in raws:
            text = inner.normalizer.normalize_str(raw)
            counts.update(word for word, _ in inner.pre_tokenizer.pre_tokenize_str(text))
        return counts

    def _learn(self, words: Counter[str], specials: list[str]) -> dict[str, int]:
        """Piece → id. The library numbers ##x in the order of a hash map, so they are given to it, sorted."""
        counts: Counter[str] = Counter()
        for word, times in words.items():
            counts.update({letter: times * word.count(letter) for letter in set(word)})
        most = min(self.config.alphabet, (self.config.size - len(specials)) // 2)
        kept = sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:most])
        known = set(kept)
        inside = sorted({f"##{letter}" for word in words for letter in word[1:] if letter in known})
        scratch = tokenizers.Tokenizer(models.BPE(continuing_subword_prefix="##"))
        scratch.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=self.config.size,
            min_frequency=self.config.min_count,
            special_tokens=[*specials, *inside],
            limit_alphabet=len(kept),
            initial_alphabet=kept,
            continuing_subword_prefix="##",
            show_progress=False,
        )
        scratch.train_from_iterator(words.elements(), trainer)
        return scratch.get_vocab()
