"""The files of raw data in many pieces: a file, a folder of them, a pattern (`data-{0000..0099}.tar`, `data-*.tar`), here or at a URL.

Those at a URL come when they are asked for, and so many bytes of them are kept as `cache` says (sevenfold.data.kept).
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import Field

from sevenfold.core.errors import DataError
from sevenfold.core.files import write_atomic
from sevenfold.data.arranged import AHEAD, Shelves
from sevenfold.data.kept import Kept
from sevenfold.data.numbers import as_array, packed
from sevenfold.data.remote import home, listed, opened, shown, small, tried, usable
from sevenfold.data.source import Source
from sevenfold.data.source._files import list_files

BRACES = re.compile(r"\{([^{}]*)\}")
SEVERAL = 16
"""Braces in a pattern."""
SPAN = re.compile(r"(\d{1,12})\.\.(\d{1,12})")
MOST = 100_000
"""Files that a pattern may name."""
CACHE = 32 << 30
"""Bytes of files at a URL that are kept here unless a recipe says otherwise."""
GROUP = 16
"""Files that are read at a time, where not all fit."""
NOWHERE = (1 << 63) - 1
"""The place of a sample that cannot be read."""
T = TypeVar("T")


def is_pattern(path: str) -> bool:
    """Whether this names files elsewhere, or several by a pattern."""
    return "://" in path or bool(BRACES.search(path) or glob.has_magic(path)) and not Path(path).expanduser().exists()


def spelled(pattern: str) -> list[str]:
    """The names that a pattern with braces stands for: {0000..0099} counts, {a,b} lists. DataError for too many."""
    braces = BRACES.findall(pattern)
    if len(braces) > SEVERAL:
        raise DataError(f"{pattern[:100]}: has more than {SEVERAL} braces")
    for span in map(SPAN.fullmatch, braces):
        if span and int(span[1]) > int(span[2]):
            raise DataError(f"{pattern}: {{{span[0]}}} counts down: put the lower number first")
    names = list(_each(pattern))
    if len(names) > MOST:
        raise DataError(f"{pattern}: names more than {MOST:,} files")
    return names


def _each(pattern: str, most: int = MOST + 1) -> Iterator[str]:
    found = BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    span = SPAN.fullmatch(found[1])
    if span:
        low, high, width = int(span[1]), int(span[2]), len(span[1]) if span[1].startswith("0") else 0
        words: Iterator[str] = (f"{number:0{width}d}" for number in range(low, min(high, low + most) + 1))
    else:
        words = iter(found[1].split(","))
    for word in words:
        for whole in _each(pattern[: found.start()] + word + pattern[found.end() :]):
            if most <= 0:
                return
            most -= 1
            yield whole


class Raw:
    """Files in order, each read by number."""

    def __init__(self, path: str, endings: Collection[str], cache: int, group: int | None):
        """`endings`: of the files that count in a folder."""
        self.path, self.far = path, "://" in path
        if self.far:
            found = listed(spelled(path))
            self._urls, self.sizes = [url for url, _, _ in found], [size for _, size, _ in found]
            self.names = [shown(url) for url in self._urls]
            self.marks = ["\n".join(map(str, one)) for one in found]
            self.folder = home(path)
            self._kept_as = [_kept_as(name, mark) for name, mark in zip(self.names, self.marks)]
            facts = {name: {"size": size, "sha256": None} for name, size in zip(self._kept_as, self.sizes)}
            self._kept = Kept(dict(zip(self._kept_as, self._urls)), self.folder, facts, cache, False)
            fit = cache // max(self.sizes, default=1) if self.sizes else 0
            if sum(self.sizes) > cache:
                if fit < AHEAD + 2:
                    raise DataError(
                        f"data.cache: holds {fit} of the largest files of {shown(path)}, and {AHEAD + 2} are needed"
                    )
                group = min(group or GROUP, fit - AHEAD - 1)
        else:
            self.names = [str(file) for file in self._here(path, endings)]
            try:
                stats = [Path(name).stat() for name in self.names]
                self.sizes = [stat.st_size for stat in stats]
                self.marks = [f"{name}\n{stat.st_size}\n{stat.st_mtime_ns}" for name, stat in zip(self.names, stats)]
                """Of each file, what changes when it does."""
            except FileNotFoundError as error:
                raise DataError(f"{error.filename}: there is no such file or folder") from None
        if not self.names:
            raise DataError(f"{shown(path)}: there are no files that end in {' or '.join(endings)}")
        self.group = group
        """How many files are to be read at a time; None: all, in any order."""

    def _here(self, path: str, endings: Collection[str]) -> list[Path]:
        place = Path(path).expanduser()
        if place.is_dir():
            return list_files(place, endings)
        if place.exists() or not is_pattern(path):
            if not place.exists():
                raise DataError(f"{place}: there is no such file or folder")
            return [place]
        found = []
        for one in spelled(str(place)):
            found += sorted(glob.glob(one)) if glob.has_magic(one) else [one]
        return [Path(one) for one in found]

    def __len__(self) -> int:
        return len(self.names)

    def used(self, number: int, use: Callable[[Path], T]) -> T:
        """What `use` makes of a file."""
        return self._kept.used(self._kept_as[number], use) if self.far else use(Path(self.names[number]))

    def look(self, number: int, use: Callable[[Any], T]) -> T:
        """What `use` makes of a file or, elsewhere, of one opened there: only what is asked of it comes."""
        if not self.far:
            return use(Path(self.names[number]))

        def looked() -> T:
            with opened(self._urls[number]) as file:
                return use(file)

        return tried(self._urls[number], looked)

    def beside(self, number: int, ending: str, largest: int) -> bytes | None:
        """The file beside one elsewhere, named as that with an ending, if there is one of so many bytes at most."""
        url = self._urls[number]
        if "?" in url.rpartition("/")[2]:
            return None  # a signed URL is that of one file
        with suppress(Exception):  # each file system has errors of its own
            return small(url + ending, largest)
        return None

    def known(self, number: int, sha256: str) -> None:
        """What the SHA-256 of a file elsewhere is: it is checked when it comes."""
        self._kept.files[self._kept_as[number]]["sha256"] = sha256

    def ahead(self, numbers: Sequence[int]) -> None:
        """Some files will be used next."""
        if self.far:
            self._kept.ahead([self._kept_as[number] for number in numbers])

    @cached_property
    def files(self) -> list[Path]:
        """The files, for the data hash; of those elsewhere a list of their names and sizes, and what changes with them."""
        if not self.far:
            return [Path(name) for name in self.names]
        told = json.dumps([self.names, self.sizes, [mark.rpartition("\n")[2] for mark in self.marks]])
        path = self.folder / "lists" / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"
        with usable(path.parent):
            if not path.is_file() or path.read_text(encoding="utf-8") != told:
                write_atomic(path, told)
        return [path]


def _kept_as(name: str, mark: str) -> str:
    """The name under which a file is kept: another one when it changes."""
    tail = re.sub(r"[^\w.-]", "_", name.rpartition("/")[2], flags=re.ASCII)[-80:]
    return f"{hashlib.sha256(mark.encode()).hexdigest()[:24]}-{tail}"


class Pieces(Source):
    """A source whose samples lie in several such files, one after the other."""

    class Config(Source.Config):
        cache: int = Field(default=CACHE, ge=1)
        """Bytes of files at a URL that are kept here; those not used for longest go."""
        group: int | None = Field(default=None, ge=1, le=100_000)
        """So many files are read and shuffled together at a time. By default all; of files at a URL that do not fit into `cache`,
        16, or as many as fit. The order depends on it, and on the seed."""

    patterns: ClassVar[bool] = True

    def __init__(self, config: Any):
        super().__init__(config)
        if not config.path:
            raise DataError(f"data.path: the {self.kind} source needs a file or folder, a pattern or a URL to read")
        self._said = shown(config.path)
        self._raw = Raw(config.path, self.suffixes, config.cache, config.group)
        self._file_starts: list[int] = [0]
        """Where the samples of each file begin, and the end of the last."""

    @cached_property
    def shelves(self) -> Shelves | None:
        if self._raw.group is None:
            return None
        return Shelves(np.minimum(self._file_starts, len(self)), self._raw.group, self._raw.ahead)

    def at_hand(self, indices: Sequence[int]) -> int:
        """Those of the first file, where files are brought from elsewhere."""
        if not self._raw.far or not len(indices):
            return len(indices)
        number = bisect_right(self._file_starts, indices[0]) - 1
        return int(np.searchsorted(as_array(indices), self._file_starts[number + 1]))

    def _places(self, number: int) -> np.ndarray:
        """Of each sample of a file, seed_of("held out", its key), or NOWHERE, int64: told once and kept, where files are not all here."""
        raise NotImplementedError

    def split(self) -> tuple[Sequence[int], Sequence[int]]:
        """As other sources do it, but nothing is read again where few files are to be read at a time."""
        if self._raw.group is None or self.config.split is not None:
            return super().split()
        places = np.concatenate([self._places(number) for number in range(len(self._file_starts) - 1)])[: len(self)]
        readable, held = places < NOWHERE, places / 2**63 < self.config.held_out
        if readable.any() and not held.any():
            held = places == places.min()
        if (held == readable).all():
            held = held & (places != places[readable].max(initial=0))
        return packed(np.flatnonzero(~held)), packed(np.flatnonzero(held))

    def files(self) -> list[Path]:
        return self._raw.files
