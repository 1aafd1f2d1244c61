"""Tokens that were made before: a folder that `sevenfold prepare` wrote, mapped to memory and never read as a whole.

    data:    {kind: shards, path: tokens/}
    streams: {text: {length: 1024}}           kind, tokenizer and ends are those of the folder

The path may be a URL (s3://…): then the folder is brought here first, through fsspec.

Windows and packed rows are read straight from the files. Whatever else asks for a sample gets the raw item back from its
tokens. Nanosets, nanoGPT's .bin files, Megatron's indexed data sets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.core import part
from sevenfold.core.errors import BadSample, ConfigError, DataError, SevenfoldError
from sevenfold.core.files import MANIFEST, known_by, read_json, write_atomic
from sevenfold.data.line import Line
from sevenfold.data.remote import here
from sevenfold.data.sharded import FORMAT, read_index, read_side, write_array
from sevenfold.data.source import Prepared, Sample, Source


class Shards(Source):
    """Samples are {field: raw item}: first those to train on, then the held-out ones, in their order."""

    class Config(Source.Config):
        verify: bool = True
        """Whether the hash of every file is checked when it is opened (about a second for each 2 GB); sizes always are."""

    def __init__(self, config: Any):
        super().__init__(config)
        if config.split is not None or config.partly or config.labelled:
            raise ConfigError(
                "data: shards hold one field of tokens, split already: leave split, partly and labelled out"
            )
        self.index = read_index(self.path, config.verify)
        self._sides = [read_side(self.path, self.index, name) for name in ("train", "held_out")]
        counts = [len(samples) for _, samples in self._sides]
        if config.limit is not None and sum(counts) > config.limit:
            held = min(max(1, round(config.limit * counts[1] / sum(counts))), counts[1]) if config.limit > 1 else 0
            counts = [min(config.limit - held, counts[0]), held]
        self._counts = counts
        if self.index.bad:
            self._notes = [f"{self.index.bad:,} samples could not be read when it was prepared: see bad_samples.jsonl"]

    @cached_property
    def path(self) -> Path:
        """The folder, brought here if it lies elsewhere."""
        return here(self.config.path) if "://" in (self.config.path or "") else super().path

    @classmethod
    def example(cls, folder: Path) -> Any:
        tokenizer = part.find("tokenization", "bytes").Config().build()
        names = tokenizer.save(folder / "tokenizer")
        files = {f"tokenizer/{name}": known_by(folder / "tokenizer" / name) for name in names}
        sides = {}
        for side, texts in (("train", tokenizer.example(1)), ("held_out", tokenizer.example(2)[:4])):
            ids = [tokenizer.encode(text).values for text in texts]
            places = np.cumsum([0, *map(len, ids)])[:-1]
            arrays = {f"{side}-00000": np.concatenate(ids).astype(np.uint16)}
            arrays |= {f"{side}.{what}": places for what in ("samples", "documents")}
            for name, array in arrays.items():
                files[f"{name}.npy"] = write_array(folder / f"{name}.npy", array)._asdict()
            tokens = sum(map(len, ids))
            shards = [{"name": f"{side}-00000.npy", "tokens": tokens}]
            sides[side] = {"samples": len(ids), "documents": len(ids), "tokens": tokens, "shards": shards}
        stream = {"kind": "text", "tokenizer": {"kind": "bytes"}, "ends": False, "begin": None}
        facts = {"format": FORMAT, "version": 1, "field": "text", "stream": stream, "ids": 260, "source": {}}
        write_atomic(folder / MANIFEST, json.dumps({**facts, **sides, "files": files}))
        return cls.Config(path=str(folder))

    @classmethod
    def recognises(cls, path: Path) -> float:
        if not (path / MANIFEST).is_file():
            return 0.0
        try:
            facts = read_json(path / MANIFEST)
        except SevenfoldError:
            return 0.0
        return 1.0 if isinstance(facts, dict) and facts.get("format") == FORMAT else 0.0

    @property
    def fields(self) -> dict[str, str]:
        return {self.index.field: str(self.index.stream.get("kind"))}

    @classmethod
    def told(cls, settings: Mapping[str, Any]) -> Prepared | None:
        folder = here(str(settings.get("path")))
        index = read_index(folder, False)
        return Prepared(index.field, index.stream, folder / "tokenizer")

    @property
    def prepared(self) -> Prepared:
        return Prepared(self.index.field, self.index.stream, self.path / "tokenizer")

    def __len__(self) -> int:
        return sum(self._counts)

    def _place(self, index: int) -> tuple[int, int]:
        """(side, number on that side)."""
        return (0, index) if index < self._counts[0] else (1, index - self._counts[0])

    def ids(self, index: int) -> np.ndarray:
        """The tokens of a sample [n] int64, begin and end tokens included."""
        side, number = self._place(index)
        line, samples = self._sides[side]
        stop = int(samples[number + 1]) if number + 1 < len(samples) else len(line)
        if not 0 <= samples[number] <= stop <= len(line):
            raise BadSample(self.where(index), "its places are not in order")
        return line.read(int(samples[number]), stop)

    def __getitem__(self, index: int) -> Sample:
        values = self.ids(index)
        try:
            return {self.index.field: self._tokenizer.decode(values)}
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise BadSample(self.where(index), f"its ids spell nothing: {str(error).splitlines()[0]}") from None

    @cached_property
    def _tokenizer(self) -> Any:
        settings = self.index.stream.get("tokenizer")
        kind = settings.get("kind") if isinstance(settings, dict) else None
        where = f"{self.path / MANIFEST}: stream.tokenizer"
        try:
            tokenizer = part.decode(part.find("tokenization", str(kind)).Config, settings, where).build()
            tokenizer.restore(self.path / "tokenizer")
        except SevenfoldError as error:
            said = str(error)
            raise DataError(said if str(self.path) in said else f"{where}: {said}") from None
        return tokenizer

    def where(self, index: int) -> str:
        side, number = self._place(index)
        return f"{self.path}: {('train', 'held_out')[side]} sample {number}"

    def follows(self, index: int) -> bool:
        side, number = self._place(index)
        line, samples = self._sides[side]
        place = np.searchsorted(line.begins, samples[number])
        return number > 0 and not (place < len(line.begins) and line.begins[place] == samples[number])

    @property
    def continuous(self) -> bool:
        return all(len(line.begins) <= 1 for line, _ in self._sides)

    def split(self) -> tuple[list[int], list[int]]:
        first, second = self._counts
        return list(range(first)), list(range(first, first + second))

    def line(self, indices: Sequence[int]) -> Line | None:
        for held_out, side in enumerate(self.split()):
            if list(indices) == side and side:
                line, samples = self._sides[held_out]
                return line if len(side) == len(samples) else cut(line, int(samples[len(side)]))
        return None

    def files(self) -> list[Path]:
        return [self.path / MANIFEST]


def cut(line: Line, tokens: int) -> Line:
    """The first tokens of a line."""
    sizes = np.diff(np.minimum(line.ends, tokens), prepend=0)
    kept = int(np.count_nonzero(sizes))
    pieces = [line.piece(number)[: sizes[number]] for number in range(kept)]
    return Line(pieces, sizes[:kept].tolist(), line.begins[: int(np.searchsorted(line.begins, tokens))])
