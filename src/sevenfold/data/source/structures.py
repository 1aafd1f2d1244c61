"""Protein structures: PDB and mmCIF files, one or a folder of them, a sample per protein chain. Needs the extra `biology`.

    .pdb .ent .cif .mmcif, also .gz

Read with biotite (Kunzmann 2018, doi:10.1186/s12859-018-2367-z). Of several models the first, of alternative places of an
atom the one with the highest occupancy, of all molecules amino acids in chains; modified ones are there (MSE is M, others
without a letter are X). An atom that is not resolved is NaN; a residue of which nothing was resolved is not there, and the
backbone is broken at its place. ESM3, ESMFold and AlphaFold learn from such chains.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.backbone import chain_of, frames_of
from sevenfold.core.errors import BadSample, DataError, need_extra
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source, suffix
from sevenfold.data.source._files import list_files, read_bytes

ATOMS = ("N", "CA", "C")
RESOLUTION = re.compile(r"^REMARK   2 RESOLUTION\.\s+([0-9.]+) ANGSTROM", re.M)
THREE = ("ALA", "GLY", "LEU", "SER", "VAL", "LYS")


class Structures(Source):
    """Samples are {"structure": float32 [n 3 3] (N, CA, C in Å), "protein": str}, and "resolution" in Å where it is known."""

    class Config(Source.Config):
        shortest: int = Field(default=10, ge=1)
        """Chains with fewer residues are no samples."""
        largest_bytes: int = Field(default=1 << 28, ge=1)
        """No file, unpacked, may be longer than this."""

    suffixes = (".pdb", ".ent", ".cif", ".mmcif")

    def __init__(self, config: Any):
        super().__init__(config)
        try:
            import biotite  # noqa: F401
        except ImportError as error:
            need_extra("biotite", "biology", error)
        self._files = list_files(self.path, self.suffixes) if self.path.is_dir() else [self.path]
        if not self._files:
            raise DataError(f"{self.path}: holds no file that ends in {', '.join(self.suffixes)}")
        self._samples: list[tuple[str, Sample | str]] = []
        short = 0
        for file in self._files:
            if config.limit is not None and len(self._samples) >= config.limit:
                break
            try:
                chains = read_chains(file, config.largest_bytes)
            except DataError as error:
                if len(self._files) == 1:
                    raise
                self._samples.append((str(file), str(error).removeprefix(f"{file}: ")))
                continue
            for name, sample in chains:
                where = f"{file}: chain {name}"
                if len(sample["protein"]) < config.shortest:
                    short += 1
                elif not frames_of(sample["structure"]).any():
                    self._samples.append((where, "no residue has all of N, CA and C"))
                else:
                    self._samples.append((where, sample))
        self._samples = self._samples[: config.limit]
        if short:
            self._notes.append(f"{short} chains of fewer than {config.shortest} residues were left out")
        if not any(isinstance(sample, dict) for _, sample in self._samples):
            first = f"; the first is {self._samples[0][0]}: {self._samples[0][1]}" if self._samples else ""
            raise DataError(f"{self.path}: holds no protein chain that can be read{first}")

    @classmethod
    def example(cls, folder: Path) -> Any:
        draw = numpy_generator("structures")
        for number in range(10):
            size = 16 + number
            angles = np.deg2rad([[-62.0, -42.0, 180.0]]) + draw.normal(0, 0.3, (size, 3)) * [1, 1, 0.05]
            lines = [f"REMARK   2 RESOLUTION.    {1.5 + number / 10:.2f} ANGSTROMS."]
            for place, residue in enumerate(chain_of(angles)):
                letters = THREE[int(draw.integers(len(THREE)))]
                for atom, at in zip(ATOMS, residue):
                    xyz = "".join(f"{value:8.3f}" for value in at)
                    serial = len(lines)
                    lines.append(
                        f"ATOM  {serial:5d}  {atom:<3} {letters} A{place + 1:4d}    {xyz}  1.00  0.00           {atom[0]}"
                    )
            (folder / f"chain{number}.pdb").write_text("\n".join([*lines, "END"]) + "\n", encoding="ascii")
        return cls.Config(path=str(folder))

    @classmethod
    def recognises(cls, path: Path) -> float:
        if path.is_file():
            return 0.9 if suffix(path) in cls.suffixes else 0.0
        files = list_files(path)
        return 0.9 if sum(suffix(file) in cls.suffixes for file in files) > len(files) / 2 else 0.0

    @property
    def fields(self) -> dict[str, str]:
        told = any(isinstance(sample, dict) and "resolution" in sample for _, sample in self._samples)
        return {"structure": "structure", "protein": "protein", **({"resolution": "number"} if told else {})}

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        where, sample = self._samples[index]
        if isinstance(sample, str):
            raise BadSample(where, sample)
        return dict(sample)

    def where(self, index: int) -> str:
        return self._samples[index][0]

    def files(self) -> list[Path]:
        return list(self._files)


def read_chains(file: Path, largest: int = 1 << 28) -> list[tuple[str, Sample]]:
    """(name, sample) of each chain with amino acids in a file. DataError, one line, if it cannot be read."""
    import biotite.structure as structure
    from biotite.structure.io import pdb, pdbx

    text = read_bytes(file, largest).decode("utf-8", "replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if suffix(file) in (".cif", ".mmcif"):
                parsed = pdbx.CIFFile.read(io.StringIO(text))
                atoms = pdbx.get_structure(parsed, model=1, altloc="occupancy")
                resolution = _resolution_of(parsed.block)
            else:
                atoms = pdb.PDBFile.read(io.StringIO(text)).get_structure(model=1, altloc="occupancy")
                match = RESOLUTION.search(text)
                resolution = float(match[1]) if match else math.nan
            atoms = atoms[structure.filter_amino_acids(atoms)]
    except Exception as error:  # parsers of damaged files raise anything
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file}: cannot be read as {'mmCIF' if 'cif' in suffix(file) else 'PDB'}: {why}") from None
    found = []
    for name in dict.fromkeys(atoms.chain_id.tolist()):
        chain = atoms[atoms.chain_id == name]
        backbone, letters = _residues(chain, structure.get_residue_starts(chain))
        sample: Sample = {"structure": backbone, "protein": letters}
        if math.isfinite(resolution) and resolution > 0:
            sample["resolution"] = resolution
        found.append((str(name), sample))
    return found


def _resolution_of(block: Any) -> float:
    """The resolution of a mmCIF block in Å, NaN if it has none."""
    for category, item in (("refine", "ls_d_res_high"), ("em_3d_reconstruction", "resolution")):
        if category in block and item in block[category]:
            try:
                return float(block[category][item].as_array()[0])
            except ValueError:
                continue
    return math.nan


def _residues(chain: Any, starts: np.ndarray) -> tuple[np.ndarray, str]:
    """N, CA, C [n 3 3] float32, NaN where there is none, and the letters of a chain's residues."""
    from biotite.sequence import ProteinSequence

    number = np.searchsorted(starts, np.arange(len(chain)), side="right") - 1
    backbone = np.full((len(starts), 3, 3), np.nan, np.float32)
    for column, atom in enumerate(ATOMS):
        chosen = np.flatnonzero(chain.atom_name == atom)
        backbone[number[chosen], column] = chain.coord[chosen]
    letters = []
    for name in chain.res_name[starts].tolist():
        try:
            letters.append("M" if name == "MSE" else ProteinSequence.convert_letter_3to1(name))
        except KeyError:
            letters.append("X")
    return backbone, "".join(letters).replace("*", "X")
