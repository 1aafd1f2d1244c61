"""What the text tokenizers share: the ones that the `tokenizers` library trains and runs, and example sentences."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tokenizers

from sevenfold.blocks.tokenization import Tokenizer, check_ready, line, need_text
from sevenfold.blocks.tokenization._fast import LONG, in_pieces
from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"


class TrainedText(Tokenizer):
    """str → ids through a `tokenizers.Tokenizer`, kept as `tokenizer.json` in Hugging Face layout.

    Special tokens that are spelled out in a text (`<eos>`) are ordinary text.
    """

    special_pieces: ClassVar[dict[str, str]]
    """Name of a special token → how it is written in the vocabulary; their ids are 0, 1, 2 … in this order."""
    model: ClassVar[type]
    """The class in `tokenizers.models`."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.inner: Any = None

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[str]:
        return sentences(seed)

    def train(self, raws: Iterator[str]) -> tokenizers.Tokenizer:
        """A library tokenizer trained on texts."""
        raise NotImplementedError

    def fit(self, raws: Iterable[Any]) -> None:
        self._adopt(self.train(need_text(raw, self) for raw in raws))
        # The library trained in threads. Unless told, it warns on standard error in every process forked from now on.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        ids = self._ids(need_text(raw, self))
        return Tokens(ids, line(len(ids)))

    def _ids(self, text: str) -> np.ndarray:
        text.encode("utf-8")  # a lone surrogate: ValueError that names its place
        self.inner.encode_special_tokens = True
        if len(text) >= LONG:
            return in_pieces(self.inner, text)
        return np.array(self.inner.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str:
        check_ready(self)
        return self.inner.decode(np.asarray(values).tolist(), skip_special_tokens=True)

    def spans(self, raw: Any) -> np.ndarray:
        """The characters of each piece, in the text as it was given; parts of one character have the same span."""
        check_ready(self)
        self.inner.encode_special_tokens = True
        offsets = self.inner.encode(need_text(raw, self), add_special_tokens=False).offsets
        return np.array(offsets, dtype=np.int64).reshape(-1, 2)

    def piece(self, id: int) -> str:
        written = self.inner.id_to_token(id) if self.inner is not None else None
        return super().piece(id) if written is None or id in self.specials.values() else written

    def published(self) -> dict[str, Any]:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{f"{name}_token": piece for name, piece in self.special_pieces.items()},
        }

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        write_atomic(Path(folder) / FILE, self.inner.to_str(pretty=True))
        return [*names, FILE]

    def write_published(self, folder: Path) -> list[str]:
        check_ready(self)
        write_atomic(folder / SETTINGS, json.dumps(self.published(), indent=1, ensure_ascii=False) + "\n")
        write_atomic(folder / FILE, self.inner.to_str(pretty=True))
        return [SETTINGS, FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        data = read_json(path)
        try:
            vocabulary = data["model"]["vocab"]
            if sorted(vocabulary.values()) != list(range(len(vocabulary))):
                raise ValueError("its ids are not 0, 1, 2 ...")
            if any(vocabulary.get(piece) != id for id, piece in enumerate(self.special_pieces.values())):
                raise ValueError(f"it does not begin with {' '.join(self.special_pieces.values())}")
            inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
            added = [token for token in data.get("added_tokens", []) if token["id"] >= len(vocabulary)]
            if not isinstance(inner.model, self.model) or inner.get_vocab_size() != len(vocabulary) + len(added):
                raise ValueError(f"its model is not a {self.model.__name__} over its vocabulary")
        except Exception as error:  # the library raises plain Exception
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
            raise CheckpointError(f"{path}: is not a {self.kind} tokenizer: {why}") from None
        self._adopt(inner)

    def _adopt(self, inner: tokenizers.Tokenizer) -> None:
        self.inner = inner
        self.specials = {name: id for id, name in enumerate(self.special_pieces)}
        self.size = inner.get_vocab_size()


def words_of(inner: tokenizers.Tokenizer, raws: Iterable[str]) -> Counter[str]:
    """The words that a library tokenizer's normalizer and pre-tokenizer make of texts, and how often each occurs."""
    counts: Counter[str] = Counter()
    for raw in raws:
        text = inner.normalizer.normalize_str(raw)
        counts.update(word for word, _ in inner.pre_tokenizer.pre_tokenize_str(text))
    return counts


def frequent_letters(words: Mapping[str, int], most: int) -> list[str]:
    """The most frequent letters of words with their counts, sorted."""
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for letter in word:
            counts[letter] += times
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:most])


def printable(text: str) -> str:
    """Text with control characters written as escapes (`\\n`)."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def sentences(seed: int = 0, count: int = 24) -> list[str]:
    """Short sentences of a small grammar."""
    draw = numpy_generator("sentences", seed)
    animals = ["cat", "dog", "owl", "bee", "fox", "whale"]
    verbs = ["finds", "counts", "carries", "follows"]
    things = ["stones", "leaves", "shells", "cafés", "boats"]
    return [
        f"The {draw.choice(animals)} {draw.choice(verbs)} {draw.integers(2, 100)} {draw.choice(things)}"
        f"{draw.choice(['.', '!', ', and rests.'])}"
        for _ in range(count)
    ]
