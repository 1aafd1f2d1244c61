"""What the tokenizers of gene expression share: which genes are known, and how strongly each is usually expressed.

    x_g = 10,000 c_g / sum c / m_g;   m_g: median of 10,000 c_g / sum c over the training cells that express g

The sum is over all genes of the cell, known or not: what other genes a file names makes no difference to a known one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.core.cell import Cell, Genes
from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.files import read_json, write_atomic
from sevenfold.core.seeds import numpy_generator

FILE = "genes.json"
PER = 10_000.0
"""Counts are brought to this sum."""


def cell_of(raw: Any) -> Cell:
    """The raw item if it is a cell whose counts can be used; ValueError, one line, naming the gene, if it is not."""
    if not isinstance(raw, Cell):
        raise ValueError(f"a cell is a sevenfold.core.cell.Cell (names and counts), not {type(raw).__name__}")
    counts = np.asarray(raw.counts)
    if counts.shape != np.shape(raw.at) or counts.ndim != 1:
        raise ValueError(f"a cell has one count a gene, not {list(counts.shape)} for {list(np.shape(raw.at))}")
    at = np.asarray(raw.at)
    if len(at) and not 0 <= at.min() <= at.max() < len(raw.genes):
        raise ValueError(f"a cell names genes by places 0 … {len(raw.genes) - 1}, not {at.min()} … {at.max()}")
    if not (np.diff(at) > 0).all() and len(np.unique(at)) < len(at):
        ordered = np.sort(at)
        twice = raw.genes.names[ordered[1:][np.diff(ordered) == 0][0]]
        raise ValueError(f"the gene {twice!r} stands twice in the cell: add its counts up")
    wrong = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if len(wrong):
        gene, count = raw.genes.names[raw.at[wrong[0]]], counts[wrong[0]]
        hint = "" if np.isnan(count) or count > 0 else ": give counts, not centred or scaled values"
        raise ValueError(f"the count of gene {gene!r} is {count:g}, but counts are finite and not below 0{hint}")
    return raw


class GeneTokenizer(Tokenizer):
    """Knows the genes of its training cells. A gene that it does not know makes no token; `coverage` says how much that
    leaves out, and a cell of which nothing is known is an error."""

    class Config(Tokenizer.Config):
        genes: int = Field(25_000, ge=1, le=1_000_000)
        """The most genes that it knows: those that the most training cells express."""
        most: int = Field(1024, ge=1, le=1 << 20)
        """The most genes of a cell; the weakest for what is usual of them (x_g) are left out."""

    lossless = False
    first = 0
    """The id of the first gene, where genes are ids."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.genes = Genes(())
        """The genes it knows, in the order of their names."""
        self.medians = np.zeros(0)
        """m_g of each, [genes] float64."""
        self._seen: tuple[Genes, np.ndarray] | None = None

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[Cell]:
        draw = numpy_generator("cells", seed)
        genes = Genes(f"GENE{number}" for number in range(1, 41))
        rates = draw.gamma(0.5, 6.0, (3, len(genes)))
        counts = draw.poisson(rates[np.arange(24) % 3]) + (np.arange(len(genes)) == 0)
        return [Cell(genes, np.flatnonzero(row), row[row > 0].astype(np.float32)) for row in counts]

    def fit(self, raws: Iterable[Any]) -> None:
        cells = [cell_of(raw) for raw in raws]
        total = Genes(
            sorted({name for genes in {id(c.genes): c.genes for c in cells}.values() for name in genes.names})
        )
        self._seen, place, value = None, [np.zeros(0, np.int64)], [np.zeros(0)]
        for cell in cells:
            at, x = self._known(cell, total)
            place.append(at)
            value.append(x)
        places, values = np.concatenate(place), np.concatenate(value)
        if not len(places):
            raise DataError(f"no training cell of the {self.kind} tokenizer expresses a gene")
        often = np.bincount(places, minlength=len(total))
        kept = np.sort(np.argsort(-often, kind="stable")[: self.config.genes])
        kept = kept[often[kept] > 0]
        order = np.lexsort((values, places))
        ends = often.cumsum()
        low, high = ends - often + (often - 1) // 2, ends - often + often // 2
        ordered = np.append(values[order], 0.0)
        medians = (ordered[low.clip(0)] + ordered[high]) / 2
        self._seen = None
        self.adopt([total.names[index] for index in kept], medians[kept])
        self.learn(cells)

    def learn(self, cells: Sequence[Cell]) -> None:
        """What a kind learns besides names and medians."""

    def adopt(self, names: Sequence[str], medians: np.ndarray) -> None:
        """Know these genes; sets `size` or `features`."""
        self.genes, self.medians = Genes(names), np.asarray(medians, np.float64)

    def _known(self, cell: Cell, genes: Genes) -> tuple[np.ndarray, np.ndarray]:
        """Places in `genes` of the expressed genes that are in it, and 10,000 c / sum c of each; in order of place."""
        if self._seen is None or self._seen[0] is not cell.genes:
            places = np.array([genes.places.get(name, -1) for name in cell.genes.names], np.int64)
            self._seen = (cell.genes, places)
        counts = np.asarray(cell.counts, np.float64)
        at = self._seen[1][cell.at]
        kept = (at >= 0) & (counts > 0)
        order = np.argsort(at[kept], kind="stable")
        return at[kept][order], (counts[kept] * (PER / counts.sum()) if kept.any() else counts[kept])[order]

    def known(self, raw: Any) -> tuple[np.ndarray, np.ndarray]:
        """Genes [k] (by place, ascending) and 10,000 c / sum c [k] of what a cell expresses of the genes known.

        ValueError, one line: nothing is expressed, or nothing that is known."""
        check_ready(self)
        cell = cell_of(raw)
        at, x = self._known(cell, self.genes)
        if len(at):
            return at, x
        expressed = list(cell.named)
        if not expressed:
            raise ValueError("the cell expresses no gene: all of its counts are 0")
        raise ValueError(
            f"none of the {len(expressed)} genes of the cell, such as {expressed[0]!r}, is one of the {len(self.genes)} "
            f"known, such as {self.genes.names[0]!r}: give names of the same kind (symbols or Ensembl numbers)"
        )

    def strongest(self, at: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At most `most` of these genes, in order of place."""
        kept = np.sort(np.argsort(-(x / self.medians[at]), kind="stable")[: self.config.most])
        return at[kept], x[kept]

    def coverage(self, raws: Iterable[Any]) -> tuple[float, list[tuple[str, float]]]:
        """(the share of all counts that is of known genes, (unknown gene, its share of the counts), largest first)."""
        check_ready(self)
        unknown: dict[str, float] = {}
        total = 0.0
        for raw in raws:
            for gene, count in cell_of(raw).named.items():
                total += count
                if gene not in self.genes.places:
                    unknown[gene] = unknown.get(gene, 0.0) + count
        order = sorted(unknown.items(), key=lambda pair: (-pair[1], pair[0]))
        return 1 - sum(unknown.values()) / max(total, 1e-300), [(gene, count / total) for gene, count in order]

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        record = {"genes": self.genes.names, "medians": self.medians.tolist(), **self.record()}
        write_atomic(Path(folder) / FILE, json.dumps(record, ensure_ascii=False) + "\n")
        return [*names, FILE]

    def record(self) -> dict[str, Any]:
        """What a kind saves besides names and medians."""
        return {}

    def restore(self, folder: Path) -> None:
        path = Path(folder) / FILE
        record = read_json(path)
        try:
            names, medians = record["genes"], np.array(record["medians"], np.float64)
            if not names or any(type(name) is not str for name in names) or medians.shape != (len(names),):
                raise ValueError
            if not (np.isfinite(medians) & (medians > 0)).all():
                raise ValueError
            self.adopt(names, medians)
            self.relearn(record)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise CheckpointError(f"{path}: is not a list of genes with a positive median each") from None

    def relearn(self, record: dict[str, Any]) -> None:
        """Take over what `record` gave; KeyError, TypeError or ValueError if it is not that."""
