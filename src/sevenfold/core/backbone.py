"""Geometry of protein backbones, in numpy: frames, torsions, atoms from torsions, superposition. Lengths in Å.

    frame: e1 = unit(C - CA), e2 = unit of (N - CA) without its e1 part, e3 = e1 x e2, origin CA

Jumper 2021, doi:10.1038/s41586-021-03819-2, supplement Alg. 21 (frames); Parsons 2005, doi:10.1002/jcc.20237 (atoms from
torsions); Kabsch 1976, doi:10.1107/S0567739476001873 (superposition).
"""

from __future__ import annotations

import numpy as np

N_CA, CA_C, C_N = 1.458, 1.525, 1.329
"""Bond lengths. Engh and Huber 1991, doi:10.1107/S0108767391001071."""
AT_CA, AT_C, AT_N = np.deg2rad([111.0, 117.2, 121.7])
"""Bond angles N-CA-C, CA-C-N, C-N-CA."""
BOND = 2.0
"""Two residues are bonded if C and the next N are not further apart than this."""


def frames_of(atoms: np.ndarray) -> np.ndarray:
    """Frames [n 4 3] of residues [n 3 3] (N, CA, C): rows 0…2 the rotation, whose columns are the axes, row 3 the origin;
    all 0 where an atom is missing (NaN) or the three lie on a line."""
    atoms = np.asarray(atoms, np.float64)
    n, ca, c = atoms[:, 0], atoms[:, 1], atoms[:, 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        e1 = (c - ca) / np.linalg.norm(c - ca, axis=1, keepdims=True)
        e2 = (n - ca) - ((n - ca) * e1).sum(1, keepdims=True) * e1
        length = np.linalg.norm(e2, axis=1, keepdims=True)
        e2 = e2 / length
    frames = np.concatenate([np.stack([e1, e2, np.cross(e1, e2)], axis=2), ca[:, None]], axis=1)
    with np.errstate(invalid="ignore"):
        there = np.isfinite(frames).all((1, 2)) & (length[:, 0] > 1e-3)
    return np.where(there[:, None, None], frames, 0.0)


def bonded(atoms: np.ndarray) -> np.ndarray:
    """[n] bool: whether a residue and the one before it are both whole and bonded; False for the first."""
    atoms = np.asarray(atoms, np.float64)
    found = np.zeros(len(atoms), bool)
    with np.errstate(invalid="ignore"):
        near = np.linalg.norm(atoms[1:, 0] - atoms[:-1, 2], axis=1) <= BOND
    whole = np.asarray(frames_of(atoms)[:, :3].any((1, 2)))
    found[1:] = near & whole[1:] & whole[:-1]
    return found


def torsions(atoms: np.ndarray) -> np.ndarray:
    """phi, psi, omega of residues [n 3 3], [n 3] in radians; NaN where an atom is missing, at the ends and at breaks.
    phi: C_(i-1) N CA C; psi: N CA C N_(i+1); omega: CA C N_(i+1) CA_(i+1)."""
    atoms = np.asarray(atoms, np.float64)
    angles = np.full((len(atoms), 3), np.nan)
    n, ca, c = atoms[:, 0], atoms[:, 1], atoms[:, 2]
    joined = bonded(atoms)[1:]
    angles[1:, 0] = np.where(joined, dihedral(c[:-1], n[1:], ca[1:], c[1:]), np.nan)
    angles[:-1, 1] = np.where(joined, dihedral(n[:-1], ca[:-1], c[:-1], n[1:]), np.nan)
    angles[:-1, 2] = np.where(joined, dihedral(ca[:-1], c[:-1], n[1:], ca[1:]), np.nan)
    return angles


def dihedral(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The torsion about b-c of points [… 3], in radians, IUPAC's sign."""
    with np.errstate(invalid="ignore", divide="ignore"):
        axis = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
        first, second = np.cross(a - b, axis), np.cross(d - c, axis)
        return np.arctan2((np.cross(first, second) * axis).sum(-1), (first * second).sum(-1))


def placed(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, length: float, angle: float, torsion: np.ndarray | float
) -> np.ndarray:
    """The points d [… 3] with |c d| = length, angle b c d and torsion a b c d."""
    u = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
    normal = np.cross(b - a, u)
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    torsion = np.asarray(torsion)[..., None]
    around = np.cos(torsion) * np.cross(normal, u) + np.sin(torsion) * normal
    return c + length * (np.sin(angle) * around - np.cos(angle) * u)


def chain_of(angles: np.ndarray) -> np.ndarray:
    """Residues [… n 3 3] of ideal bonds with torsions phi, psi, omega [… n 3] in radians; what torsions leave open (the
    place and turn of the whole) is fixed."""
    first = N_CA * np.array([np.cos(AT_CA), np.sin(AT_CA), 0.0])
    shape = (*angles.shape[:-2], 3)
    n, ca, c = (np.broadcast_to(place, shape) for place in (first, np.zeros(3), np.array([CA_C, 0.0, 0.0])))
    atoms = [np.stack([n, ca, c], -2)]
    for place in range(1, angles.shape[-2]):
        phi, (psi, omega) = angles[..., place, 0], np.moveaxis(angles[..., place - 1, 1:], -1, 0)
        next_n = placed(n, ca, c, C_N, AT_C, psi)
        next_ca = placed(ca, c, next_n, N_CA, AT_N, omega)
        n, ca, c = next_n, next_ca, placed(c, next_n, next_ca, CA_C, AT_CA, phi)
        atoms.append(np.stack([n, ca, c], -2))
    return np.stack(atoms, -3)


def superposed(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Points [k 3] moved as a rigid body onto others [k 3], with the least squared distance. Never mirrored."""
    middle, other = moving.mean(0), fixed.mean(0)
    left, _, right = np.linalg.svd((moving - middle).T @ (fixed - other))
    sign = np.sign(np.linalg.det(left @ right))
    return (moving - middle) @ (left * np.array([1.0, 1.0, sign])) @ right + other


def rmsd(moving: np.ndarray, fixed: np.ndarray) -> float:
    """Root mean squared distance of points [k 3] after superposition, in Å."""
    away = superposed(moving, fixed) - fixed
    return float(np.sqrt((away**2).sum(1).mean()))
