"""Sound as overlapping windows of frames: what two convolutions over log-mel frames look at, token by token.

    token t = [f_j, i_j]  for j = s t - c … s t + c,   f_j the frame of log_mel, i_j = 1;   0, 0 where there is no frame j

s = 2 and c = 2 are the reach of a convolution over three frames and then one over three of those with stride 2, as they
stand in front of Whisper, arXiv:2212.04356 section 2.2; the projection `conv_stem` computes them. As there, a sound may be
made of one length: cut, or continued with silence. Decoding is log_mel's, from the frames that a token begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import line
from sevenfold.blocks.tokenization.log_mel import LogMel
from sevenfold.blocks.tokenization.mu_law import sound
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Tokens


class MelWindow(LogMel):
    """array [T] in -1…1 at `rate` → vectors [n (2 context + 1)(mels + 1)] float32, coords [n 1]; decodes to [T'] float32."""

    class Config(LogMel.Config):
        stack: int = Field(2, ge=1, le=1024)
        """Frames from one token to the next, s."""
        context: int = Field(2, ge=0, le=1024)
        """Frames on either side of a token's first, c; at least stack - 1."""
        frames: int | None = Field(None, ge=1, le=1 << 22)
        """Frames of every item: longer sounds are cut, shorter ones end in silence. By default as many as the sound has."""

    variants = ({"rate": 8000, "mels": 20, "stack": 3, "context": 3, "frames": 31},)

    def __init__(self, config: Any):
        super().__init__(config)
        if config.context < config.stack - 1:
            raise ConfigError(
                f"tokenizer.context: {config.context} frames around every {config.stack}th leave some out: raise it to "
                f"{config.stack - 1}"
            )
        self.features = (2 * config.context + 1) * (config.mels + 1)

    def encode(self, raw: Any) -> Tokens:
        samples = sound(raw)
        if self.config.frames is not None:
            length = self.config.frames * self.hop
            samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
        values = self.windows(self.frames(samples))
        return Tokens(values, line(len(values)))

    def windows(self, frames: np.ndarray) -> np.ndarray:
        """Frames [f mels] → tokens [n features] float32."""
        around = self.config.context
        inside = np.concatenate([frames, np.ones((len(frames), 1), frames.dtype)], axis=1)
        padded = np.pad(inside, ((around, around), (0, 0)))
        first = np.arange(0, len(frames), self.config.stack)
        return padded[first[:, None] + np.arange(2 * around + 1)].reshape(len(first), -1).astype(np.float32)

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        around, stack = self.config.context, self.config.stack
        tokens = np.asarray(values).reshape(-1, 2 * around + 1, self.config.mels + 1)
        own = tokens[:, around : around + stack].reshape(-1, self.config.mels + 1)
        return super().decode(own[own[:, -1] > 0.5, :-1])

    def spans(self, raw: Any) -> np.ndarray:
        length, step = len(sound(raw)), self.hop * self.config.stack
        begin = np.arange(self._count(length)) * step
        return np.minimum(np.stack([begin, begin + step], axis=1), length)

    def _count(self, length: int) -> int:
        """Tokens of so many samples."""
        return -(-(self.config.frames or max(1, length // self.hop)) // self.config.stack)

    def layout(self) -> np.ndarray | None:
        return None if self.config.frames is None else line(self._count(0))
