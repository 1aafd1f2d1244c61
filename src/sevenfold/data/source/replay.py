"""New data with a share of old: what keeps a model that learns on from forgetting.

    |old samples| = share / (1 - share) |new samples|          chosen by a hash of their number, again and again if need be

Robins 1995, doi:10.1080/09540099550039318. Only new samples are held out; held-out samples of the old data are in neither part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.seeds import seed_of
from sevenfold.data.source import Sample, Source


class Replay(Source):
    """Samples of two sources: the new ones, then those of the old ones that are replayed, with the fields that both have."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: `new` and `old` say where samples are."""
        new: Source.Config | None = None
        """What is learned now."""
        old: Source.Config | None = None
        """What was learned before."""
        share: float = Field(0.2, gt=0, lt=1)
        """The share of old samples among all that are trained on."""

    def __init__(self, config: Any):
        super().__init__(config)
        if config.new is None or config.old is None:
            raise DataError("replay: say what is learned now (new) and what was learned before (old)")
        self._new, self._old = config.new.build(), config.old.build()
        self._fields = {name: kind for name, kind in self._new.fields.items() if self._old.fields.get(name) == kind}
        if not self._fields:
            raise DataError(
                f"replay: old and new data have no field in common: {dict(self._old.fields)}, {dict(self._new.fields)}"
            )
        self._parts = self._new.split()
        seen = {self._new.key(index) for index in self._parts[1]}
        known = sorted(self._old.split()[0], key=lambda index: seed_of("replay", index))
        known = [index for index in known if self._unlike(index, seen)]
        count = max(1, round(config.share / (1 - config.share) * len(self._parts[0])))
        self._chosen = [known[place % len(known)] for place in range(count)] if known else []
        self._size = len(self._new) if config.limit is None else min(len(self._new), config.limit)
        if config.limit is not None:
            self._chosen = self._chosen[: config.limit - self._size]

    @classmethod
    def example(cls, folder: Path) -> Any:
        from sevenfold.data.source.digits import Digits

        return cls.Config(new=Digits.Config(limit=12), old=Digits.Config(limit=40), share=0.25)

    def _unlike(self, index: int, seen: set[str]) -> bool:
        """Whether an old sample can be read, and is none of the new ones that are held out."""
        try:
            return self._old.key(index) not in seen
        except BadSample:
            return False

    def __len__(self) -> int:
        return self._size + len(self._chosen)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        sample = self._new[index] if index < self._size else self._old[self._chosen[index - self._size]]
        return {name: value for name, value in sample.items() if name in self._fields}

    def where(self, index: int) -> str:
        if index < self._size:
            return self._new.where(index)
        return f"{self._old.where(self._chosen[index - self._size])} (replay {index - self._size})"

    def split(self) -> tuple[list[int], list[int]]:
        train, held_out = ([index for index in side if index < self._size] for side in self._parts)
        return [*train, *range(self._size, len(self))], held_out

    def files(self) -> list[Path]:
        return sorted({*self._new.files(), *self._old.files()})
