"""Pictures of a card as inline SVG: representations on a plane, and confidence against accuracy.

PCA    the two directions in which the test items vary the most                   Pearson 1901, doi:10.1080/14786440109462720
UMAP   neighbours kept together; distances between clouds mean nothing           McInnes 2018, arXiv:1802.03426
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from sevenfold.core.errors import need_extra
from sevenfold.evaluation.calibration import Calibration
from sevenfold.modality._drawn import COLOURS, svg

SIDE, SHOWN, NAMED = 480, 2000, 8


def scatter(x: np.ndarray, labels: Sequence[Any] | np.ndarray, how: str, target: str) -> str:
    """[n d] with a class (str) or a number of each → HTML with a dot an item, at most 2,000 of them."""
    step = -(-len(x) // SHOWN)
    x, labels = x[::step], list(labels[::step])
    plane = umap(x) if how == "umap" else pca(x)
    dots = _scaled(plane)
    names: list[str] = []
    if labels and isinstance(labels[0], str):
        names = [name for name, _ in Counter(labels).most_common(NAMED)]
        colours = [COLOURS[names.index(one)] if one in names else "#b5b9c0" for one in labels]
    else:
        ranks = np.argsort(np.argsort(labels)) / max(len(labels) - 1, 1)
        colours = [f"hsl({240 - 240 * rank:.0f} 70% 45%)" for rank in ranks]
    circles = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}" fill-opacity="0.6"/>'
        for (a, b), colour in zip(dots.tolist(), colours)
    )
    legend = " ".join(
        f'<span style="color:{COLOURS[place]}">● {escape(name)}</span>' for place, name in enumerate(names)
    )
    more = " and others, grey" if names and len(set(labels)) > len(names) else ""
    told = legend + more if names else f"blue to red: {escape(target)}, from low to high"
    title = f"{'UMAP' if how == 'umap' else 'PCA'} of the representations of {len(x)} test items"
    return f"<h2>{title}</h2><p>{told}</p>{svg(circles, SIDE, SIDE, title)}"


def pca(x: np.ndarray) -> np.ndarray:
    """[n 2]: the first two principal components."""
    centred = x - x.mean(0)
    _, _, way = np.linalg.svd(centred, full_matrices=False)
    found = centred @ way[:2].T
    return found if found.shape[1] == 2 else np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def umap(x: np.ndarray) -> np.ndarray:
    """[n 2]; MissingExtra without umap-learn."""
    try:
        from umap import UMAP
    except ImportError as error:
        need_extra("umap-learn", "umap", error)
    return UMAP(n_components=2, random_state=0).fit_transform(x)


def _scaled(plane: np.ndarray) -> np.ndarray:
    low, high = plane.min(0), plane.max(0)
    return 8 + (plane - low) / np.where(high > low, high - low, 1.0) * (SIDE - 16)


def reliability(made: Calibration, side: int = 280) -> str:
    """Accuracy against confidence in 15 bins; a dot's size is its share of the items."""
    total = sum(items for _, _, items in made.bins)
    dots = "".join(
        f'<circle cx="{20 + confidence * (side - 40):.1f}" cy="{side - 20 - accuracy * (side - 40):.1f}" '
        f'r="{3 + 12 * (items / total) ** 0.5:.1f}" fill="{COLOURS[0]}" fill-opacity="0.6"/>'
        for confidence, accuracy, items in made.bins
    )
    line = f'<path d="M20 {side - 20}L{side - 20} 20" stroke="#b5b9c0" fill="none"/>'
    frame = f'<rect x="20" y="20" width="{side - 40}" height="{side - 40}" fill="none" stroke="#d8dbe0"/>'
    words = (
        f'<text x="{side / 2:.0f}" y="{side - 4}" font-size="12" text-anchor="middle">confidence</text>'
        f'<text x="12" y="{side / 2:.0f}" font-size="12" text-anchor="middle" transform="rotate(-90 12 {side / 2:.0f})">accuracy</text>'
    )
    title = "Confidence and accuracy (on the line: calibrated)"
    return f"<h2>{title}</h2>{svg(frame + line + dots + words, side, side, title)}"
