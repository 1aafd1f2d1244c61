"""What the modalities of numbers share: curves and clouds as inline SVG, and as blocks in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLOURS = ("#1f5fae", "#c2571a", "#2b8a3e", "#8d3fa8", "#a8323e", "#4a4f57", "#0b7a75", "#946c00")
WIDTH, HEIGHT = 320, 96
SHOWN = 8
"""Channels of a series that are drawn."""
LEVELS = "▁▂▃▄▅▆▇█"
SHADES = " ░▒▓█"


def curves(values: np.ndarray, title: str) -> str:
    """[T C] as one SVG, a line per channel (the first 8), each over its own range; gaps where numbers are missing."""
    lines = []
    for place, column in enumerate(values.T[:SHOWN]):
        low, high = least_most(column)
        span = (high - low) or 1.0
        column = column[:: max(1, len(column) // WIDTH)]
        across = np.linspace(2, WIDTH - 2, len(column))
        path, pen = "", "M"
        for x, y in zip(across, HEIGHT - 4 - (column - low) / span * (HEIGHT - 8)):
            path += f"{pen}{x:.1f} {y:.1f}" if np.isfinite(y) else ""
            pen = "L" if np.isfinite(y) else "M"
        colour = COLOURS[place % len(COLOURS)]
        lines.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
    return svg("".join(lines), WIDTH, HEIGHT, title)


def scatter(points: np.ndarray, title: str, side: int = 160, most: int = 2000) -> str:
    """[n 3…] as one SVG of two views: x and y from above, x and z from the front; one scale for all axes."""
    places = points[:: -(-len(points) // most) or 1, :3]
    low, high = places.min(0), places.max(0)
    scale = (side - 8) / (float((high - low).max()) or 1.0)
    dots = (places - low) * scale + 4
    drawn = [
        f'<circle cx="{x + shift:.1f}" cy="{side - y:.1f}" r="1.3"/>'
        for shift, axis in ((0, 1), (side, 2))
        for x, y in dots[:, [0, axis]].tolist()
    ]
    return svg(f'<g fill="{COLOURS[0]}" fill-opacity="0.6">{"".join(drawn)}</g>', 2 * side, side, title)


def svg(inside: str, width: int, height: int, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{title}">{inside}</svg>'
    )


def least_most(values: np.ndarray) -> tuple[float, float]:
    """The least and the largest finite number; 0 and 0 where there is none."""
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)


def sparks(values: Sequence[float] | np.ndarray, width: int = 64) -> str:
    """A line of numbers as blocks of eight heights, a space where one is missing."""
    column = np.asarray(values, np.float64)
    column = column[:: max(1, -(-len(column) // width))]
    low, high = least_most(column)
    level = (column - low) / ((high - low) or 1.0) * (len(LEVELS) - 1)
    return "".join(LEVELS[round(one)] if np.isfinite(one) else " " for one in level.tolist())


def shades(counts: np.ndarray) -> str:
    """[rows columns] as block characters, two to a cell, darker where larger."""
    level = np.ceil(counts / (counts.max() or 1) * (len(SHADES) - 1)).astype(int)
    return "\n".join("".join(SHADES[one] * 2 for one in row) for row in level)
