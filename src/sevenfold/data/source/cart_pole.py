"""Generated episodes of a pole balanced on a cart, what is seen and what is done in one row a step: nothing to download.

    a = [k . (x, v, theta, omega) + noise > 0]        force = ±10 N        x, v, theta, omega advance by 0.02 s (Euler)
    acceleration of theta = (g sin theta - cos theta (F + m l omega^2 sin theta) / M) / (l (4/3 - m cos^2 theta / M))
    acceleration of x     = (F + m l (omega^2 sin theta - acceleration of theta cos theta)) / M

with m = 0.1 kg, M = 1.1 kg, l = 0.5 m. Barto, Sutton and Anderson 1983, doi:10.1109/TSMC.1983.6313077 (appendix, without
friction); the push is a linear feedback, as in classic control. For first steps with actions, as `digits` is with pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source

GRAVITY, POLE, TOTAL, HALF, FORCE, STEP = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
FEEDBACK = np.array([0.5, 1.0, 12.0, 3.0])
"""How much x, v, theta and omega push to the right."""


class CartPole(Source):
    """Samples are {"actions": float64 [T 5]: x in m, v in m/s, theta in rad, omega in rad/s, and 0 left or 1 right}."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are generated."""
        samples: int = Field(1024, ge=3, le=1_000_000)
        """How many episodes."""
        size: int = Field(32, ge=2, le=100_000)
        """Steps of each."""
        noise: float = Field(0.2, ge=0)
        """Standard deviation of what is added to the feedback: how often it errs."""
        seed: int = Field(0, ge=0)
        """Of all of it."""

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config(samples=24, size=12)

    @property
    def fields(self) -> dict[str, str]:
        return {"actions": "actions"}

    def __len__(self) -> int:
        return min(self.config.samples, self.config.limit or self.config.samples)

    def __getitem__(self, index: int) -> Sample:
        draw = numpy_generator("cart_pole", self.config.seed, range(len(self))[index])
        state = draw.uniform(-0.2, 0.2, 4)
        errs = draw.normal(0, self.config.noise, self.config.size)
        rows = np.empty((self.config.size, 5))
        for row, err in zip(rows, errs):
            push = float(FEEDBACK @ state + err > 0)
            row[:4], row[4] = state, push
            state = state + STEP * pace(state, FORCE * (2 * push - 1))
        return {"actions": rows}

    def where(self, index: int) -> str:
        return f"generated episode {index}"

    def files(self) -> list[Path]:
        return []


def pace(state: np.ndarray, force: float) -> np.ndarray:
    """How fast x, v, theta and omega change under a force in N: [4], a second."""
    _, speed, angle, turning = state
    sine, cosine = np.sin(angle), np.cos(angle)
    thrust = (force + POLE * HALF * turning**2 * sine) / TOTAL
    bend = (GRAVITY * sine - cosine * thrust) / (HALF * (4 / 3 - POLE * cosine**2 / TOTAL))
    return np.array([speed, thrust - POLE * HALF * bend * cosine / TOTAL, turning, bend])
