"""A text tokenizer that came with published weights: any `tokenizer.json`, or the older files that one can be made of.

    str → ids by the file's own normalizer, pre-tokenizer and model; special tokens by `tokenizer_config.json`

Byte pairs (GPT-2, RoBERTa, CLIP, Llama 3, Qwen), WordPiece (BERT), Unigram (T5, SigLIP), one letter a token (ESM). Without
`tokenizer.json`: `vocab.json` with `merges.txt` (byte pairs), `vocab.txt` (WordPiece). The layout is that of the `tokenizers`
library (Moi and Patry 2023, https://github.com/huggingface/tokenizers), which runs it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from pydantic import Field
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from sevenfold.blocks.tokenization import Tokenizer, check_ready, need_text
from sevenfold.blocks.tokenization._text import FILE, SETTINGS, TrainedText, sentences
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.files import read_json

ROLES = {
    "eos": ("eos_token", "sep_token"),
    "bos": ("bos_token", "cls_token"),
    "mask": ("mask_token",),
    "unk": ("unk_token",),
    "pad": ("pad_token",),
}
"""Our names of special tokens, and the published ones, in order: a token with two names has the first of ours."""
SENTINEL = "<extra_id_{}>"
"""How published tokenizers write the ids that stand for hidden spans (T5)."""
LARGEST = 256 << 20
"""Bytes of the largest tokenizer.json that is read."""


class Published(TrainedText):
    """str → ids [n]. `size` is the model's number of ids, of which the last may stand for nothing."""

    class Config(Tokenizer.Config):
        path: str | None = None
        """The folder with its files. Not needed once the tokenizer is saved with its run."""
        size: int | None = Field(None, ge=1, le=1 << 24)
        """Ids of the model; by default as many as the files have."""
        place: int | None = Field(None, ge=0)
        """The special token that a text says by its spelling (`<image>`), where something else is spliced in; others are
        spelled out."""

    lossless = False

    def __init__(self, config: Any):
        super().__init__(config)
        self.size = config.size
        self.settings: dict[str, Any] = {}
        """What `tokenizer_config.json` says."""
        self.reader: Any = None
        """The tokenizer that reads and writes texts: that of the files, which knows the place."""
        self._around: tuple[list[int], list[int]] = [], []

    @classmethod
    def example_config(cls, config: Any, folder: Path) -> Any:
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
        inner.train_from_iterator(sentences(), trainer)
        inner.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 1)])
        inner.save(str(folder / FILE))
        (folder / SETTINGS).write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
        return config.replace(path=str(folder))

    @property
    def spells(self) -> bool:
        return self.inner is not None or self.size is None

    def train(self, raws: Iterator[str]) -> tokenizers.Tokenizer:
        raise ConfigError("tokenizer.published: it learns nothing; give the folder of its files as tokenizer.path")

    def fit(self, raws: Iterable[Any]) -> None:
        """Read the files; nothing is learned from `raws`."""
        if self.config.path is None:
            self.train(iter(()))
        try:
            self.restore(Path(self.config.path))
        except CheckpointError as error:
            raise ConfigError(f"tokenizer.path: {error}") from None

    def around(self) -> tuple[list[int], list[int]]:
        """As its files say; where they put nothing around an item, its begin and its end token."""
        return self._around if any(self._around) else super().around()

    def spelled(self) -> int | None:
        return None if self.inner is None else self.inner.get_vocab_size()

    def encode(self, raw: Any) -> Any:
        check_ready(self)
        if self.inner is None:
            raise ValueError("the model came without a tokenizer, so it takes ids only: see Model.logits")
        return super().encode(raw)

    def _ids(self, text: str) -> np.ndarray:
        text.encode("utf-8")  # a lone surrogate: ValueError that names its place
        self.reader.encode_special_tokens = True
        return np.array(self.reader.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> str:
        if self.inner is None:
            raise ValueError("the model came without a tokenizer, so its ids have no text")
        ids = np.asarray(values)
        return self.reader.decode(ids[ids < self.inner.get_vocab_size()].tolist(), skip_special_tokens=True)

    def spans(self, raw: Any) -> Any:
        if self.inner is None:
            return None
        self.reader.encode_special_tokens = True
        offsets = self.reader.encode(need_text(raw, self), add_special_tokens=False).offsets
        return np.array(offsets, dtype=np.int64).reshape(-1, 2)

    def published(self) -> dict[str, Any]:
        return self.settings

    def save(self, folder: str | Path) -> list[str]:
        return super().save(folder) if self.inner is not None else Tokenizer.save(self, folder)

    def read_published(self, folder: Path) -> bool | None:
        self.restore(folder)
        return any(self._around) if self.inner is not None else None

    def write_published(self, folder: Path) -> list[str]:
        return super().write_published(folder) if self.inner is not None else []

    def restore(self, folder: Path) -> None:
        if self.config.size is not None and not present(folder):
            return
        inner, settings = read(folder)
        if self.config.size is not None and inner.get_vocab_size() > self.config.size:
            raise CheckpointError(
                f"{folder / FILE}: is a tokenizer of another vocabulary: it has {inner.get_vocab_size()} ids, the model "
                f"{self.config.size}"
            )
        self.settings = settings
        self._adopt(inner)

    def _adopt(self, inner: tokenizers.Tokenizer) -> None:
        self.inner = inner
        self.size = self.config.size or inner.get_vocab_size()
        self.specials, self.special_pieces = {}, {}  # type: ignore[misc]  # of the class, where a tokenizer has fixed ones
        for role, names in ROLES.items():
            written = next((text for name in names if (text := _text(self.settings.get(name))) is not None), None)
            id = None if written is None else inner.token_to_id(written)
            if id is not None and id not in self.specials.values():
                self.specials[role] = id
        ids = (inner.token_to_id(SENTINEL.format(place)) for place in count())
        self.sentinels = [id for id in takewhile(lambda id: id is not None, ids) if id is not None]
        place = self.config.place
        known = place is not None and place in inner.get_added_tokens_decoder()
        self.reader = _placing(inner, place) if known else inner
        self.specials |= {"place": place} if known else {}
        self._around = _template(inner)


def present(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    return any((folder / name).is_file() for name in (FILE, "vocab.json", "vocab.txt"))


def read(folder: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """(the tokenizer of a folder, its settings). CheckpointError names a file that is missing or not what it should be."""
    settings: Any = {}
    for name in ("special_tokens_map.json", SETTINGS):
        if (folder / name).is_file():
            found = read_json(folder / name)
            if not isinstance(found, dict):
                raise CheckpointError(f"{folder / name}: is not a record of settings")
            settings |= {key: value for key, value in found.items() if key != "sevenfold"}
    path = next(
        (folder / name for name in (FILE, "vocab.json", "vocab.txt") if (folder / name).is_file()), folder / FILE
    )
    try:
        if path.name == FILE:
            data = read_json(path, LARGEST)
            if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
                raise ValueError("it has no model")
            inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        elif path.name == "vocab.json":
            inner = _byte_pairs(folder, settings)
        else:
            inner = _word_pieces(path, settings)
        if not inner.get_vocab_size():
            raise ValueError("it has no vocabulary")
    except CheckpointError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(f"{path}: is not a tokenizer: {str(error).partition(chr(10))[0]}") from None
    inner.no_truncation()
    inner.no_padding()
    return inner, settings


def _byte_pairs(folder: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """GPT-2's two files, and RoBERTa's, whose begin and end stand around a text."""
    if not (folder / "merges.txt").is_file():
        raise CheckpointError(f"{folder / 'merges.txt'}: is missing beside vocab.json")
    inner = tokenizers.Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space", False)))
    inner.decoder = decoders.ByteLevel()
    return _around_of(inner, settings, ("cls_token", "sep_token"))


def _word_pieces(path: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """BERT's file: a piece a line."""
    vocabulary = {piece: id for id, piece in enumerate(path.read_text(encoding="utf-8").splitlines())}
    unknown = _text(settings.get("unk_token")) or "[UNK]"
    inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    inner.normalizer = normalizers.BertNormalizer(lowercase=bool(settings.get("do_lower_case", True)))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    defaults = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _around_of(inner, {**defaults, **settings}, ("cls_token", "sep_token"))


def _around_of(
    inner: tokenizers.Tokenizer, settings: Mapping[str, Any], names: tuple[str, str]
) -> tokenizers.Tokenizer:
    """With its special tokens, and those two around a text, where it has both."""
    specials = [text for name in ROLES.values() for one in name if (text := _text(settings.get(one))) is not None]
    inner.add_special_tokens([text for text in dict.fromkeys(specials) if inner.token_to_id(text) is not None])
    first, last = (_text(settings.get(name)) for name in names)
    if first and last and inner.token_to_id(first) is not None and inner.token_to_id(last) is not None:
        ids = [(text, inner.token_to_id(text)) for text in dict.fromkeys((first, last))]
        inner.post_processor = processors.TemplateProcessing(f"{first} $A {last}", None, ids)
    return inner


def _text(token: Any) -> str | None:
    """How a special token is written: a str, or a record with its `content`."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


def _template(inner: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that its post-processor puts before and behind a text."""
    for text in ("a", "A", "the", "L"):
        plain = inner.encode(text, add_special_tokens=False).ids
        whole = inner.encode(text, add_special_tokens=True).ids
        for place in range(len(whole) - len(plain) + 1) if plain else ():
            if whole[place : place + len(plain)] == plain:
                return whole[:place], whole[place + len(plain) :]
    return [], []


def _placing(inner: tokenizers.Tokenizer, place: int) -> tokenizers.Tokenizer:
    """A tokenizer for which one special token is a word of its own, that texts may hold."""
    record = json.loads(inner.to_str())
    for token in record["added_tokens"]:
        token["special"] &= token["id"] != place
    return tokenizers.Tokenizer.from_str(json.dumps(record))
