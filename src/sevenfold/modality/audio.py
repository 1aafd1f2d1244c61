"""Sound: an array [samples] in -1…1, one channel, becomes frames or samples along the axis `time`.

By default frames of 80 bands (`log_mel`, as in Whisper), which must have the rate of the source; `mu_law` gives an id a
sample (WaveNet).
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from typing import Any

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization.mu_law import sound
from sevenfold.core import part
from sevenfold.core.errors import DataError
from sevenfold.data.source.audio import RATE, read_sound
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._drawn import curves, sparks
from sevenfold.modality._features import Features
from sevenfold.modality._strings import spread

POINTS = 320
"""Columns of a sound that is drawn."""


class Audio(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("log_mel")
        """How raw items become tokens."""

    axes = ("time",)

    @property
    def rate(self) -> int:
        """Samples a second, for files and for what is typed: the tokenizer's, or the source's default."""
        return int(getattr(self.tokenizer.config, "rate", RATE))

    def check(self, raw: Any) -> np.ndarray:
        """[T] float32 in -1…1, from an array of floats or int16."""
        return sound(raw)

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        if not raws:
            return {"items": 0}
        found = [self.check(raw) for raw in raws]
        silent = sum(not samples.any() for samples in found)
        return {
            "items": len(found),
            "seconds, least / median / most": spread([round(len(samples) / self.rate, 3) for samples in found]),
            "loudest sample, least / median / most": spread([round(float(np.abs(s).max()), 3) for s in found]),
            **({"silent": silent} if silent else {}),
        }

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """Mean and deviation over time of the log power in 32 bands of frequency, and the length."""
        return (Features("spectrum", lambda raws: np.stack([_spectrum(raw) for raw in raws]), "each"),)

    def html(self, raw: Any) -> str:
        """The outline of the sound: the least and the largest sample of each moment."""
        outline = _outline(np.nan_to_num(np.asarray(raw, np.float64)))
        return curves(outline.reshape(-1, 1), f"sound of {len(np.asarray(raw)) / self.rate:.2f} seconds")

    def plain(self, raw: Any) -> str:
        """Loudness over time, as blocks."""
        outline = _outline(np.nan_to_num(np.asarray(raw, np.float64)))
        return sparks(outline[:, 1] - outline[:, 0])

    def file(self, raw: Any) -> tuple[str, bytes]:
        """(".wav", 16 bits at the rate)."""
        samples, file = np.nan_to_num(np.asarray(raw, np.float64)).clip(-1, 1), io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(self.rate)
            out.writeframes((samples * 32767).round().astype("<i2").tobytes())
        return ".wav", file.getvalue()

    def typed(self, text: str) -> np.ndarray:
        """The sound in the file of that name, at the rate of the tokenizer."""
        try:
            return self.check(read_sound(text, self.rate))
        except DataError as error:
            raise ValueError(str(error)) from None

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, np.ndarray]:
        """Half as loud, one millisecond later, noise 40 dB below."""
        samples = self.check(raw)
        late = max(1, self.rate // 1000)
        level = 0.01 * float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
        noise = draw.normal(0, level or 1e-4, len(samples))
        return {
            "half as loud": samples / 2,
            "one millisecond later": np.concatenate([np.zeros(late, np.float32), samples])[: len(samples)],
            "noise 40 dB below": (samples + noise).clip(-1, 1).astype(np.float32),
        }

    def error(self, raw: Any, back: Any) -> float:
        """Root mean square of the difference over that of the sound, sample by sample. A sound whose phases were guessed
        is far from its own by this measure, however alike it sounds."""
        samples, other = self.check(raw).astype(np.float64), np.asarray(back, np.float64)
        length = max(len(samples), len(other))
        away = np.pad(samples, (0, length - len(samples))) - np.pad(other, (0, length - len(other)))
        return float(np.sqrt(np.mean(away**2)) / (np.sqrt(np.mean(samples**2)) or 1.0))

    error_unit = "root mean square, of the sound's"

    def augmentation(self) -> Augmentation:
        """A piece of most of it, louder or quieter, with noise; pieces are shorter."""
        change = {"kind": "gain", "factor": (0.5, 1.5)}, {"kind": "noise", "deviation": 0.05}
        return Augmentation(
            ({"kind": "crop", "share": (0.7, 1.0)}, *change), ({"kind": "crop", "share": (0.2, 0.5)}, *change)
        )

    def within(self, raw: Any) -> np.ndarray:
        """Samples in -1…1: what is louder is cut off."""
        return raw.clip(-1, 1)

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """Frames of 40 bands, four to a token; hidden ones are rebuilt from the visible."""
        lengths = [len(sound(raw)) for raw in raws]
        if not lengths:
            return None
        tokens = max(1.0, float(np.median(lengths)) / RATE / 0.04)
        tower = {"inputs": [name], "position": "rotary"}
        return Suggestion(
            stream={
                "kind": "audio",
                "tokenizer": {"kind": "log_mel", "rate": RATE, "mels": 40, "stack": 4},
            },
            trunks={"enc": {**tower, "class_token": True}, "dec": {**tower, "inputs": ["enc"]}},
            objective={"kind": "mae", "ratio": 0.6},
            train={"batch": 64},
            tokens=tokens,
            why=[
                f"{name}: a token is 40 ms of sound in 40 bands, about {tokens:.0f} tokens an item",
                f"{name}: hidden tokens are rebuilt from the visible ones, which needs no labels",
            ],
            tower={**tower, "block": {"dropout": 0.1}},
        )


def _outline(samples: np.ndarray) -> np.ndarray:
    """[n 2]: the least and the largest sample of each of at most 320 equal parts."""
    parts = np.array_split(samples, min(POINTS, max(1, len(samples))))
    return np.array([(part.min(), part.max()) if len(part) else (0.0, 0.0) for part in parts])


def _spectrum(samples: np.ndarray) -> np.ndarray:
    """[65]: of windows of 256 samples, 32 bands of the same number of frequencies."""
    padded = np.pad(samples.astype(np.float64), (0, max(256 - len(samples), 0)))
    windows = padded[: len(padded) // 256 * 256].reshape(-1, 256) * np.hanning(256)
    power = (np.abs(np.fft.rfft(windows)[:, 1:]) ** 2).reshape(len(windows), 32, 4).sum(2)
    bands = np.log(power + 1e-8)
    return np.concatenate([bands.mean(0), bands.std(0), [np.log(len(samples))]]).astype(np.float32)
