"""What the tokenizers that learn a few numbers share: one JSON record beside the config, checked when it is read."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import read_json, write_atomic

FILE = "preprocessor_config.json"
MOST = 1 << 20
"""The most numbers of one list that a file may hold."""


def write_record(folder: str | Path, record: Mapping[str, Any]) -> str:
    """Write the record; returns the file's name."""
    write_atomic(Path(folder) / FILE, json.dumps(record, ensure_ascii=False) + "\n")
    return FILE


def read_record(folder: Path) -> tuple[Path, dict[str, Any]]:
    """(the file, the record); CheckpointError if it is not one."""
    path = Path(folder) / FILE
    record = read_json(path)
    if not isinstance(record, dict):
        raise CheckpointError(f"{path}: is not a record of settings")
    return path, record


def read_columns(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """(the file, what a record says of each column); CheckpointError if it says nothing."""
    path, record = read_record(folder)
    columns = record.get("columns")
    if not isinstance(columns, list) or not columns or not all(isinstance(one, dict) for one in columns):
        raise CheckpointError(f"{path}: holds no list of columns")
    return path, columns


def read_bins(path: Path, column: Mapping[str, Any], values: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(edges [k], `values` [k+1]) of a column that is cut into bins; None where the edges do not rise, or do not fit the values."""
    found = numbers(path, column, values)
    edges = numbers(path, column, "edges") if column.get("edges") != [] else np.zeros(0)
    return None if len(found) != len(edges) + 1 or (np.diff(edges) <= 0).any() else (edges, found)


def numbers(path: Path, record: Mapping[str, Any], name: str, above: float = -math.inf) -> np.ndarray:
    """A list of finite numbers from a record, [n] float64; CheckpointError if it is something else."""
    found = record.get(name)
    if not isinstance(found, list) or not 0 < len(found) <= MOST:
        raise CheckpointError(f"{path}: {name} is not a list of numbers")
    largest = sys.float_info.max  # a whole number in JSON may be beyond it
    if not all(type(one) in (int, float) and -largest <= one <= largest and one > above for one in found):
        raise CheckpointError(f"{path}: {name} holds something that is not a finite number above {above:g}")
    return np.array(found, np.float64)
