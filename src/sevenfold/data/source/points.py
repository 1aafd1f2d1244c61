"""Point clouds: a folder with one file a cloud (.xyz, .pts, .npy, .ply, .obj, .off), or one .npz of clouds end to end.

    x y z [more]            a point a line, of a .xyz or .pts
    clouds/box/7.ply        the folder's name is the label, if all clouds are in two folders or more
    points [N 3+]  ptr [clouds + 1]  label [clouds]  classes [labels]          of an .npz: cloud i is points[ptr[i]:ptr[i+1]]

Of meshes (.ply, .obj, .off, with the `points` extra) the corners are taken. ModelNet40, ShapeNet as they are passed around;
PyTorch Geometric's `ptr`.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.errors import BadSample, DataError, need_extra
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source, suffix
from sevenfold.data.source._files import LARGEST, check_first, expands_to, list_files, read_bytes

TEXT, MESHES = (".xyz", ".pts"), (".ply", ".obj", ".off")
CLOUDS = (*TEXT, ".npy", *MESHES)
LARGEST_CLOUD = 1 << 28
"""Bytes of one cloud's file."""


class Points(Source):
    """Samples are {"points": float32 [n numbers]}, with "label" where there is one."""

    class Config(Source.Config):
        numbers: tuple[int, ...] | None = (0, 1, 2)
        """Which numbers of a point to read, its place first; null: all."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """The arrays of an .npz together may not be larger than this; they are held in memory."""

    suffixes = (".xyz", ".pts", ".ply", ".obj", ".off")

    def __init__(self, config: Any):
        super().__init__(config)
        root = self.path
        self._files = list_files(root, CLOUDS) if root.is_dir() else [root]
        self._labels: list[str] = []
        self._points, self._starts = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
        if not self._files:
            raise DataError(f"{root}: holds no clouds; read are {', '.join(CLOUDS)}")
        if suffix(root) == ".npz":
            self._load(root)
        elif root.is_dir():
            folders = {file.parent for file in self._files}
            if root not in folders and len({folder.name for folder in folders}) > 1:
                self._labels = [file.parent.name for file in self._files]
        self._count = min(len(self._starts) - 1 if len(self._starts) else len(self._files), config.limit or 1 << 62)
        check_first(self, root, "clouds")

    def _load(self, path: Path) -> None:
        try:
            most = expands_to(path.stat().st_size, self.config.largest_bytes)
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > most:
                raise DataError(f"{path}: holds {size:,} bytes, and {most:,} are allowed: raise largest_bytes")
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in ("points", "ptr", "label", "classes") if name in file}
        except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: is not a whole .npz file: {_first_line(error)}") from None
        points, starts = found.get("points"), found.get("ptr")
        if (
            points is None
            or starts is None
            or points.ndim != 2
            or points.shape[1] < 3
            or points.dtype.kind not in "iuf"
        ):
            raise DataError(f"{path}: needs the arrays points [N 3 or more] of numbers and ptr [clouds + 1]")
        if starts.ndim != 1 or len(starts) < 2 or starts.dtype.kind not in "iu":
            raise DataError(f"{path}: ptr is not a list of whole numbers, two or more")
        starts = starts.astype(np.int64)
        if starts[0] != 0 or starts[-1] != len(points) or (np.diff(starts) < 0).any():
            raise DataError(f"{path}: ptr does not rise from 0 to the number of points, {len(points):,}")
        self._points, self._starts = points, starts
        label, classes = found.get("label"), found.get("classes")
        if label is not None and len(label) == len(starts) - 1:
            named = classes is not None and label.dtype.kind in "iu" and label.max(initial=0) < len(classes)
            self._labels = [str(classes[one]) if named and classes is not None else str(one) for one in label]

    @classmethod
    def example(cls, folder: Path) -> Any:
        draw = numpy_generator("points")
        for count in range(16):
            name = ("ball", "box")[count % 2]
            (folder / name).mkdir(exist_ok=True)
            points = draw.uniform(-1, 1, (40, 3))
            points /= np.linalg.norm(points, axis=1, keepdims=True) if name == "ball" else 1
            np.savetxt(folder / name / f"{count}.xyz", points, "%.6f")
        return cls.Config(path=str(folder))

    @classmethod
    def recognises(cls, path: Path) -> float:
        if path.is_dir():
            files = list_files(path)
            return 0.7 if sum(suffix(file) in cls.suffixes for file in files) > len(files) / 2 else 0.0
        if suffix(path) == ".npz" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return 0.8 if {"points.npy", "ptr.npy"} <= set(archive.namelist()[:100]) else 0.0
        return super().recognises(path)

    @property
    def fields(self) -> dict[str, str]:
        return {"points": "points", **({"label": "label"} if self._labels else {})}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        if len(self._starts):
            points = self._points[self._starts[index] : self._starts[index + 1]].astype(np.float32)
        else:
            try:
                points = read_cloud(self._files[index])
            except DataError as error:
                raise BadSample(self.where(index), str(error).removeprefix(f"{self._files[index]}: ")) from None
        if self.config.numbers is not None:
            if max(self.config.numbers) >= points.shape[1]:
                raise BadSample(self.where(index), f"has {points.shape[1]} numbers a point: too few for `numbers`")
            points = points[:, self.config.numbers]
        if not len(points):
            raise BadSample(self.where(index), "the cloud is empty")
        return {"points": points, **({"label": self._labels[index]} if self._labels else {})}

    def where(self, index: int) -> str:
        return f"{self.config.path}: cloud {index}" if len(self._starts) else str(self._files[index])

    def files(self) -> list[Path]:
        return list(self._files)


def read_cloud(path: str | Path) -> np.ndarray:
    """The points of one file, [n 3 or more] float32; DataError, one line, if it holds none."""
    path = Path(path).expanduser()
    kind = path.suffix.lower()
    if kind not in CLOUDS:
        raise DataError(f"{path}: is no file of points; read are {', '.join(CLOUDS)}")
    data = read_bytes(path, LARGEST_CLOUD)
    try:
        if kind in TEXT:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                points = np.loadtxt(io.BytesIO(data.replace(b",", b" ")), np.float32, ndmin=2)
        elif kind == ".npy":
            points = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            points = _corners(data, kind)
    except (ValueError, EOFError, KeyError, IndexError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no whole {kind} file of points: {_first_line(error)}") from None
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "iuf":
        raise DataError(f"{path}: holds {list(points.shape)} {points.dtype}, not points of three numbers or more")
    if not len(points):
        raise DataError(f"{path}: the cloud is empty: it has no points")
    return points.astype(np.float32)


def _corners(data: bytes, kind: str) -> np.ndarray:
    """The corners of a mesh, or the points of a cloud, [n 3]."""
    try:
        import trimesh
    except ImportError as error:
        need_extra("trimesh", "points", error)
    try:
        made: Any = trimesh.load(io.BytesIO(data), file_type=kind[1:], process=False, skip_materials=True)
        parts = list(made.geometry.values()) if hasattr(made, "geometry") else [made]
        return np.concatenate([np.asarray(part.vertices, np.float64).reshape(-1, 3) for part in parts])
    except Exception as error:  # readers of damaged files raise anything
        raise ValueError(_first_line(error)) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
