"""Cells: the genes that one expresses, with their counts, become tokens along one axis.

By default ranks (`gene_rank`, as in Geneformer); `gene_bin` and `gene_value` are the two encodings of scGPT, `expression` is one
vector of all genes (as principal components and scVI see a cell).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization._genes import PER, GeneTokenizer, cell_of
from sevenfold.core import part
from sevenfold.core.cell import Cell
from sevenfold.core.errors import ConfigError
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._features import COLUMNS, Features
from sevenfold.modality._strings import spread

SHOWN = 12
"""Genes of a cell that are shown."""
TYPED = re.compile(r"\s*([^\s,;=:]+)[\s=:,]+([^\s,;]+)\s*")


class Cells(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("gene_rank")
        """How raw items become tokens."""
        pack: bool | Literal["whole"] | None = False
        """Not for cells: they are never laid end to end."""

    axes = ("gene",)
    error_unit: ClassVar[str] = "mean |difference| of log(1 + counts per 10,000), over the genes of either"

    def __init__(self, config: Any):
        if config.pack:
            raise ConfigError("pack: cells are not laid end to end: set it to false")
        super().__init__(config)

    def check(self, raw: Any) -> Cell:
        """A Cell that expresses something, with finite counts that are not negative."""
        return cell_of(raw)

    def error(self, raw: Any, back: Any) -> float:
        """Mean over the genes that either expresses; both brought to a sum of 10,000."""
        one, other = (_normalised(cell) for cell in (raw, back))
        genes = one.keys() | other.keys()
        return sum(abs(one.get(gene, 0.0) - other.get(gene, 0.0)) for gene in genes) / max(len(genes), 1)

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, Any]:
        cell = cell_of(raw)
        counts = np.asarray(cell.counts, np.float64)
        one = counts.copy()
        one[draw.integers(len(one))] += 1
        order = draw.permutation(len(counts))
        found = {
            "one more count of one gene": Cell(cell.genes, cell.at, one),
            "twice as deep": Cell(cell.genes, cell.at, 2 * counts),
            "another order of the genes": Cell(cell.genes, np.asarray(cell.at)[order], counts[order]),
        }
        if (counts > 0).sum() > 1:
            kept = np.delete(np.arange(len(counts)), draw.integers(len(counts)))
            found["one gene not seen"] = Cell(cell.genes, np.asarray(cell.at)[kept], counts[kept])
        return found

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """log(1 + counts per 10,000) of the genes that vary the most among training cells."""
        sums: dict[str, np.ndarray] = {}
        for cell in train:
            for gene, value in _normalised(cell).items():
                sums[gene] = sums.get(gene, np.zeros(2)) + (value, value**2)
        spread = {gene: float(both[1] / len(train) - (both[0] / len(train)) ** 2) for gene, both in sums.items()}
        genes = sorted(sorted(spread, key=lambda gene: (-spread[gene], gene))[:COLUMNS])
        place = {gene: column for column, gene in enumerate(genes)}

        def expression(cells: Sequence[Cell]) -> np.ndarray:
            found = np.zeros((len(cells), max(len(genes), 1)), np.float32)
            for row, cell in enumerate(cells):
                for gene, value in _normalised(cell).items():
                    if gene in place:
                        found[row, place[gene]] = value
            return found

        return (Features("log-normalised expression", expression, "one"),)

    def content(self, raw: Any) -> bytes:
        return str(cell_of(raw)).encode()

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        if not raws:
            return {"items": 0}
        cells = [cell_of(raw) for raw in raws]
        often: dict[str, int] = {}
        for cell in cells:
            for gene in cell.named:
                often[gene] = often.get(gene, 0) + 1
        top = sorted(often.items(), key=lambda pair: (-pair[1], pair[0]))[:8]
        facts = {
            "items": len(cells),
            "different genes": len(often),
            "genes of a cell, least / median / most": spread([len(cell.named) for cell in cells]),
            "counts of a cell, least / median / most": spread([round(float(np.sum(cell.counts)), 1) for cell in cells]),
            "in the most cells": ", ".join(f"{gene} {100 * count / len(cells):.0f}%" for gene, count in top),
        }
        tokenizer = self.tokenizer
        if isinstance(tokenizer, GeneTokenizer) and tokenizer.ready:
            share, unknown = tokenizer.coverage(cells)
            facts["counts of genes that the tokenizer knows"] = f"{100 * share:.2f}%"
            if unknown:
                shown = ", ".join(f"{gene} {100 * part:.2f}%" for gene, part in unknown[:8])
                facts["unknown genes, by their share of counts"] = f"{len(unknown)}: {shown}"
        return facts

    def html(self, raw: Any) -> str:
        """The strongest genes as bars."""
        found = _strongest(raw)
        most = max((count for _, count in found), default=1.0) or 1.0
        rows = "".join(
            f"<tr><td>{escape(gene)}</td><td><div style='width:{120 * count / most:.0f}px;height:.7em;"
            f"background:#1f5fae'></div></td><td>{count:.4g}</td></tr>"
            for gene, count in found
        )
        more = len(raw.named) - len(found)
        return f"<table>{rows}</table>" + (f"<small>and {more:,} more genes</small>" if more > 0 else "")

    def plain(self, raw: Any) -> str:
        found, number = _strongest(raw), len(raw.named)
        more = f" … ({number - len(found):,} more)" if number > len(found) else ""
        return ", ".join(f"{gene} {count:.4g}" for gene, count in found) + more

    def typed(self, text: str) -> Cell:
        """`CD3D 5, LYZ 2`, or the name of a file with a gene and its count on each line."""
        if not TYPED.fullmatch(text.partition(",")[0]) and Path(text).is_file():
            text = Path(text).read_text(encoding="utf-8", errors="replace")
        counts: dict[str, float] = {}
        for piece in filter(str.strip, re.split(r"[,;\n]" if "\n" not in text.strip() else r"\n", text)):
            match = TYPED.fullmatch(piece)
            try:
                counts[match[1]] = float(match[2])  # type: ignore[index]
            except (TypeError, ValueError):
                raise ValueError(
                    f"{piece.strip()[:40]!r} is not a gene and its count: write such as CD3D 5, LYZ 2"
                ) from None
        if not counts:
            raise ValueError("no gene is named: write such as CD3D 5, LYZ 2")
        return self.check(Cell.of(counts))

    def file(self, raw: Any) -> tuple[str, bytes]:
        """(".csv", a gene and its count on each line)."""
        lines = [f"{gene},{count:.9g}" for gene, count in raw.named.items()]
        return ".csv", ("\n".join(lines) + "\n").encode()

    def augmentation(self) -> Augmentation:
        """Sequenced less deeply, some genes not seen; in pieces more of them."""
        return Augmentation(
            ({"kind": "thin", "share": (0.5, 0.9)}, {"kind": "drop_genes", "rate": 0.2}),
            ({"kind": "thin", "share": (0.2, 0.5)}, {"kind": "drop_genes", "rate": 0.5}),
        )

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """Ranked genes, a trunk that sees all of them, hidden genes filled in."""
        lengths = [len(cell.at) for cell in raws]
        if not lengths:
            return None
        most = int(min(256, max(lengths)))
        trunk = {"inputs": [name], "position": {"kind": "learned", "size": most}}
        return Suggestion(
            stream={"kind": "cells", "tokenizer": {"kind": "gene_rank", "most": most}},
            trunks={"enc": trunk},
            objective={"kind": "masked_token"},
            train={"batch": 32},
            tokens=float(np.mean(np.minimum(lengths, most))),
            why=[
                f"{name}: a cell is its genes in the order of how unusually strong they are, at most {most} of them",
                f"{name}: hidden genes are filled in from the others (as Geneformer), which needs no labels",
            ],
            tower=trunk,
        )


def _normalised(cell: Cell) -> dict[str, float]:
    named = cell.named
    total = sum(named.values()) or 1.0
    return {gene: float(np.log1p(PER * count / total)) for gene, count in named.items()}


def _strongest(cell: Cell) -> list[tuple[str, float]]:
    return sorted(cell.named.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN]
