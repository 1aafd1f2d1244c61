"""1,797 handwritten digits of 8x8 pixels, real data that come with scikit-learn: nothing to download.

    pixel = round(level 255 / 16)       level 0 … 16 = round(pixel 16 / 255)

Each has its label and a caption in one of ten wordings, chosen by a hash of its number. Alpaydin and Kaynak 1998,
doi:10.24432/C50P49, the test set. For first steps with image, label and image-text models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.core.seeds import seed_of
from sevenfold.data.source import Sample, Source

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDINGS = (
    "a handwritten {name}",
    "the digit {digit}",
    "number {name}",
    "a {name}",
    "this is a {digit}",
    "a picture of the digit {name}",
    "somebody wrote a {name}",
    "{digit}",
    "the number {digit} in ink",
    "a small image of a {digit}",
)


class Digits(Source):
    """Samples are {"image": uint8 [8 8 1], "label": "0" … "9", "caption": str, "ink": the mean level as a share of the most}."""

    class Config(Source.Config):
        path: str | None = None
        """Not used: the data are part of scikit-learn."""
        held_out: float = Field(default=0.2, gt=0, lt=1)
        """The share of images that is never trained on, chosen by a hash of the image."""

    def __init__(self, config: Any):
        super().__init__(config)
        from sklearn.datasets import load_digits

        levels, labels = load_digits(return_X_y=True)
        self._images = np.rint(levels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)[: config.limit]
        self._labels = [str(label) for label in labels[: config.limit]]

    @classmethod
    def example(cls, folder: Path) -> Any:
        return cls.Config()

    @property
    def fields(self) -> dict[str, str]:
        return {"image": "image", "label": "label", "caption": "text", "ink": "number"}

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        digit = self._labels[index]
        wording = WORDINGS[seed_of("digits", index) % len(WORDINGS)]
        caption = wording.format(digit=digit, name=NAMES[int(digit)])
        image = self._images[index]
        return {"image": image, "label": digit, "caption": caption, "ink": float(image.mean() / 255)}

    def where(self, index: int) -> str:
        return f"scikit-learn's digits: image {index}"

    def files(self) -> list[Path]:
        return []
