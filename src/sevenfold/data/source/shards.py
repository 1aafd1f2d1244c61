"""Tokens that were made before: a folder that `sevenfold prepare` wrote, mapped to memory and never read as a whole.

    data:    {kind: shards, path: tokens/}
    streams: {text: {length: 1024}}           kind, tokenizer and ends are those of the folder

The path may be a URL (s3://…): then files are brought here through fsspec when they are asked for, and so many of them kept as
`cache` says. A set that is larger is read a few files at a time, as sevenfold.data.arranged says.

Windows and packed rows are read straight from the files. Whatever else asks for a sample gets the raw item back from its
tokens. Nanosets, nanoGPT's .bin files, Megatron's indexed data sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core import part
from sevenfold.core.errors import BadSample, ConfigError, DataError, SevenfoldError
from sevenfold.core.files import MANIFEST, known_by, read_json, write_atomic
from sevenfold.data.arranged import AHEAD, Shelves
from sevenfold.data.kept import Far, Kept
from sevenfold.data.line import Files, Line
from sevenfold.data.numbers import packed
from sevenfold.data.remote import Fact, begin, bring, home, shown
from sevenfold.data.sharded import FORMAT, Index, read_index, read_side, shards_of, sizes_of, told_index, write_array
from sevenfold.data.source import Prepared, Sample, Source

CACHE = 32 << 30
"""Bytes of a set at a URL that are kept here unless a recipe says otherwise."""
GROUP = 16
"""Files of a larger one that are read at a time."""
FEWEST = AHEAD + 2
"""Files that the cache must hold: one that is read, those that come next, and one more."""


class Shards(Source):
    """Samples are {field: raw item}: first those to train on, then the held-out ones, in their order."""

    class Config(Source.Config):
        verify: bool = True
        """Whether the hash of every file is checked when it is opened (about a second for each 2 GB); sizes always are. What
        comes from a URL is checked on its way in any case."""
        cache: int = Field(default=CACHE, ge=1)
        """Bytes of token files that are kept here of a set at a URL; those not used for longest go."""
        group: int | None = Field(default=None, ge=1, le=100_000)
        """So many files are read and shuffled together at a time. By default all; of a set at a URL that is larger than `cache`,
        16, or as many as fit. The order depends on it, and on the seed."""

    def __init__(self, config: Any):
        super().__init__(config)
        if config.split is not None or config.partly or config.labelled:
            raise ConfigError(
                "data: shards hold one field of tokens, split already: leave split, partly and labelled out"
            )
        self.index, files = (
            self._from_elsewhere() if self._far else (read_index(self.path, config.verify), Files(config.group))
        )
        self._sides = [read_side(self.path, self.index, name, files) for name in ("train", "held_out")]
        counts = [len(samples) for _, samples in self._sides]
        if config.limit is not None and sum(counts) > config.limit:
            held = min(max(1, round(config.limit * counts[1] / sum(counts))), counts[1]) if config.limit > 1 else 0
            counts = [min(config.limit - held, counts[0]), held]
        self._counts = counts
        if self.index.bad:
            self._notes = [f"{self.index.bad:,} samples could not be read when it was prepared: see bad_samples.jsonl"]

    @property
    def _far(self) -> bool:
        return "://" in (self.config.path or "")

    @cached_property
    def path(self) -> Path:
        """The folder, or the one that holds what is brought from a URL."""
        return self._begun[0] if self._far else super().path

    @cached_property
    def _begun(self) -> tuple[Path, dict[str, Fact]]:
        return begin(self.config.path)

    def _from_elsewhere(self) -> tuple[Index, Files]:
        """The index of a set at a URL, with all files brought but those of ids; and what brings these."""
        config = self.config
        folder, facts = self._begun
        index = told_index(folder)
        where = shown(config.path)
        shards = dict.fromkeys(shards_of(index))
        needed = [name for name in sizes_of(folder, index) if name not in shards]
        bring(config.path, folder, facts, [*needed, *_of_tokenizer(facts)])
        sizes = [size for name, size in sizes_of(folder, index).items() if name in shards]
        group, fit = config.group, config.cache // max(sizes, default=1)
        if sum(sizes) > config.cache:
            if fit < FEWEST:
                raise ConfigError(
                    f"data.cache: {config.cache:,} bytes hold {fit} of the largest files of {where}, and {FEWEST} are needed: "
                    f"{FEWEST * max(sizes):,} bytes at least"
                )
            group = min(config.group or GROUP, fit - AHEAD - 1)
        names = {name: f"{facts[name]['sha256'][:24]}-{name}" for name in shards}
        urls = {kept_as: f"{config.path.rstrip('/')}/{name}" for name, kept_as in names.items()}
        files = {kept_as: facts[name] for name, kept_as in names.items()}
        return index, Far(Kept(urls, home(config.path), files, config.cache, config.verify), names, group)

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
        path = str(settings.get("path"))
        if "://" in path:
            folder, facts = begin(path)
            bring(path, folder, facts, _of_tokenizer(facts))
        else:
            folder = Path(path).expanduser()
        index = told_index(folder)
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
        place = shown(self.config.path) if self._far else self.path
        return f"{place}: {('train', 'held_out')[side]} sample {number}"

    def follows(self, index: int) -> bool:
        side, number = self._place(index)
        line, samples = self._sides[side]
        place = np.searchsorted(line.begins, samples[number])
        return number > 0 and not (place < len(line.begins) and line.begins[place] == samples[number])

    @property
    def continuous(self) -> bool:
        return all(len(line.begins) <= 1 for line, _ in self._sides)

    def split(self) -> tuple[Sequence[int], Sequence[int]]:
        first, second = self._counts
        return range(first), range(first, first + second)

    def line(self, indices: Sequence[int]) -> Line | None:
        for held_out, side in enumerate(self.split()):
            if side and len(indices) == len(side) and (indices == side or packed(indices) == side):
                line, samples = self._sides[held_out]
                return line if len(side) == len(samples) else line.cut(int(samples[len(side)]))
        return None

    @cached_property
    def shelves(self) -> Shelves | None:
        """The samples that begin in each file."""
        if self._sides[0][0].files.group is None:
            return None
        bounds = [0]
        for (line, samples), count in zip(self._sides, self._counts):
            inside = np.searchsorted(samples[:count], line.ends, side="left")
            bounds += (bounds[-1] + inside).tolist()
        return Shelves(np.array(bounds), self._sides[0][0].files.group, self._ahead)

    def _ahead(self, parts: Sequence[int]) -> None:
        (train, _), (held_out, _) = self._sides
        count = len(train.sizes)
        train.ahead([number for number in parts if number < count])
        held_out.ahead([number - count for number in parts if number >= count])

    def at_hand(self, indices: Sequence[int]) -> int:
        """Those of the first file, where files are brought from elsewhere."""
        if not self._far or not len(indices):
            return len(indices)
        side, number = self._place(indices[0])
        line, samples = self._sides[side]
        stop = line.ends[np.searchsorted(line.ends, samples[number], side="right")]
        last = int(np.searchsorted(samples[: self._counts[side]], stop, side="left")) + (side and self._counts[0])
        return int(np.searchsorted(indices, last))

    def files(self) -> list[Path]:
        return [self.path / MANIFEST]


def _of_tokenizer(files: Iterable[str]) -> list[str]:
    return [name for name in files if name.startswith("tokenizer/")]
