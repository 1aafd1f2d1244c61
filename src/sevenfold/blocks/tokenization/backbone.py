"""A protein backbone as codes: how each residue stands on the one before it, the nearest of K steps seen in training.

    y_i = (N, CA, C of residue i) in the frame of residue i-1, in R^9;   z_i = argmin_k |y_i - e_k|^2

Frames are those of Jumper 2021, doi:10.1038/s41586-021-03819-2, supplement Alg. 21; so turning or moving the whole changes
nothing, and mirroring does. e_k are real steps: those nearest to the centres of k-means, so their bonds are real. Ids: 0, a
residue that begins a piece (the first, after a gap), 1, one with a missing atom, then the steps, then pad and mask.
Local geometry as discrete states: Camproux 2004, doi:10.1016/j.jmb.2004.04.005; ESM3 (doi:10.1126/science.ads0018) learns
codes of a larger neighbourhood instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from pydantic import Field
from sklearn.cluster import KMeans, MiniBatchKMeans
from threadpoolctl import threadpool_limits

from sevenfold.blocks.tokenization import Tokenizer, check_ready, line
from sevenfold.blocks.tokenization._codebook import nearest, read_arrays
from sevenfold.core.backbone import bonded, chain_of, frames_of
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.files import write_atomic
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Tokens

FILE = "codebook.safetensors"
BEGIN, MISSING, FIRST = 0, 1, 2
SAMPLE = 200_000
"""The most steps that k-means sees; taken evenly from all structures."""
SMALL = 50_000
"""Up to so many steps k-means is run in full, beyond on mini-batches."""
APART = 20.0
"""Å between the pieces of a decoded chain: where a piece stands is not known."""
FARTHEST = 1e5
"""Å from the origin, beyond which no structure lies."""
TURNS = np.deg2rad([[-62, -42], [-120, 130], [-75, 145], [60, 45]])
"""phi and psi of helices, strands, polyproline and turns, for examples."""


def backbone_of(raw: Any) -> np.ndarray:
    """Residues [n 3 3] (N, CA, C in Å) float64, NaN where atoms are missing; ValueError, one line, if it is none."""
    if not isinstance(raw, np.ndarray):
        raise ValueError(f"a structure is an array [residues 3 3] of N, CA, C in Å, not {type(raw).__name__}")
    if raw.ndim != 3 or raw.shape[1:] != (3, 3) or not len(raw):
        raise ValueError(f"a structure is an array [residues 3 3] of N, CA, C in Å, not one of shape {list(raw.shape)}")
    if raw.dtype.kind not in "fiu":
        raise ValueError(f"a structure holds numbers, not {raw.dtype}")
    atoms = raw.astype(np.float64)
    far = np.flatnonzero((np.isinf(atoms) | (np.abs(np.nan_to_num(atoms)) > FARTHEST)).any((1, 2)))
    if len(far):
        raise ValueError(f"residue {far[0]} (from 0) stands further than {FARTHEST:g} Å from the origin")
    if not frames_of(atoms).any():
        raise ValueError(f"none of {len(atoms)} residues has all of N, CA and C: nothing of the backbone is known")
    return atoms


def inside(atoms: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Atoms [n 3 3] in frames [n 4 3], one each."""
    return np.einsum("nka,nab->nkb", atoms - frames[:, 3:], frames[:, :3])


class Backbone(Tokenizer):
    """array [n 3 3] → ids [n], coords [n 1] and frames [n 4 3] (about the middle of all CA); decodes to an array [n 3 3].

    The frames say nearly all that the ids do: mixers that read them see what masked_token hides.
    """

    class Config(Tokenizer.Config):
        size: int = Field(256, ge=1, le=65536)
        """The most steps K in the codebook; fewer if the data has fewer different ones."""
        seed: int = Field(0, ge=0, lt=2**32)
        """Seed of k-means."""

    lossless = False
    framed = True

    def __init__(self, config: Any):
        super().__init__(config)
        self.codebook = np.zeros((0, 9))
        """The steps e, [K 9] float64."""

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        draw = numpy_generator("backbones", seed)
        found = []
        for number in range(12):
            kinds = np.repeat(draw.integers(len(TURNS), size=5), draw.integers(2, 6, 5))
            angles = np.column_stack([TURNS[kinds] + draw.normal(0, 0.1, (len(kinds), 2)), np.full(len(kinds), np.pi)])
            atoms = chain_of(angles)
            if number % 4 == 3:
                atoms[2, 1] = np.nan
            found.append(atoms)
        return found

    def fit(self, raws: Iterable[Any]) -> None:
        raws = list(raws)
        draw = numpy_generator("steps", self.config.seed)
        most = max(1, SAMPLE // max(len(raws), 1))
        taken = [np.zeros((0, 9))]
        for raw in raws:
            atoms = backbone_of(raw)
            taken.append(draw.permutation(_steps(atoms)[bonded(atoms)])[:most])
        steps = np.concatenate(taken)
        if not len(steps):
            raise DataError("no training structure has two whole residues in a row")
        distinct = np.unique(steps, axis=0)
        if len(distinct) > self.config.size:
            with threadpool_limits(1):  # sums in another order would give another codebook
                centers = self._means(len(steps)).fit(distinct).cluster_centers_
            distinct = distinct[np.unique(nearest(centers, distinct))]
        self._adopt(distinct)

    def _means(self, steps: int) -> Any:
        size, seed = self.config.size, self.config.seed
        if steps <= SMALL:
            return KMeans(size, n_init=1, max_iter=100, random_state=seed)
        batch = {"batch_size": max(8192, 4 * size), "max_iter": 20, "max_no_improvement": None}
        return MiniBatchKMeans(size, n_init=1, random_state=seed, reassignment_ratio=0, **batch)

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        atoms = backbone_of(raw)
        frames = frames_of(atoms)
        whole, joined = frames[:, :3].any((1, 2)), bonded(atoms)
        ids = np.where(whole, BEGIN, MISSING)
        ids[joined] = FIRST + nearest(_steps(atoms)[joined], self.codebook)
        frames[whole, 3] -= frames[whole, 3].mean(0)
        return Tokens(ids, line(len(ids)), frames=frames.astype(np.float32))

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> np.ndarray:
        """Each piece is rebuilt step by step; pieces stand 20 Å apart, as nothing says where they are. Missing: NaN."""
        check_ready(self)
        ids = np.asarray(values, np.int64)
        ids = ids[ids < FIRST + len(self.codebook)]
        atoms = np.full((len(ids), 3, 3), np.nan)
        frame, origin, going = frames_of(chain_of(np.zeros((1, 3))))[0], np.zeros(3), False
        for place, id in enumerate(ids):
            if id == MISSING:
                going = False
                continue
            if id >= FIRST and going:
                atoms[place] = self.codebook[id - FIRST].reshape(3, 3) @ frame[:3].T + frame[3]
            else:  # a step after nothing begins a piece too
                atoms[place] = chain_of(np.zeros((1, 3)))[0] + origin
            frame, going = frames_of(atoms[place : place + 1])[0], True
            origin = frame[3] + np.array([APART, 0.0, 0.0])
        return atoms

    def vectors(self) -> np.ndarray | None:
        if self.size is None:
            return None
        found = np.zeros((self.size, 9), np.float32)
        found[FIRST : FIRST + len(self.codebook)] = self.codebook
        return found

    def piece(self, id: int) -> str:
        return {BEGIN: "begin", MISSING: "missing"}.get(id) or super().piece(id)

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        write_atomic(Path(folder) / FILE, safetensors.numpy.save({"codebook": self.codebook}))
        return [*names, FILE]

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        codebook = read_arrays(path).get("codebook", np.zeros(0))
        if codebook.dtype != np.float64 or codebook.ndim != 2 or codebook.shape[1] != 9:
            raise CheckpointError(f"{path}: holds no codebook of steps")
        if not 0 < len(codebook) <= self.config.size or not np.isfinite(codebook).all():
            raise CheckpointError(f"{path}: the codebook is empty, larger than {self.config.size} or not finite")
        self._adopt(codebook)

    def _adopt(self, codebook: np.ndarray) -> None:
        self.codebook = codebook
        self.size = FIRST + len(codebook) + 2
        self.specials = {"pad": self.size - 2, "mask": self.size - 1}


def _steps(atoms: np.ndarray) -> np.ndarray:
    """[n 9]: each residue in the frame of the one before it; the first is all 0."""
    found = np.zeros((len(atoms), 9))
    found[1:] = inside(atoms[1:], frames_of(atoms)[:-1]).reshape(-1, 9)
    return found
