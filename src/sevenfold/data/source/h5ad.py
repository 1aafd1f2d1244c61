"""AnnData files of single cells: .h5ad. Needs the extra `biology` (anndata).

    X [cells genes], obs (a row per cell), var (a row per gene), layers, raw

Virshup 2024, doi:10.21105/joss.04371; anndata.readthedocs.io. Read by scanpy, Geneformer, scGPT and CELLxGENE. Counts are
wanted. Where X is centred (it holds negative numbers), `raw` is taken; what looks like log(1 + counts) is brought back
by its inverse; both are noted. Columns of obs become labels (words, categories, true/false) and numbers.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.cell import Cell, Genes
from sevenfold.core.errors import BadSample, DataError, did_you_mean, need_extra
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Sample, Source
from sevenfold.data.source._files import LARGEST, expands_to, within_memory

NAMES = ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names")
"""Columns of var with the names that people use, where the index holds Ensembl numbers."""
MOST_LABELS = 1000
HIGHEST_LOG = 20.0
"""The log of 1 + a count is below it."""

MATRICES = ("X", "layers", "raw/X")
"""What is read by rows, its size checked then."""
SLACK = 512 << 20
"""Bytes that anndata may take beside what is in the file: what it imports, and tables as they are made."""


class H5ad(Source):
    """Samples are {"cells": Cell, and a field for each usable column of obs}."""

    class Config(Source.Config):
        layer: str | None = None
        """Where the counts are: a name of `layers`, `raw` or `X`; by default a layer `counts`, else X, else raw."""
        genes: str | None = None
        """The column of var with the names of genes; by default its index, or the symbols where that is of numbers."""
        logged: bool | None = None
        """Whether values are log(1 + counts), to be undone; by default so if they are no whole numbers and below 20."""
        columns: tuple[str, ...] | None = None
        """Columns of obs that become fields; by default all that can."""
        largest_bytes: int = Field(default=LARGEST, ge=1)
        """The counts that are not 0 may not take more memory than this."""

    suffixes = (".h5ad",)

    def __init__(self, config: Any):
        super().__init__(config)
        try:
            import anndata
        except ImportError as error:
            need_extra("anndata", "biology", error)
        path = self.path
        if not path.is_file() or path.stat().st_size == 0:
            raise DataError(f"{path}: is {'empty' if path.is_file() else 'a folder; give an .h5ad file'}")
        try:
            largest = expands_to(path.stat().st_size, self.config.largest_bytes)
            declared = self._check_sizes(path, largest)
            with warnings.catch_warnings(), within_memory(2 * declared + largest + SLACK):
                warnings.simplefilter("ignore")
                data = anndata.read_h5ad(path, backed="r")
        except DataError:
            raise
        except Exception as error:  # HDF5 and anndata raise anything on a damaged file
            raise DataError(f"{path}: cannot be read as .h5ad: {_line(error)}") from None
        try:
            self._read(data)
        except (OSError, KeyError, TypeError, IndexError, RuntimeError, ValueError) as error:
            raise DataError(f"{path}: is damaged: {_line(error)}") from None
        finally:
            data.file.close()

    def _check_sizes(self, path: Path, most: int) -> int:
        """Bytes that the file says it holds. DataError where what stands beside the matrices, which anndata reads whole, says that it is
        far longer than the file."""
        import h5py

        declared = 0

        def look(name: str, found: Any) -> None:
            nonlocal declared
            size = found.size * found.dtype.itemsize if isinstance(found, h5py.Dataset) and found.size else 0
            declared += size
            if size > most and not name.startswith(MATRICES):
                raise DataError(
                    f"{path}: {name} declares {size:,} bytes, and {most:,} are allowed: it is damaged, or raise largest_bytes"
                )

        with h5py.File(path) as file:
            file.visititems(look)
        return declared

    def _read(self, data: Any) -> None:
        matrix, var, chosen = self._chosen(data)
        self.genes = self._names(var)
        counts = self._loaded(matrix, chosen)
        if self.config.layer is None and chosen == "X" and counts.nnz and counts.data.min() < 0:
            if data.raw is None:
                raise DataError(
                    f"{self.path}: X holds negative numbers (it is centred) and there is no raw: name the layer of counts"
                )
            self._notes.append("X is centred (it holds negative numbers), so raw was read instead")
            matrix, var = data.raw.X, data.raw.var
            self.genes, counts = self._names(var), self._loaded(matrix, "raw")
        looks = counts.data[: 1 << 20]
        logged = self.config.logged
        if logged is None:
            fine = bool(len(looks)) and bool(np.isfinite(looks).all())
            logged = fine and bool((looks != np.rint(looks)).any()) and 0 <= looks.min() <= looks.max() < HIGHEST_LOG
            if logged:
                self._notes.append(
                    "the values look like log(1 + counts), which was undone (logged: false to leave them)"
                )
        if logged:
            counts.data = np.expm1(counts.data)
        self._counts = counts
        self._columns = self._obs(data.obs)

    def _chosen(self, data: Any) -> tuple[Any, Any, str]:
        """(the matrix, var, its name) of the config."""
        name = self.config.layer or ("counts" if "counts" in data.layers else "X" if data.X is not None else "raw")
        if name == "X" and data.X is not None:
            return data.X, data.var, name
        if name == "raw" and data.raw is not None:
            return data.raw.X, data.raw.var, name
        if name not in data.layers:
            known = ["X", *data.layers, *(["raw"] if data.raw is not None else [])]
            raise DataError(f"{self.path}: data.layer: there is no {name!r}{did_you_mean(name, known)}")
        return data.layers[name], data.var, name

    def _names(self, var: Any) -> Genes:
        column = self.config.genes
        if column is not None and column not in var:
            raise DataError(f"{self.path}: data.genes: var has no {column!r}{did_you_mean(column, map(str, var))}")
        names = [str(name) for name in (var.index if column is None else var[column])]
        if column is None and sum(name.startswith("ENS") for name in names) > len(names) / 2:
            column = next((known for known in NAMES if known in var), None)
            names = names if column is None else [str(name) for name in var[column]]
        times: dict[str, int] = {}
        for place, name in enumerate(names):
            times[name] = times.get(name, 0) + 1
            names[place] = name if times[name] == 1 else f"{name}.{times[name]}"
        twice = sum(count > 1 for count in times.values())
        if twice:
            self._notes.append(f"{twice} names of genes stand more than once; the later ones were given a number")
        try:
            return Genes(names)
        except ValueError as error:
            raise DataError(f"{self.path}: var: {error}") from None

    def _loaded(self, matrix: Any, name: str) -> Any:
        """The first `limit` rows as scipy CSR float32, its size checked first."""
        from scipy import sparse

        rows = min(matrix.shape[0], self.config.limit or matrix.shape[0])
        share = rows / max(matrix.shape[0], 1)
        stored = getattr(getattr(matrix, "group", None), "get", lambda _: None)("data")
        size = 8 * share * (stored.shape[0] if stored is not None else matrix.shape[0] * matrix.shape[1])
        if size > self.config.largest_bytes:
            raise DataError(
                f"{self.path}: {name} takes {size:,.0f} bytes, and {self.config.largest_bytes:,} are allowed: set limit, or "
                "raise largest_bytes"
            )
        if matrix.shape[1] != len(self.genes):
            raise DataError(f"{self.path}: {name} has {matrix.shape[1]} columns for {len(self.genes)} genes")
        taken = matrix[:rows]
        if sparse.issparse(taken):
            taken.check_format(full_check=True)  # scipy follows what indices say, wherever that leads
        found = sparse.csr_matrix(taken, dtype=np.float32)
        found.sum_duplicates()
        return found

    def _obs(self, obs: Any) -> dict[str, tuple[str, list[Any]]]:
        """Column → (modality, values); those that cannot be fields are noted."""
        if self.config.columns is not None:
            for name in self.config.columns:
                if name not in obs:
                    raise DataError(
                        f"{self.path}: data.columns: obs has no {name!r}{did_you_mean(name, map(str, obs))}"
                    )
        found: dict[str, tuple[str, list[Any]]] = {}
        left = []
        for name in self.config.columns or [str(column) for column in obs]:
            column = obs[name].iloc[: self._counts.shape[0]]
            missing = column.isna().tolist()
            values: list[Any]
            if column.dtype.kind in "iuf":
                values = [None if gone else float(value) for value, gone in zip(column.tolist(), missing)]
                kind = "number"
            else:
                values = [None if gone else str(value) for value, gone in zip(column.tolist(), missing)]
                kind = "label"
                if len(set(values) - {None}) > max(2, min(MOST_LABELS, len(values) / 2)):
                    left.append(name)
                    continue
            if name != "cells":
                found[name] = (kind, values)
        if left:
            self._notes.append(f"left out, as nearly every cell has another value: {', '.join(left)}")
        return found

    @classmethod
    def example(cls, folder: Path) -> Any:
        try:
            import anndata
        except ImportError as error:
            need_extra("anndata", "biology", error)
        import pandas
        from scipy import sparse

        draw = numpy_generator("h5ad")
        counts = draw.poisson(draw.gamma(0.5, 4.0, (2, 20))[np.arange(24) % 2]) + np.eye(24, 20, dtype=np.int64)
        counts[:, 0] += 1
        obs = pandas.DataFrame({"cell_type": [f"type {row % 2}" for row in range(24)], "age": np.arange(24) % 7 + 0.5})
        obs.index = obs.index.map("cell{}".format)
        var = pandas.DataFrame(index=[f"GENE{number}" for number in range(20)])
        made = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs, var)
        made.write_h5ad(folder / "cells.h5ad")
        return cls.Config(path=str(folder / "cells.h5ad"))

    @property
    def fields(self) -> dict[str, str]:
        return {"cells": "cells", **{name: kind for name, (kind, _) in self._columns.items()}}

    def __len__(self) -> int:
        return int(self._counts.shape[0])

    def __getitem__(self, index: int) -> Sample:
        start, stop = self._counts.indptr[index : index + 2]
        at, counts = self._counts.indices[start:stop], self._counts.data[start:stop]
        wrong = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
        if len(wrong):
            gene = self.genes.names[at[wrong[0]]]
            raise BadSample(self.where(index), f"the count of gene {gene!r} is {counts[wrong[0]]:g}")
        if not counts.any():
            raise BadSample(self.where(index), "expresses no gene: all of its counts are 0")
        fields = {name: values[index] for name, (_, values) in self._columns.items()}
        kept = {name: value for name, value in fields.items() if value is not None}
        return {"cells": Cell(self.genes, at, counts), **kept}

    def where(self, index: int) -> str:
        return f"{self.path}: cell {index}"

    def key(self, index: int) -> str:
        start, stop = self._counts.indptr[index : index + 2]
        self[index]
        content = self._counts.indices[start:stop].tobytes() + self._counts.data[start:stop].tobytes()
        return hashlib.blake2b(content, digest_size=16).hexdigest()


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
