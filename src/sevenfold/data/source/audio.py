"""Sound files: a folder of .wav (16 bits and others, without any extra), .flac, .ogg, .mp3 (with the `audio` extra).

    sounds/dog/3.wav             the folder's name is the label, if all sounds are in two folders or more
    7_jackson_0.wav              or else what stands before the first _, if it repeats

Channels are averaged, and sounds of another rate are brought to `rate` (scipy.signal.resample_poly). Speech Commands, ESC-50,
the Free Spoken Digit Dataset.
"""

from __future__ import annotations

import math
import wave
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import BadSample, DataError, need_extra
from sevenfold.data.source import Sample, Source, suffix
from sevenfold.data.source._files import check_first, list_files

RATE = 16000
"""Samples a second, where nobody says."""
RATES = 100, 768_000
"""The least and the most samples a second that a file may say it has."""
MOST_SECONDS = 3600.0
MOST_LABELS = 200
MOST_FACTOR = 10_000
"""The filter that changes a rate is 20 times as long as the larger term of the ratio; beyond this the ratio is rounded."""


class Audio(Source):
    """Samples are {"audio": float32 [T] in -1…1 at `rate`}, with "label" where there is one."""

    class Config(Source.Config):
        rate: int = Field(RATE, ge=100, le=384_000)
        """Samples a second of what it gives; the same as the tokenizer's."""
        seconds: float = Field(30.0, gt=0, le=MOST_SECONDS)
        """Longer sounds are cut to this."""

    suffixes = (".wav", ".flac", ".ogg", ".mp3")

    def __init__(self, config: Any):
        super().__init__(config)
        root = self.path
        files = list_files(root, self.suffixes) if root.is_dir() else [root]
        if not files:
            raise DataError(f"{root}: holds no sounds; read are {', '.join(self.suffixes)}")
        self._labels, self._files = _labels(root, files), files[: config.limit]
        check_first(self, root, "sounds")

    @classmethod
    def example(cls, folder: Path) -> Any:
        for count in range(16):
            name, time = ("low", "high")[count % 2], np.arange(800)
            (folder / name).mkdir(exist_ok=True)
            tone = 0.5 * np.sin(time * (0.1 + 0.3 * (count % 2) + 0.005 * count))
            with wave.open(str(folder / name / f"{count}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes((tone * 32767).astype("<i2").tobytes())
        return cls.Config(path=str(folder), rate=8000)

    @classmethod
    def recognises(cls, path: Path) -> float:
        if path.is_dir():
            files = list_files(path)
            return 0.8 if sum(suffix(file) in cls.suffixes for file in files) > len(files) / 3 else 0.0
        return 0.0

    @property
    def fields(self) -> dict[str, str]:
        return {"audio": "audio", **({"label": "label"} if self._labels else {})}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        try:
            samples = read_sound(self._files[index], self.config.rate, self.config.seconds)
        except DataError as error:
            raise BadSample(self.where(index), str(error).removeprefix(f"{self._files[index]}: ")) from None
        return {"audio": samples, **({"label": self._labels[index]} if self._labels else {})}

    def where(self, index: int) -> str:
        return str(self._files[index])

    def files(self) -> list[Path]:
        return list(self._files)


def _labels(root: Path, files: list[Path]) -> list[str]:
    """The label of each file, from its folder or its name; none if neither says."""
    folders = {file.parent for file in files}
    if root not in folders and len({folder.name for folder in folders}) > 1:
        return [file.parent.name for file in files]
    words = [file.stem.partition("_")[0] for file in files]
    counts = Counter(words)
    named = all("_" in file.stem for file in files) and 1 < len(counts) <= min(MOST_LABELS, len(files) // 2)
    return words if named else []


def read_sound(path: str | Path, rate: int, seconds: float = MOST_SECONDS) -> np.ndarray:
    """A file as [T] float32 in -1…1 at `rate`, at most `seconds`; DataError, one line, if it is no sound."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    try:
        found = _wav(path, seconds) if suffix(path) == ".wav" else None
    except (
        EOFError,
        wave.Error,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # a seek beyond the end is a RuntimeError
        raise DataError(
            f"{path}: is not a whole .wav file: {str(error).partition(chr(10))[0] or 'it is cut off'}"
        ) from None
    samples, own = found or _other(path, seconds)
    if not RATES[0] <= own <= RATES[1]:
        raise DataError(f"{path}: says {own:,} samples a second; read are {RATES[0]} to {RATES[1]:,}")
    if not samples.size:
        raise DataError(f"{path}: the sound is empty: it has no samples")
    mono = samples.mean(1)
    if not np.isfinite(mono).all():
        raise DataError(f"{path}: holds samples that are not finite")
    if own != rate:
        from scipy.signal import resample_poly

        ratio = Fraction(rate, own)
        ratio = ratio.limit_denominator(max(1, MOST_FACTOR * own // max(own, rate)))
        mono = resample_poly(mono, ratio.numerator, ratio.denominator)
    return np.clip(mono, -1, 1).astype(np.float32)


def _wav(path: Path, seconds: float) -> tuple[np.ndarray, int] | None:
    """Samples [T channels] and the rate of a .wav of whole numbers; None if it is of another kind (floats)."""
    with open(path, "rb") as opened:
        head = opened.read(4096)
    if b"fmt " in head and head[head.index(b"fmt ") + 8 :][:2] == b"\x03\x00":
        return None
    with wave.open(str(path), "rb") as file:
        channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
        if not (rate > 0 and channels > 0 and width in (1, 2, 3, 4)):
            raise ValueError(f"{channels} channels of {width} bytes at {rate} a second")
        frames = file.readframes(min(file.getnframes(), math.ceil(seconds * rate)))
    frames = frames[: len(frames) // (width * channels) * (width * channels)]
    if width == 1:
        values = np.frombuffer(frames, np.uint8).astype(np.float64) / 128 - 1
    elif width == 3:
        wide = np.zeros((len(frames) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(frames, np.uint8).reshape(-1, 3)
        values = wide.view("<i4")[:, 0] / 2.0**31
    else:
        values = np.frombuffer(frames, f"<i{width}") / 2.0 ** (8 * width - 1)
    return values.reshape(-1, channels), rate


def _other(path: Path, seconds: float) -> tuple[np.ndarray, int]:
    try:
        import soundfile
    except ImportError as error:
        need_extra("soundfile", "audio", error)
    try:
        with soundfile.SoundFile(str(path)) as file:
            return file.read(math.ceil(seconds * file.samplerate), dtype="float64", always_2d=True), file.samplerate
    except Exception as error:  # readers of damaged files raise anything
        raise DataError(f"{path}: is not a sound that can be read: {(str(error).splitlines() or [''])[0]}") from None
