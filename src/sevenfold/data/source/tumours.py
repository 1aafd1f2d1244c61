"""569 breast tumours, 30 measurements of their cell nuclei each, real data that come with scikit-learn: nothing to
download.

Street, Wolberg and Mangasarian 1993, doi:10.24432/C5DW2B. For first steps with tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from sevenfold.data.source import Sample, Source


class Tumours(Source):
    """Samples are {"row": dict from measurement to float, "label": "benign" or "malignant"}."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are part of scikit-learn."""
        held_out: float = Field(default=0.2, gt=0, lt=1)
        """The share of rows that is never trained on, chosen by a hash of the row."""

    def __init__(self, config: Any):
        super().__init__(config)
        from sklearn.datasets import load_breast_cancer

        found = load_breast_cancer()
        self._names = [str(name) for name in found.feature_names]
        self._rows = found.data[: config.limit].tolist()
        self._labels = [str(found.target_names[one]) for one in found.target[: config.limit]]

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config()

    @property
    def fields(self) -> dict[str, str]:
        return {"row": "table", "label": "label"}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return {"row": dict(zip(self._names, self._rows[index])), "label": self._labels[index]}

    def where(self, index: int) -> str:
        return f"scikit-learn's tumours: row {index}"

    def files(self) -> list[Path]:
        return []
