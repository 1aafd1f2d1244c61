"""Numpy arrays: .npz and .npy.

    [N H W], [N H W C] or [N C H W], C = 1, 3 or 4   image (uint8, bool, or float in 0…1)
    [N H W C] with another C                         microscopy
    [N P 3] of floats, P above 3                     points
    [N T C] of floats beyond 0…1, T other than C     series
    [N T] of numbers, T of 16 or more                series, where there are neither pictures nor points
    [N] of few whole numbers, or of words            label
    [N] of numbers                                   number

`fields` of the recipe wins. The arrays whose first axis is as long as that of the images (or else as most of them) are
the fields; others are left out. Nothing is unpickled, and what a file declares is checked before memory is taken.

MNIST and its kin (MedMNIST, Fashion-MNIST) as they are passed around.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from pydantic import Field

from sevenfold.core.errors import BadSample, DataError, did_you_mean
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source
from sevenfold.data.source._files import LARGEST, expands_to

READABLE = "images [N H W] or [N H W C], points [N P 3], series [N T] or [N T C], labels and numbers [N]"
PICTURES = {"image", "microscopy", "points"}
CONTENT = {*PICTURES, "series"}
FEWEST_STEPS = 16
"""Rows of fewer numbers are not taken for series unless the recipe says so."""


class Declared(NamedTuple):
    """What the header of an array says."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{list(self.shape)} {self.dtype}"


class Arrays(Source):
    """Samples are one entry of each array: {name: uint8 or float32 [H W C] (microscopy: as it is), float32 [P 3] or [T C],
    a label or a number}."""

    class Config(Source.Config):
        fields: dict[str, str] | None = None
        """Array → `image`, `microscopy`, `points`, `series`, `label` or `number`; only these are read. By default all
        that look like one."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """The arrays together may not be larger than this; those of an .npz are held in memory."""

    suffixes = (".npz", ".npy")

    def __init__(self, config: Any):
        super().__init__(config)
        path = self.path
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{path}: is empty")
        try:
            packed = zipfile.is_zipfile(path)
            declared = _declared_npz(path) if packed else {"data": _declared_npy(path)}
            self._check_sizes(declared, packed)
            self._fields = self._choose(declared)
            self._arrays = self._load(packed)
        except (OSError, ValueError, EOFError, KeyError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: is not a whole .npy or .npz file: {_first_line(error)}") from None
        for name, kind in self._fields.items():
            self._arrays[name] = self._prepared(name, self._arrays[name], kind)
        self._count = min(len(next(iter(self._arrays.values()))), config.limit or 1 << 62)

    def _check_sizes(self, declared: dict[str, Declared], packed: bool) -> None:
        most = self.config.largest_bytes
        if packed:
            most = expands_to(self.path.stat().st_size, most)
        total = sum(one.size for one in declared.values())
        if total > most:
            raise DataError(
                f"{self.path}: declares arrays of {total:,} bytes, and {most:,} are allowed: "
                f"raise largest_bytes, and save without compression if it was more than 200-fold"
            )
        for name, one in declared.items():
            if one.dtype.hasobject and name in (self.config.fields or declared):
                raise DataError(
                    f"{self.path}: the array {name!r} holds pickled Python objects, which can run code and are never "
                    f"read: save it as numbers or fixed-length strings"
                )

    def _choose(self, declared: dict[str, Declared]) -> dict[str, str]:
        given = self.config.fields or {}
        for name in given:
            if name not in declared:
                raise DataError(f"{self.path}: there is no array {name!r}{did_you_mean(name, declared)}")
        kinds = given or {name: kind for name, one in declared.items() if (kind := _kind(one))}
        if not given and PICTURES & set(kinds.values()):
            kinds = {name: kind for name, kind in kinds.items() if kind != "series"}
        listed = ", ".join(f"{name} {one}" for name, one in declared.items())
        if not given and not CONTENT & set(kinds.values()) and any(len(one.shape) > 1 for one in declared.values()):
            kinds = {}  # labels or numbers of something that is not read
        wrong = [name for name, kind in kinds.items() if kind not in _possible(declared[name])]
        if not kinds or wrong:
            what = f"the array {wrong[0]!r} cannot be read as {kinds[wrong[0]]!r}" if wrong else "holds nothing to read"
            raise DataError(f"{self.path}: {what}; there are {listed}; read are {READABLE}")
        lengths = [declared[name].shape[0] for name, kind in kinds.items() if kind in CONTENT]
        count = Counter(lengths or [declared[name].shape[0] for name in kinds]).most_common(1)[0][0]
        if count == 0:
            raise DataError(f"{self.path}: has no samples; there are {listed}")
        if given and any(declared[name].shape[0] != count for name in given):
            raise DataError(f"{self.path}: the arrays are not equally long; there are {listed}")
        chosen = {name: kind for name, kind in kinds.items() if declared[name].shape[0] == count}
        left = [f"{name} {one}" for name, one in declared.items() if name not in chosen]
        self._notes = [f"{self.path}: left out: {', '.join(left)}"] if left and not given else []
        return chosen

    def _load(self, packed: bool) -> dict[str, np.ndarray]:
        if not packed:
            return {"data": np.load(self.path, mmap_mode="r", allow_pickle=False)}
        with np.load(self.path, allow_pickle=False) as file:
            return {name: file[name] for name in self._fields}

    def _prepared(self, name: str, array: np.ndarray, kind: str) -> np.ndarray:
        """Images as [N H W C]; whole numbers that are many become numbers unless the recipe says label."""
        if kind == "label" and array.dtype.kind in "iu" and name not in (self.config.fields or {}):
            if len(np.unique(array)) > min(1000, max(2, len(array) // 2)):
                self._fields[name] = "number"
        if kind in ("points", "series") and name not in (self.config.fields or {}):
            self._notes.append(self._taken(name, array, kind))
        if kind != "image":
            return array
        images = array[..., None] if array.ndim == 3 else array
        if images.shape[1] in (1, 3, 4) and images.shape[3] not in (1, 3, 4):
            images = images.transpose(0, 2, 3, 1)
        first = images[:100]
        oblong = array.ndim == 3 and array.shape[1] != array.shape[2] and not self.config.fields
        if oblong and first.dtype.kind == "f" and not (first.min() >= 0 and first.max() <= 1):
            self._fields[name] = "series"
            self._notes.append(self._taken(name, array, "series"))
            return array
        if first.dtype.kind == "f" and not (first.min() >= 0 and first.max() <= 1):
            raise DataError(
                f"{self.path}: the array {name!r} {list(array.shape)} has values in {first.min():g}…{first.max():g}; "
                f"images of floats are in 0…1: rescale it, or say fields: {{{name}: series}}"
            )
        if first.dtype.kind in "iu" and not (first.min() >= 0 and first.max() <= 255):
            raise DataError(
                f"{self.path}: the array {name!r} has values outside 0…255, so it holds no images: rescale it"
            )
        return images

    def _taken(self, name: str, array: np.ndarray, kind: str) -> str:
        shape = f"{list(array.shape)} {array.dtype}"
        what = f"clouds of {array.shape[1]} points" if kind == "points" else f"series of {array.shape[1]} time steps"
        return f"{self.path}: the array {name!r} {shape} is read as {what}; if it is none, say fields: {{{name}: …}}"

    @classmethod
    def example(cls, folder: Path) -> Any:
        draw = numpy_generator("arrays")
        labels = np.arange(24) % 3
        images = (draw.random((24, 8, 8)) * 80 + labels[:, None, None] * 80).astype(np.uint8)
        np.savez(folder / "shades.npz", image=images, label=labels)
        return cls.Config(path=str(folder / "shades.npz"))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return {name: self._item(index, name, self._arrays[name][index], kind) for name, kind in self._fields.items()}

    def _item(self, index: int, name: str, value: Any, kind: str) -> Any:
        if kind == "label":
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if kind == "number":
            number = float(value)
            if not math.isfinite(number):
                raise BadSample(self.where(index), f"{name!r} is {number}, not a number")
            return number
        if kind in ("points", "series"):
            return np.array(value, np.float32)
        if kind == "microscopy":
            return np.ascontiguousarray(value)
        low, high = float(value.min()), float(value.max())
        top = 1 if value.dtype.kind in "fb" else 255
        if not (low >= 0 and high <= top):
            raise BadSample(self.where(index), f"{name!r} has values in {low:g}…{high:g}, not in 0…{top}")
        if value.dtype.kind == "f":
            return np.ascontiguousarray(value, np.float32)
        return np.ascontiguousarray(value, np.uint8) * np.uint8(255 if value.dtype.kind == "b" else 1)


def _kind(one: Declared) -> str | None:
    kind = next(iter(_possible(one)), None)
    return None if kind == "series" and one.shape[1] < FEWEST_STEPS else kind


def _possible(one: Declared) -> tuple[str, ...]:
    """The kinds that an array of this shape can be read as, the likeliest first."""
    if one.dtype.kind in "US" and len(one.shape) == 1:
        return ("label",)
    if one.dtype.kind not in "biuf" or 0 in one.shape[1:]:
        return ()
    if len(one.shape) == 1:
        return ("number", "label") if one.dtype.kind == "f" else ("label", "number")
    if len(one.shape) == 2:
        return ("series",) if one.dtype.kind != "b" else ()
    if len(one.shape) == 3 and one.dtype.kind == "f" and one.shape[2] == 3 and one.shape[1] > 3:
        return ("points", "image", "series")
    if len(one.shape) == 3 and one.dtype.kind != "b":
        return ("image", "series", *(("points",) if one.shape[2] >= 3 else ()))
    images = len(one.shape) == 3 or (len(one.shape) == 4 and {one.shape[1], one.shape[3]} & {1, 3, 4})
    many = ("microscopy",) if len(one.shape) == 4 and one.dtype.kind != "b" else ()
    return ("image", *many) if images else many


def _declared_npy(path: Path) -> Declared:
    with open(path, "rb") as file:
        return _header(file)


def _declared_npz(path: Path) -> dict[str, Declared]:
    declared = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist()[:1000]:
            if name.endswith(".npy"):
                with archive.open(name) as member:
                    declared[name.removesuffix(".npy")] = _header(member)
    if not declared:
        raise ValueError("it holds no arrays")
    return declared


def _header(file: IO[bytes]) -> Declared:
    """Shape and type of an array, from the first bytes of its file."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if any(length < 0 for length in shape):
        raise ValueError(f"it declares the shape {shape}")
    return Declared(shape, dtype)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
