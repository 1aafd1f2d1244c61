"""Several sources as one, each with its share of what is trained on.

    data:
      kind: mix
      temperature: 2
      sources:
        books: {source: {kind: shards, path: books/}}
        code:  {source: {kind: jsonl, path: code.jsonl}}

    share_i = w_i^(1/temperature) / sum_j w_j^(1/temperature),   w_i by default how much there is of source i

Sizes with a temperature: Arivazhagan et al. 2019, arXiv:1907.05019 sec. 3.3; mT5, arXiv:2010.11934 sec. 3.1. An epoch has as many
items as all sources together; a source with a larger share than its size is passed through more than once, one with a smaller
share goes on in the next epoch where it stopped. Held-out samples are those of every source, each once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from sevenfold.core import part
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.part import find
from sevenfold.data.arranged import Shelves, nobody, together
from sevenfold.data.line import Line
from sevenfold.data.numbers import joined, moved, within
from sevenfold.data.source import Ingredient, Prepared, Sample, Source


class Weighed(part.Config):
    """A source of a mixture."""

    source: Source.Config
    """Where its samples come from."""
    weight: float | None = Field(None, gt=0, lt=1e12)
    """How much it counts beside the others: of all or of none. By default how many items (windows, rows) there are of it."""


class Mix(Source):
    """The samples of each source, one source after the other."""

    class Config(Source.Config):
        sources: dict[str, Weighed] = Field({}, max_length=1000)
        """Name → source. Each holds out its own samples."""
        temperature: float = Field(1.0, gt=0, le=1e6)
        """1: shares as weights say; the higher, the more alike the shares."""

        @field_validator("sources")
        @classmethod
        def _flat(cls, sources: dict[str, Weighed]) -> dict[str, Weighed]:
            for name, one in sources.items():
                if isinstance(one.source, Mix.Config):
                    raise ValueError(f"{name} is a mixture itself: name its sources here")
            if len({one.weight is None for one in sources.values()}) > 1:
                raise ValueError("some have a weight and some have none: give one to each, or to none")
            return sources

    def __init__(self, config: Any):
        super().__init__(config)
        if not config.sources:
            raise DataError("data.sources: a mixture names its sources: {books: {source: {kind: text, path: books/}}}")
        for field in ("held_out", "labelled", "split", "partly"):
            if getattr(config, field) != type(config).model_fields[field].default:
                raise DataError(f"data.{field}: each source of a mixture has its own: data.sources.NAME.source.{field}")
        self.names = list(config.sources)
        built = [one.source.build() for one in config.sources.values()]
        if config.limit is not None and sum(map(len, built)) > config.limit:
            whole, ends = sum(map(len, built)), list(accumulate(map(len, built), initial=0))
            cuts = [-(-end * config.limit // whole) for end in ends]
            some = [(name, one, b - a) for name, one, a, b in zip(self.names, built, cuts, cuts[1:]) if b > a]
            self.names = [name for name, _, _ in some]
            built = [one.config.replace(limit=count).build() for _, one, count in some]
        self.sources: list[Source] = built
        self.ends = list(accumulate(map(len, built), initial=0))
        for name, one in zip(self.names, built):
            for field, kind in one.fields.items():
                if self._fields.setdefault(field, kind) != kind:
                    raise DataError(
                        f"data.sources.{name}: its field {field!r} is {kind}, and {self._fields[field]} in another"
                    )
            self._notes += [f"{name}: {line}" for line in one.notes]
        self._same_tokens()

    def _same_tokens(self) -> None:
        """DataError if two sources hold tokens of different tokenizers."""
        first: tuple[str, Any, Any] | None = None
        for name, one in zip(self.names, self.sources):
            if one.prepared is None:
                continue
            files = {path.name: path.read_bytes() for path in sorted(one.prepared.tokenizer.iterdir())}
            first = first or (name, one.prepared[:2], files)
            if (one.prepared[:2], files) != first[1:]:
                raise DataError(
                    f"data.sources.{name}: its tokens are of another tokenizer than those of {first[0]}: prepare it again with "
                    "--like, which takes the tokenizer of a folder"
                )

    @classmethod
    def example(cls, folder: Path) -> Any:
        jsonl = find("source", "jsonl")
        sources = {}
        for name, weight in (("one", 1.0), ("other", 3.0)):
            (folder / name).mkdir()
            sources[name] = Weighed(source=jsonl.example(folder / name), weight=weight)
        return cls.Config(sources=sources)

    @classmethod
    def told(cls, settings: Mapping[str, Any]) -> Prepared | None:
        sources = settings.get("sources")
        for one in sources.values() if isinstance(sources, dict) else ():
            given = one.get("source") if isinstance(one, dict) else None
            kind = given.get("kind") if isinstance(given, dict) else None
            try:
                found = find("source", kind).told(given) if isinstance(kind, str) and kind != cls.kind else None
            except (ConfigError, ImportError):
                continue  # said with its place when the recipe is decoded
            if found is not None:
                return found
        return None

    @property
    def prepared(self) -> Prepared | None:
        return next((one.prepared for one in self.sources if one.prepared is not None), None)

    @property
    def ingredients(self) -> list[Ingredient]:
        weights = [self.config.sources[name].weight for name in self.names]
        return [
            Ingredient(name, range(start, stop), weight, self.config.temperature)
            for name, start, stop, weight in zip(self.names, self.ends, self.ends[1:], weights)
        ]

    def _of(self, index: int) -> tuple[int, int]:
        """(which source, the number there)."""
        number = bisect_right(self.ends, index) - 1
        return number, index - self.ends[number]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Sample:
        number, own = self._of(index)
        return self.sources[number][own]

    def where(self, index: int) -> str:
        number, own = self._of(index)
        return self.sources[number].where(own)

    def follows(self, index: int) -> bool:
        number, own = self._of(index)
        return own > 0 and self.sources[number].follows(own)

    def key(self, index: int) -> str:
        number, own = self._of(index)
        return self.sources[number].key(own)

    def split(self) -> tuple[Sequence[int], Sequence[int]]:
        sides = [one.split() for one in self.sources]
        train, held_out = (
            joined([moved(both[side], start) for start, both in zip(self.ends, sides)]) for side in (0, 1)
        )
        return train, held_out

    def test(self) -> list[int]:
        return [start + index for start, one in zip(self.ends, self.sources) for index in one.test()]

    @cached_property
    def lacking(self) -> dict[str, frozenset[int]]:
        found: dict[str, frozenset[int]] = {}
        for start, one in zip(self.ends, self.sources):
            for field, indices in one.lacking.items():
                found[field] = found.get(field, frozenset()) | {start + index for index in indices}
        return found

    def line(self, indices: Sequence[int]) -> Line | None:
        if not len(indices):
            return None
        number, _ = self._of(indices[0])
        start, stop = self.ends[number], self.ends[number + 1]
        if not start <= indices[-1] < stop:
            return None
        return self.sources[number].line(moved(indices, -start))

    @cached_property
    def shelves(self) -> Shelves | None:
        """Those of its sources; one that has none is one part."""
        each = [one.shelves for one in self.sources]
        known = [shelves for shelves in each if shelves is not None]
        if not known:
            return None
        most = max(shelves.group for shelves in known)
        alone = [Shelves(np.array([0, b - a]), most, nobody) for a, b in zip(self.ends, self.ends[1:])]
        return together([one if one is not None else other for one, other in zip(each, alone)])

    def at_hand(self, indices: Sequence[int]) -> int:
        found = 0
        for start, stop, one in zip(self.ends, self.ends[1:], self.sources):
            own = moved(within(indices, range(start, stop)), -start)
            here = one.at_hand(own)
            found += here
            if here < len(own):
                break
        return found

    def files(self) -> list[Path]:
        return [file for one in self.sources for file in one.files()]
