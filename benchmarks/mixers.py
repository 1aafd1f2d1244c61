"""Time and peak memory of every self-mixer, forward and backward, over sequence lengths: a table and a picture.

    python benchmarks/mixers.py --most 32768 --width 64 --out mixers.png

Each point is a process of its own, so that its peak is its own. The exponent is the slope of log time over log tokens
between 4k and 32k. A point whose time, foretold from the two before it, is beyond --limit seconds is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from sevenfold.core.part import decode, find
from sevenfold.core.rooms import kinds
from sevenfold.core.types import Hidden, Mask


def measured(kind: str, tokens: int, width: int, causal: bool, settings: dict) -> dict[str, float]:
    """Seconds (the best of up to three) and MiB above what the process held before, in this process."""
    torch.manual_seed(0)
    mixer = decode(find("mixing", kind).Config, {"kind": kind, **settings}).build(width)
    mixer(Hidden(torch.randn(1, 64, width)), Mask(causal=causal)).sum().backward()  # what the first call costs
    x = torch.randn(1, tokens, width, requires_grad=True)
    before, best, forward, spent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, math.inf, math.inf, 0.0
    for _ in range(3):
        start = time.perf_counter()
        y = mixer(Hidden(x), Mask(causal=causal))
        middle = time.perf_counter()
        y.sum().backward()
        end = time.perf_counter()
        forward, best, spent = min(forward, middle - start), min(best, end - start), spent + end - start
        if spent > 2:
            break
    return {
        "forward": forward,
        "seconds": best,
        "MiB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def apart(kind: str, tokens: int, width: int, causal: bool, settings: dict) -> dict[str, float]:
    """The same in a process of its own."""
    point = json.dumps([kind, tokens, width, causal, settings])
    done = subprocess.run([sys.executable, __file__, "--point", point], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind} with {tokens} tokens: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def slope(points: dict[int, float], low: int = 4096) -> float | None:
    """The exponent of a power law through the points from `low` on (least squares of logarithms)."""
    chosen = [(math.log(n), math.log(value)) for n, value in points.items() if n >= low and value > 0]
    if len(chosen) < 2:
        return None
    mean_x, mean_y = (sum(part) / len(chosen) for part in zip(*chosen))
    return sum((x - mean_x) * (y - mean_y) for x, y in chosen) / sum((x - mean_x) ** 2 for x, _ in chosen)


def foretold(points: dict[int, float], tokens: int) -> float:
    """Seconds at `tokens`, from the last two points."""
    known = sorted(points)
    if len(known) < 2:
        return 0.0
    a, b = known[-2:]
    power = max(1.0, math.log(points[b] / points[a]) / math.log(b / a))
    return points[b] * (tokens / b) ** power


def draw(table: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Time and memory over tokens, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5))
    for axis, name in zip(axes, ("seconds", "MiB")):
        for kind, points in table.items():
            axis.loglog(list(points), [max(point[name], 1e-4) for point in points.values()], marker="o", label=kind)
        axis.set(xlabel="tokens", ylabel=name)
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", help="kinds, separated by commas; by default all that mix a line of tokens")
    parser.add_argument("--most", type=int, default=32768)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of one forward and backward pass")
    parser.add_argument("--out", type=Path, default=Path("mixers.png"))
    parser.add_argument("--point", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point:
        print(json.dumps(measured(*json.loads(given.point))))
        return
    parts = [find("mixing", kind) for kind in kinds("mixing")]
    chosen = [p.kind for p in parts if not (p.crosses or p.pairs or p.needs) and p.continues]
    if given.mixers:
        chosen = given.mixers.split(",")
    sizes = [512 << i for i in range(20) if 512 << i <= given.most]
    table: dict[str, dict[int, dict[str, float]]] = {}
    print("| mixer | " + " | ".join(f"{n:,}" for n in sizes) + " | exponent of time | of memory |")
    print("|---|" + "---|" * (len(sizes) + 2))
    for kind in chosen:
        points = table[kind] = {}
        cells = []
        for n in sizes:
            guess = foretold({m: point["seconds"] for m, point in points.items()}, n)
            if guess > given.limit:
                cells.append(f"left out ({guess:.0f} s)")
                continue
            found = points[n] = apart(kind, n, given.width, True, {})
            cells.append(
                f"{found['forward']:.3f} + {found['seconds'] - found['forward']:.3f} s, {found['MiB']:.0f} MiB"
            )
        powers = [slope({n: point[name] for n, point in points.items()}) for name in ("seconds", "MiB")]
        cells += ["" if power is None else f"{power:.2f}" for power in powers]
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)
    draw(table, given.out)
    if "local_global" in chosen and "attention" in chosen and given.most >= 8192:
        for causal in (False, True):
            full = apart("attention", 8192, 512, causal, {"heads": 8})["seconds"]
            near = apart("local_global", 8192, 512, causal, {"heads": 8, "window": 256})["seconds"]
            name = "causal" if causal else "bidirectional"
            print(
                f"8,192 tokens, 8 heads of 64, window 256, {name}: attention {full:.2f} s, local_global {near:.2f} s, "
                f"{full / near:.1f} times"
            )


if __name__ == "__main__":
    main()
