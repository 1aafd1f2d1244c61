"""Sound as ids: each sample in -1...1, companded so that quiet ones keep detail, is one of 256.

    F(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu),   id = floor((F(x) + 1) / 2 * mu + 1/2),   mu = 255

The companding of ITU-T G.711 (1988, itu.int/rec/T-REC-G.711) in its closed form; van den Oord 2016 (WaveNet),
arXiv:1609.03499 section 2.2. Then pad, bos, eos, mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, line
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens


class MuLaw(Tokenizer):
    """array [T] in -1…1 → ids [T], coords [T 1] (sample); decodes to [T] float32, within 2.2 % of a sample's size + 0.0001."""

    class Config(Tokenizer.Config):
        levels: int = Field(256, ge=2, le=65536)
        """mu + 1, how many ids stand for sound."""

    lossless = False
    variants = ({"levels": 16},)

    def __init__(self, config: Any):
        super().__init__(config)
        self.specials = {name: config.levels + place for place, name in enumerate(("pad", "bos", "eos", "mask"))}
        self.size = config.levels + len(self.specials)

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        return sounds(seed)

    def encode(self, raw: Any) -> Tokens:
        samples, mu = sound(raw), self.config.levels - 1
        size = np.log1p(mu * np.abs(samples)) * np.float32(1 / np.log1p(mu))
        return Tokens(np.floor((np.copysign(size, samples) + 1) * (mu / 2) + 0.5).astype(np.int64), line(len(samples)))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        ids, mu = np.asarray(values).reshape(-1), self.config.levels - 1
        place = ids[(ids >= 0) & (ids <= mu)] * (2 / mu) - 1
        return (np.sign(place) * np.expm1(np.abs(place) * np.log1p(mu)) / mu).astype(np.float32)

    def spans(self, raw: Any) -> np.ndarray:
        begin = np.arange(len(sound(raw)))
        return np.stack([begin, begin + 1], axis=1)

    def piece(self, id: int) -> str:
        return f"{self.decode(np.array([id]))[0]:.3g}" if 0 <= id < self.config.levels else super().piece(id)


def sound(raw: Any) -> np.ndarray:
    """A sound as [T] float32 in -1…1, from an array of floats or of int16, one channel.

    Raises ValueError, one line: not an array, empty, several channels, out of range or not finite.
    """
    if not isinstance(raw, np.ndarray):
        raise ValueError(f"a sound is an array [samples], not {type(raw).__name__}")
    flat = raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
    if flat.ndim != 1:
        raise ValueError(f"a sound is an array [samples] of one channel, not {list(raw.shape)}: mix or choose one")
    if flat.size == 0:
        raise ValueError("the sound is empty: it has no samples")
    if flat.dtype == np.int16:
        return flat.astype(np.float32) / 32768
    if flat.dtype.kind != "f":
        raise ValueError(f"a sound holds floats in -1...1 or int16, not {flat.dtype}")
    if not (flat.min() >= -1 and flat.max() <= 1):
        raise ValueError(f"a sound of floats is in -1...1, not {flat.min():g}...{flat.max():g}: rescale it")
    return np.asarray(flat, np.float32)


def sounds(seed: int = 0, count: int = 10, length: int = 3200) -> list[np.ndarray]:
    """Tones that rise or fall, with a little noise, [T] float32 in -0.9…0.9."""
    draw = numpy_generator("sounds", seed)
    found = []
    for index in range(count):
        time = np.arange(int(draw.integers(length // 2, length + 1)))
        low, high = sorted(draw.uniform(0.05, 0.6, 2))
        pitch = np.linspace(*((low, high) if index % 2 else (high, low)), len(time))
        tone = draw.uniform(0.3, 0.85) * np.sin(pitch.cumsum() + draw.uniform(0, 6))
        found.append((tone + draw.uniform(-0.02, 0.02, len(time))).astype(np.float32))
    return found
