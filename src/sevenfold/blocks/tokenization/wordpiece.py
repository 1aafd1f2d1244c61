"""Words as pieces, later pieces of a word marked ##; a word that cannot be spelled with the pieces is [UNK].

    (a, b)* = argmax n(ab) / (n(a) n(b));  V <- V + {ab};     encode(w) = longest piece that w begins with, then ##rest

Pieces are merged by likelihood: those that stand together more than chance says. Schuster and Nakajima 2012,
doi:10.1109/ICASSP.2012.6289079; encoding: Wu 2016, arXiv:1609.08144 sec. 4.1; layout: Devlin 2018, arXiv:1810.04805 sec.
3. (Libraries that train "WordPiece" by the most frequent pair train byte pairs.) BERT, DistilBERT, ELECTRA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, normalizers, pre_tokenizers

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization._likelihood import MARK, joined, merges
from sevenfold.blocks.tokenization._text import TrainedText, frequent_letters, words_of

LONGEST = 100
"""Longer words are [UNK]."""
THRESHOLDS = (512, 256, 128, 64, 32, 16, 8, 4, 2)
"""How often a pair must occur, where nobody says: the largest of these that still fills the vocabulary."""


class WordPiece(TrainedText):
    """str → ids [n]. Not lossless: spaces, and case and accents if `lowercase`, are not kept."""

    class Config(Tokenizer.Config):
        size: int = Field(4096, ge=64, le=1_000_000)
        """The most ids, special tokens included."""
        lowercase: bool = True
        """Whether text is put into lower case and accents are removed."""
        min_count: int | None = Field(None, ge=1)
        """A pair must occur this often to be merged. The score prefers rare pieces, so a small number spends the
        vocabulary on them; by default the largest power of two that still fills `size`, at least 2."""
        alphabet: int = Field(1000, ge=1)
        """The most characters that are kept, the most frequent ones; words with others are [UNK]. At most half of
        `size` is spent on them."""

    special_pieces = {"pad": "[PAD]", "unk": "[UNK]", "bos": "[CLS]", "eos": "[SEP]", "mask": "[MASK]"}
    model = models.WordPiece
    lossless = False
    variants = ({"min_count": 3, "lowercase": False},)

    def train(self, raws: Iterator[str]) -> tokenizers.Tokenizer:
        inner = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
        inner.normalizer = normalizers.BertNormalizer(lowercase=self.config.lowercase)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece(prefix=MARK)
        specials = list(self.special_pieces.values())
        vocabulary = self._learn(words_of(inner, raws), specials)
        inner.model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST)
        inner.add_special_tokens(specials)
        return inner

    def _learn(self, words: Counter[str], specials: list[str]) -> dict[str, int]:
        """Piece → id: special tokens, letters, marked letters, then the merges in their order."""
        kept = frequent_letters(words, min(self.config.alphabet, (self.config.size - len(specials)) // 2))
        known = set(kept)
        spelled = {word: n for word, n in words.items() if len(word) <= LONGEST and known.issuperset(word)}
        inside = sorted({MARK + letter for word in spelled for letter in word[1:]})
        first = dict.fromkeys([*specials, *kept, *inside])
        room = self.config.size - len(first)
        found: dict[str, None] = {}
        for threshold in (self.config.min_count,) if self.config.min_count else THRESHOLDS:
            found = {}
            for pair in merges(spelled, threshold):
                if len(found) >= room:
                    break
                piece = joined(*pair)
                if piece not in first:
                    found[piece] = None
            if len(found) >= room:
                break
        return {piece: id for id, piece in enumerate([*first, *found][: self.config.size])}
