"""Protein structures: the backbone of a chain, [residues 3 3] (N, CA, C in Å), becomes ids with frames along one axis.

By default the steps from residue to residue (`backbone`). The axis has the name of the protein modality's, so a sequence
and its structure in one trunk share their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization.backbone import backbone_of
from sevenfold.core import part
from sevenfold.core.backbone import bonded, frames_of, rmsd, torsions
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._features import Features
from sevenfold.modality._strings import spread

SHOWN = 60
"""Residues of a line in a terminal."""
SIDE = 160
"""Pixels of the drawing."""


class Structure(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("backbone")
        """How raw items become tokens."""
        pack: bool | Literal["whole"] | None = False
        """Not for structures: they are never laid end to end, as frames are of one chain."""

    axes = ("residue",)
    error_unit: ClassVar[str] = "Å root mean squared distance of N, CA and C, each unbroken piece superposed on its own"

    def __init__(self, config: Any):
        if config.pack:
            raise ConfigError("pack: structures are not laid end to end: set it to false")
        super().__init__(config)

    def check(self, raw: Any) -> np.ndarray:
        """[n 3 3] float64 with at least one whole residue, NaN where atoms are missing."""
        return backbone_of(raw)

    def error(self, raw: Any, back: Any) -> float:
        """Weighted by residues; the global error of long chains grows, as each step's error turns all that follows."""
        atoms, other = backbone_of(raw), np.asarray(back, np.float64)
        if atoms.shape != other.shape:
            raise ValueError(f"{len(other)} residues are not those of a structure of {len(atoms)}")
        if np.array_equal(atoms, other, equal_nan=True):
            return 0.0
        total, count = 0.0, 0
        for start, stop in pieces_of(atoms):
            away = rmsd(other[start:stop].reshape(-1, 3), atoms[start:stop].reshape(-1, 3))
            total, count = total + away**2 * (stop - start), count + stop - start
        return float(np.sqrt(total / count))

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, Any]:
        atoms = backbone_of(raw)
        turn, _ = np.linalg.qr(draw.standard_normal((3, 3)))
        turn *= np.sign(np.linalg.det(turn))
        gone = atoms.copy()
        gone[draw.integers(len(atoms)), 1] = np.nan
        found = {
            "turned and moved as a whole": atoms @ turn + 10 * draw.standard_normal(3),
            "every atom 0.1 Å off": atoms + draw.normal(0, 0.1 / 3**0.5, atoms.shape),
        }
        if frames_of(gone).any():
            found["one CA not resolved"] = gone
        return found

    def content(self, raw: Any) -> bytes:
        """Thousandths of Å, as files hold them, in 4 bytes each."""
        return np.nan_to_num(backbone_of(raw) * 1000, nan=-1).astype("<i4").tobytes()

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        if not raws:
            return {"items": 0}
        chains = [backbone_of(raw) for raw in raws]
        whole = [frames_of(atoms)[:, :3].any((1, 2)) for atoms in chains]
        letters = "".join(states(atoms) for atoms in chains)
        return {
            "items": len(chains),
            "residues, least / median / most": spread([len(atoms) for atoms in chains]),
            "residues with a missing atom": sum(int((~known).sum()) for known in whole),
            "chains in more than one piece": sum(len(list(pieces_of(atoms))) > 1 for atoms in chains),
            "helix / strand by phi and psi": f"{letters.count('H') / len(letters):.0%} / {letters.count('E') / len(letters):.0%}",
        }

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """The length, the radius of gyration, and how phi and psi are spread, in bins of 30 degrees."""

        def told(raws: Sequence[np.ndarray]) -> np.ndarray:
            rows = []
            for atoms in raws:
                angles = torsions(atoms)[:, :2]
                bins = [np.histogram(a[np.isfinite(a)], 12, (-np.pi, np.pi))[0] / len(atoms) for a in angles.T]
                ca = atoms[np.isfinite(atoms[:, 1]).all(1), 1]
                rows.append(np.concatenate([[np.log(len(atoms)), np.sqrt(ca.var(0).sum()) if len(ca) else 0.0], *bins]))
            return np.stack(rows).astype(np.float32)

        return (Features("torsions of the backbone", told),)

    def html(self, raw: Any) -> str:
        """The trace of CA, seen along the axis in which it is thinnest; blue to red from begin to end."""
        atoms = np.asarray(raw, np.float64)
        ca = atoms[:, 1]
        known = ca[np.isfinite(ca).all(1)]
        middle = known.mean(0) if len(known) else np.zeros(3)
        axes = np.linalg.svd(known - middle, full_matrices=False)[2] if len(known) > 2 else np.eye(3)
        flat = (ca - middle) @ axes[:2].T
        scale = (SIDE / 2 - 6) / max(float(np.nanmax(np.abs(flat))) if len(known) else 1.0, 1e-6)
        flat = flat * scale + SIDE / 2
        lines = []
        for place in np.flatnonzero(np.isfinite(flat[:-1]).all(1) & np.isfinite(flat[1:]).all(1)):
            (x1, y1), (x2, y2) = flat[place], flat[place + 1]
            hue = 240 - 240 * place / max(len(flat) - 2, 1)
            lines.append(
                f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="hsl({hue:.0f} 70% 45%)"/>'
            )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{SIDE}" viewBox="0 0 {SIDE} {SIDE}" '
            f'stroke-width="2" stroke-linecap="round"><title>{len(atoms)} residues</title>{"".join(lines)}</svg>'
        )

    def plain(self, raw: Any) -> str:
        """A letter a residue: H helix, E strand, - other, ? missing, by phi and psi."""
        letters = states(np.asarray(raw, np.float64))
        return "\n".join(letters[start : start + SHOWN] for start in range(0, len(letters), SHOWN))

    def typed(self, text: str) -> np.ndarray:
        """The first chain in the PDB or mmCIF file of that name."""
        source = part.find("source", "structures")
        try:
            return self.check(source.Config(path=str(Path(text))).build()[0]["structure"])
        except DataError as error:
            raise ValueError(str(error)) from None

    def file(self, raw: Any) -> tuple[str, bytes]:
        """(".pdb", the backbone, all residues named GLY)."""
        lines, atoms, serial = [], np.asarray(raw, np.float64), 0
        for number, residue in enumerate(atoms, 1):
            for name, place in zip(("N", "CA", "C"), residue):
                if np.isfinite(place).all():
                    serial += 1
                    xyz = "".join(f"{value:8.3f}" for value in place)
                    lines.append(
                        f"ATOM  {serial % 100000:5d}  {name:<3} GLY A{number % 10000:4d}    {xyz}  1.00  0.00           {name[0]}"
                    )
        return ".pdb", ("\n".join([*lines, "END"]) + "\n").encode()

    def augmentation(self) -> Augmentation:
        """A piece of the chain, atoms moved by a little more than they are measured to."""
        change = {"kind": "jitter", "deviation": 0.01}
        return Augmentation(
            ({"kind": "crop", "share": (0.7, 1.0)}, change), ({"kind": "crop", "share": (0.2, 0.5)}, change)
        )

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """Steps of the backbone, hidden ones filled in from both sides."""
        lengths = [len(raw) for raw in raws]
        if not lengths:
            return None
        total = float(np.mean(lengths)) * items
        size = int(min(4096, max(32, 2 ** round(np.log2(max(total / 32, 1))))))
        return Suggestion(
            stream={
                "kind": "structure",
                "tokenizer": {"kind": "backbone", "size": size},
                "length": min(max(lengths), 512),
            },
            trunks={"enc": {"inputs": [name], "position": "rotary"}},
            objective={"kind": "masked_token"},
            train={"batch": 16},
            tokens=float(np.mean(lengths)),
            why=[
                f"{name}: a residue is one of {size} steps from the residue before it, which turning the whole does not change",
                f"{name}: hidden steps are filled in from both sides",
            ],
        )


def pieces_of(atoms: np.ndarray) -> list[tuple[int, int]]:
    """Begin and end of each unbroken run of whole residues."""
    whole, joined = frames_of(atoms)[:, :3].any((1, 2)), bonded(atoms)
    begins = np.flatnonzero(whole & ~joined)
    ends = [int(next((at for at in range(start + 1, len(atoms)) if not joined[at]), len(atoms))) for start in begins]
    return list(zip(begins.tolist(), ends))


def states(atoms: np.ndarray) -> str:
    """H, E, - or ? for each residue, from phi and psi alone (Ramachandran's two large regions)."""
    phi, psi, _ = np.rad2deg(torsions(atoms)).T
    with np.errstate(invalid="ignore"):
        helix = (phi > -160) & (phi < -20) & (psi > -80) & (psi < -5)
        strand = (phi > -180) & (phi < -40) & ((psi > 90) | (psi < -160))
    whole = frames_of(atoms)[:, :3].any((1, 2))
    return "".join(np.where(~whole, "?", np.where(helix, "H", np.where(strand, "E", "-"))).tolist())
