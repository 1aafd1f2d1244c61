"""Constant, then a linear fall over the last part of the run (warm-up, stable, decay).

    factor = 1 until progress 1 - decay, then linearly to the floor

Hu 2024 (MiniCPM), arXiv:2404.06395 section 4; Haegele 2024, arXiv:2405.18392. A run can be prolonged from its stable part.
"""

from __future__ import annotations

from pydantic import Field

from sevenfold.training.schedule import Schedule


class ConstantDecay(Schedule):
    class Config(Schedule.Config):
        decay: float = Field(0.2, gt=0, le=1)
        """The share of the run over which it falls."""

    def shape(self, progress: float) -> float:
        return min(1.0, (1 - progress) / self.config.decay)
