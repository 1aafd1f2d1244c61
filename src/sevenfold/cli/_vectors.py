"""Vectors and where they are from, as .npy, .npz, .csv or .parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.core.errors import ConfigError, need_extra
from sevenfold.core.files import write_atomic

ENDINGS = (".npy", ".npz", ".csv", ".parquet")


def check_out(out: Path, per_token: bool) -> None:
    """Refuse, before anything is computed, a file that could not be written."""
    if out.suffix not in ENDINGS:
        raise ConfigError(f"{out}: the ending says how to write; known: {', '.join(ENDINGS)}")
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder, not a file to write")
    if per_token and out.suffix == ".npy":
        raise ConfigError(f"{out}: a vector for every token needs to say whose it is: write .npz, .csv or .parquet")
    if out.suffix == ".parquet":
        _pyarrow()


def write(out: Path, vectors: Sequence[np.ndarray], where: Sequence[str]) -> None:
    """vectors: one [width], or one [tokens width], per item. Written whole or not at all."""
    per_token = vectors[0].ndim == 2
    every = np.concatenate(vectors) if per_token else np.stack(vectors)
    counts = [len(rows) for rows in vectors] if per_token else [1] * len(vectors)
    item = np.repeat(np.arange(len(vectors)), counts)
    of = [where[place] for place in item.tolist()]
    token = np.concatenate([np.arange(count) for count in counts])
    file = io.BytesIO()
    if out.suffix == ".npy":
        np.save(file, every, allow_pickle=False)
    elif out.suffix == ".npz":
        beside: dict[str, Any] = {"item": item} if per_token else {}
        np.savez(file, embeddings=every, where=np.array(where, dtype=np.str_), **beside)
    elif out.suffix == ".csv":
        file.write(_csv(every, of, token if per_token else None).encode())
    else:
        pyarrow, parquet = _pyarrow()
        beside = {"token": token} if per_token else {}
        parquet.write_table(pyarrow.table({"where": of, **beside, "embedding": list(every)}), file)
    write_atomic(out, file.getvalue())


def _csv(every: np.ndarray, where: Sequence[str], token: np.ndarray | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    beside = ["where"] if token is None else ["where", "token"]
    writer.writerow([*beside, *(f"e{place}" for place in range(every.shape[1]))])
    for place, row in enumerate(every):
        writer.writerow(
            [
                where[place],
                *([] if token is None else [int(token[place])]),
                *(f"{number:.9g}" for number in row.tolist()),
            ]
        )
    return text.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        need_extra("pyarrow", "parquet", error)
    return pyarrow, pyarrow.parquet
