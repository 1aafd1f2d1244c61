"""Generated waves of four shapes, as time series or as sounds: nothing to download.

    x_t = a f(t / period + phase) + noise        f: sine, square, saw, chirp (a sine that quickens)

For first steps with series and sounds, as `digits` is with pictures. Ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source

NAMES = ("sine", "square", "saw", "chirp")


class Waves(Source):
    """Samples are {"series": float32 [T]} or {"audio": float32 [T] in -1…1}, and "label": the shape."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are generated."""
        field: Literal["series", "audio"] = "series"
        """What the samples are called and taken for."""
        samples: int = Field(1024, ge=3, le=1_000_000)
        """How many waves."""
        size: int = Field(256, ge=2, le=10_000_000)
        """Time steps of each."""
        least: float = Field(12.0, gt=0)
        """The shortest period, in time steps."""
        most: float = Field(48.0, gt=0)
        """The longest."""
        noise: float = Field(0.05, ge=0)
        """Standard deviation of the noise, as a share of the wave's size."""
        seed: int = Field(0, ge=0)
        """Of all of it."""

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config(samples=40, size=48)

    @property
    def fields(self) -> dict[str, str]:
        return {self.config.field: self.config.field, "label": "label"}

    def __len__(self) -> int:
        return min(self.config.samples, self.config.limit or self.config.samples)

    def __getitem__(self, index: int) -> Sample:
        draw = numpy_generator("waves", self.config.seed, index)
        name, time = NAMES[int(draw.integers(len(NAMES)))], np.arange(self.config.size)
        turns = time / draw.uniform(self.config.least, self.config.most) + draw.random()
        if name == "chirp":
            turns = turns * (0.5 + time / self.config.size)
        wave = np.sin(2 * np.pi * turns)
        if name == "square":
            wave = np.sign(wave)
        elif name == "saw":
            wave = 2 * (turns % 1) - 1
        noisy = (wave + draw.normal(0, self.config.noise, self.config.size)) * draw.uniform(0.3, 0.8)
        return {self.config.field: noisy.clip(-1, 1).astype(np.float32), "label": name}

    def where(self, index: int) -> str:
        return f"generated wave {index}"

    def files(self) -> list[Path]:
        return []
