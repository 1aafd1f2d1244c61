"""Learning-rate schedules: a factor that is a pure function of the step, so there is nothing to restore."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sevenfold.core import part


class Schedule(part.Part):
    room = "schedule"

    class Config(part.Config):
        warmup: int | float = Field(0.02, ge=0)
        """Steps of linear rise from 0: a number of steps (an int), or a share of the run (below 1)."""
        floor: float = Field(0.0, ge=0, le=1)
        """The factor at the end."""

    def __init__(self, config: Any):
        self.config = config

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by at `step` (0-based) of `steps`."""
        warmup = self.config.warmup
        rise = round(warmup * steps) if isinstance(warmup, float) and warmup < 1 else int(warmup)
        if step < rise:
            return (step + 1) / (rise + 1)
        progress = (step - rise) / max(steps - rise, 1)
        return self.config.floor + (1 - self.config.floor) * self.shape(min(progress, 1.0))

    def shape(self, progress: float) -> float:
        """From 1 at progress 0 to 0 at progress 1."""
        raise NotImplementedError
