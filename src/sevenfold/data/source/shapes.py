"""Generated point clouds of four shapes, turned at random about z: nothing to download.

    ball, box, ring, cone        points on the surface, of side about 2, with noise

For first steps with point clouds, as `digits` is with pictures. Ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source

NAMES = ("ball", "box", "ring", "cone")


class Shapes(Source):
    """Samples are {"points": float32 [n 3], "label": the shape}."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are generated."""
        samples: int = Field(1024, ge=3, le=1_000_000)
        """How many clouds."""
        size: int = Field(256, ge=4, le=1_000_000)
        """Points of each."""
        noise: float = Field(0.02, ge=0)
        """Standard deviation of each coordinate about the surface."""
        seed: int = Field(0, ge=0)
        """Of all of it."""

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config(samples=40, size=32)

    @property
    def fields(self) -> dict[str, str]:
        return {"points": "points", "label": "label"}

    def __len__(self) -> int:
        return min(self.config.samples, self.config.limit or self.config.samples)

    def __getitem__(self, index: int) -> Sample:
        draw = numpy_generator("shapes", self.config.seed, index)
        name, count = NAMES[int(draw.integers(len(NAMES)))], self.config.size
        way = draw.standard_normal((count, 3))
        angle, height = draw.uniform(0, 2 * np.pi, count), np.sqrt(draw.uniform(0, 1, count))
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        if name == "ball":
            points = way / np.linalg.norm(way, axis=1, keepdims=True)
        elif name == "box":
            points = draw.uniform(-1, 1, (count, 3))
            points[np.arange(count), draw.integers(3, size=count)] = draw.choice([-1.0, 1.0], count)
        elif name == "ring":
            tube = draw.uniform(0, 2 * np.pi, count)
            points = np.concatenate([circle * (1 + 0.3 * np.cos(tube))[:, None], 0.3 * np.sin(tube)[:, None]], axis=1)
        else:
            points = np.concatenate([circle * height[:, None], 1 - 2 * height[:, None]], axis=1)
        turn = draw.uniform(0, 2 * np.pi)
        about = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        points = points @ about * draw.uniform(0.8, 1.2) + draw.normal(0, self.config.noise, (count, 3))
        return {"points": points.astype(np.float32), "label": name}

    def where(self, index: int) -> str:
        return f"generated cloud {index}"

    def files(self) -> list[Path]:
        return []
