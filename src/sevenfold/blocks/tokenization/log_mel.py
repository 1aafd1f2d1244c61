"""Sound as frames: the logarithm of its power in bands that are spaced as pitch is heard.

    P = M |STFT(x)|^2,   l = log10 max(P, 1e-10),   z = (max(l, max l - range/10) + 4) / 4          z_t in R^mels

Windows of 25 ms (Hann) every 10 ms, ends reflected, the last frame dropped; M are triangles of equal area on the mel scale
of Slaney (1998): linear to 1 kHz, logarithmic above. Radford 2022 (Whisper), arXiv:2212.04356 section 2.2, 80 bands at
16 kHz; also the input of AST and Audio-MAE.

Phases are gone, so decoding is a guess: the least-squares spectrum of the bands, and phases by Griffin and Lim 1984,
doi:10.1109/TASSP.1984.1164317. It can be listened to, and its frames are near those that it came from, not equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, line
from sevenfold.blocks.tokenization.mu_law import sound, sounds
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

FLOOR = 1e-10


class LogMel(Tokenizer):
    """array [T] in -1…1 at `rate` → vectors [n mels*stack] float32, coords [n 1]; decodes to [T'] float32 in -1…1."""

    class Config(Tokenizer.Config):
        rate: int = Field(16000, ge=100, le=384_000)
        """Samples a second; the source must give sounds at this rate (its own `rate`)."""
        mels: int = Field(80, ge=1, le=1024)
        """Bands."""
        window: float = Field(0.025, gt=0, le=10)
        """Seconds of a window."""
        hop: float = Field(0.01, gt=0, le=10)
        """Seconds from one window to the next."""
        stack: int = Field(1, ge=1, le=1024)
        """Frames of a token; the last frame is repeated until the last token is full."""
        centre: bool = False
        """Take off each band's mean over the frames: what a microphone, a room and a voice add to all of a sound goes (Atal
        1974, doi:10.1121/1.1914702). A decoded sound is then without it."""
        range: float = Field(80.0, gt=0, le=100)
        """Decibels below the loudest of a sound that are told apart; what is quieter (noise between words) is as quiet as that."""
        rounds: int = Field(16, ge=0, le=1000)
        """Rounds of Griffin and Lim in decoding."""

    lossless = False
    idempotent = False
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {"rate": 8000, "mels": 20, "stack": 4},
        {"rate": 8000, "mels": 20, "centre": True, "range": 40.0},
    )

    def __init__(self, config: Any):
        super().__init__(config)
        self.features = config.mels * config.stack
        self.width, self.hop = (max(1, round(config.rate * seconds)) for seconds in (config.window, config.hop))

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        return sounds(seed)

    @cached_property
    def filters(self) -> np.ndarray:
        """M, [mels width/2+1] float64."""
        return mel_filters(self.config.mels, self.width // 2 + 1, self.config.rate)

    @cached_property
    def _hann(self) -> np.ndarray:
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.width) / self.width)

    def _spectrum(self, samples: np.ndarray, count: int) -> np.ndarray:
        """[count width/2+1] complex, of windows about 0, hop, 2 hop …"""
        side = self.width // 2
        padded = np.pad(samples.astype(np.float64), side, mode="reflect")
        padded = np.pad(padded, (0, max(0, (count - 1) * self.hop + self.width - len(padded))))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.width)[:: self.hop][:count]
        return np.fft.rfft(windows * self._hann, axis=1)

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """z, [n mels] float64, of samples [T]."""
        count = max(1, len(samples) // self.hop)
        power = np.abs(self._spectrum(samples, count)) ** 2
        loud = np.log10(np.maximum(power @ self.filters.T, FLOOR))
        frames = (np.maximum(loud, loud.max() - self.config.range / 10) + 4) / 4
        return frames - frames.mean(axis=0) if self.config.centre else frames

    def encode(self, raw: Any) -> Tokens:
        frames, stack = self.frames(sound(raw)), self.config.stack
        frames = np.concatenate([frames, np.repeat(frames[-1:], -len(frames) % stack, axis=0)])
        return Tokens(frames.reshape(-1, self.config.mels * stack).astype(np.float32), line(len(frames) // stack))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        frames = np.asarray(values, np.float64).reshape(-1, self.config.mels)
        if not len(frames):
            return np.zeros(0, np.float32)
        power = 10 ** np.clip(4 * frames - 4, -10, 6)
        size = np.sqrt(np.maximum(power @ np.linalg.pinv(self.filters).T, 0))
        turn = np.exp(2j * np.pi * numpy_generator("phases").random(size.shape))
        samples = self._overlapped(size * turn)
        for _ in range(self.config.rounds):
            turn = self._spectrum(samples, len(frames))
            samples = self._overlapped(size * turn / np.maximum(np.abs(turn), 1e-12))
        return np.clip(samples, -1, 1).astype(np.float32)

    def _overlapped(self, spectrum: np.ndarray) -> np.ndarray:
        """The sound [count * hop] whose windows are nearest to a spectrum."""
        windows = np.fft.irfft(spectrum, n=self.width, axis=1) * self._hann
        count, side = len(windows), self.width // 2
        total, weight = np.zeros((2, max((count - 1) * self.hop + self.width, count * self.hop + side)))
        for place, window in enumerate(windows):
            part = slice(place * self.hop, place * self.hop + self.width)
            total[part] += window
            weight[part] += self._hann**2
        return (total / np.maximum(weight, 1e-3))[side : side + count * self.hop]

    def spans(self, raw: Any) -> np.ndarray:
        length, step = len(sound(raw)), self.hop * self.config.stack
        begin = np.arange(max(1, -(-(length // self.hop) // self.config.stack))) * step
        return np.stack([begin, np.minimum(begin + step, length)], axis=1)


def mel_filters(mels: int, bins: int, rate: int) -> np.ndarray:
    """Triangles [mels bins] over frequencies 0 … rate/2, each of area 2 over its width in Hz (Slaney's)."""
    linear, step = 200 / 3, np.log(6.4) / 27

    def to_mel(hertz: np.ndarray) -> np.ndarray:
        return np.where(hertz < 1000, hertz / linear, 15 + np.log(np.maximum(hertz, 1000) / 1000) / step)

    def to_hertz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * linear, 1000 * np.exp(step * (np.maximum(mel, 15) - 15)))

    corners = to_hertz(np.linspace(0, float(to_mel(np.array(rate / 2))), mels + 2))
    away = corners[:, None] - np.linspace(0, rate / 2, bins)
    width = np.diff(corners)
    rising, falling = -away[:-2] / width[:-1, None], away[2:] / width[1:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (corners[2:] - corners[:-2]))[:, None]
