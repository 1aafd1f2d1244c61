"""Data that fit a recipe which reads files: the example of their format, or, where that holds other things, some that are made up."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.core.part import find
from sevenfold.core.seeds import numpy_generator
from sevenfold.training.run import train

Recipe = dict[str, Any]


def fitting(name: str, recipe: Recipe, folder: Path) -> Recipe:
    """The recipe of that name, reading data in `folder`."""
    if not recipe["data"].get("path"):
        return recipe
    if name in MADE:
        path = MADE[name](folder, recipe)
    else:
        path = find("source", recipe["data"]["kind"]).example(folder).path
    return {**recipe, "data": {**recipe["data"], "path": str(path)}}


def _proteins(folder: Path, recipe: Recipe) -> Path:
    """Short ones: of long ones all pairs of residues take long."""
    sequences = [sequence[:12] for sequence in find("tokenization", "residue").example()]
    path = folder / "proteins.fasta"
    path.write_text("".join(f">p{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    return path


def _molecules(folder: Path, recipe: Recipe) -> Path:
    path = folder / "molecules.csv"
    path.write_text("\n".join(["smiles", *find("tokenization", "smiles").example(0)]) + "\n")
    return path


def _series(folder: Path, recipe: Recipe) -> Path:
    """Waves that are long enough for the pieces it asks for."""
    path = folder / "load.csv"
    count = 2 * 24 * recipe["data"]["length"]
    rows = (f"{math.sin(step / 9):.4f},{math.cos(step / 31):.4f}" for step in range(count))
    path.write_text("\n".join(["first,second", *rows]) + "\n")
    return path


def _stains(folder: Path, recipe: Recipe) -> Path:
    path = folder / "pictures.npz"
    np.savez(path, pictures=numpy_generator("stains").integers(0, 256, (40, 64, 64, 2), np.uint8))
    return path


def _taught(folder: Path, recipe: Recipe) -> Path:
    """Pictures, and a teacher that was trained on them."""
    example = find("source", recipe["data"]["kind"]).example(folder)
    teacher = {
        "data": {**recipe["data"], "path": example.path},
        "streams": recipe["streams"],
        "trunks": {
            "enc": {**recipe["trunks"]["enc"], "width": 32, "depth": 1},
            "dec": {"inputs": ["enc"], "width": 32, "depth": 1, "position": recipe["trunks"]["enc"]["position"]},
        },
        "objective": {"kind": "mae"},
        "train": {"steps": 1, "batch": 4, "evaluate_batches": 1},
    }
    train(teacher, folder / "teacher", say=lambda line: None, bar=False)
    recipe["objective"] = {**recipe["objective"], "teacher": str(folder / "teacher")}
    return Path(example.path)


MADE: dict[str, Callable[[Path, Recipe], Path]] = {
    "esm": _proteins,
    "pairformer": _proteins,
    "molecules": _molecules,
    "series": _series,
    "microscopy": _stains,
    "distill": _taught,
}
