"""Half a cosine from the peak to the floor.

    factor = floor + (1 - floor) (1 + cos(pi progress)) / 2

Loshchilov and Hutter 2016, arXiv:1608.03983. GPT-3, Llama.
"""

from __future__ import annotations

import math

from sevenfold.training.schedule import Schedule


class Cosine(Schedule):
    class Config(Schedule.Config):
        pass

    def shape(self, progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * progress))
