"""Draw position schemes, and print the four properties of each as measured figures.

sevenfold positions
sevenfold positions rotary alibi relative_bias --length 256 --out positions.png
sevenfold positions --axes 2

unique: share of pairs of places with different codes. bounded: how much larger codes are at 16 times the length (1: not
at all). relative: share of what two places make of each other that their difference explains. extrapolating: share of
code values beyond the length that lie within the range seen before it / share of attention, by position alone, that a
query at 4 times the length gives to distances that were seen. Learned tables are shown as they begin.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="position kinds; by default all")
    parser.add_argument("--length", type=int, default=64, help="places, as in training (default 64)")
    parser.add_argument("--width", type=int, default=64, help="channels (default 64)")
    parser.add_argument("--axes", type=int, default=1, choices=(1, 2, 3), help="coordinates of a place (default 1)")
    parser.add_argument("--out", metavar="FILE", default="positions.png", help="the picture (default positions.png)")


def run(args: argparse.Namespace) -> int:
    from sevenfold.cli._table import table
    from sevenfold.explain.positions import draw, profiles

    found, left = profiles(args.kinds or None, args.length, args.width, args.axes)
    rows = [
        [
            one.kind,
            one.what,
            f"{100 * one.unique:.1f} %",
            "refuses" if one.refused else f"{one.bounded:.2g}",
            "-" if one.relative is None else f"{one.relative:.3f}",
            "refuses" if one.refused else f"{100 * (one.in_range or 0):.0f} % / {100 * (one.near or 0):.0f} %",
        ]
        for one in found
    ]
    table(["position", "does", "unique", "bounded", "relative", "extrapolating"], rows, left=2)
    for line in left:
        print(f"left out: {line}")
    if found:
        path = Path(args.out)
        draw(found, args.axes).savefig(path, dpi=110)
        print(f"drawn in {path}")
    return 0
