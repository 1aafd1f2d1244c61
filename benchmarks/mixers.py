"""Time and peak memory of every mixer, forward and backward, over sequence lengths: a table and a picture.

    python benchmarks/mixers.py [--mixers hyena,conv] [--most 32768] [--width 64] [--seconds 8] [--out mixers.png]

Each point is a process of its own, which sets its high-water mark of memory back after its input is made (Linux; elsewhere
memory is left out). Cross mixers read a memory of as many tokens; mixers of a grid read 16 rows; what touches a pair
[n n p] is measured at small n, in a table of its own. A point whose time, foretold from the two before it, is beyond
--seconds is left out, and named.

The exponent is the slope of log time (or memory) over log tokens, between 4k and 32k. A mixer claims to be sub-quadratic if
its own formula of FLOPs grows by an exponent of at most 1.2 there; if the exponent that is measured is larger, the line says so
and the command fails. Where `local_global` and `attention` are measured, so is what is left of them without projections,
which both have in common, at 8,192 tokens and 8 heads of 64. A busy machine spoils all of it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sevenfold.core.part import decode, find
from sevenfold.core.rooms import kinds
from sevenfold.core.types import Hidden, Mask

LOW, HIGH = 4096, 32768
"""Between which exponents are fitted."""
ALLOWED = 1.2
"""The largest exponent of what claims to be sub-quadratic."""
ROWS = 16
"""Rows of a grid of tokens."""
FASTER = 6.0
"""How much faster than full attention a window must be: causal, at 8,192 tokens, without projections."""
LONGER = 4.6
"""How much longer four times the tokens may take it, of the same."""


def resident(name: str) -> int | None:
    """VmRSS (held now) or VmHWM (held at most) of this process in KiB; None where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name))
    except OSError:
        return None


def forget_high_water() -> None:
    """The most that was held is from now on what is held now, and that is what is in use."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # else what was freed before would be used again, unseen
    if trim is not None:
        trim(0)
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass


def touches_a_pair(kind: str) -> bool:
    part = find("mixing", kind)
    return bool(part.pairs or "pair" in part.needs)


def given(mixer: Any, tokens: int, width: int) -> Hidden:
    """A row of tokens, with what the mixer needs beside it, as a trunk would hand it over."""
    x = torch.randn(1, tokens, width, requires_grad=not mixer.pairs)
    hidden = Hidden(x, torch.arange(tokens)[None, :, None])
    if mixer.crosses:
        hidden = hidden._replace(memory=Hidden(torch.randn(1, tokens, mixer.width, requires_grad=True)))
    if "streams" in mixer.needs:
        hidden = hidden._replace(streams=torch.arange(tokens)[None] * 2 // tokens)
    if "frames" in mixer.needs:
        turned = torch.linalg.qr(torch.randn(1, tokens, 3, 3))[0]
        turned = turned * torch.linalg.det(turned)[..., None, None]
        hidden = hidden._replace(frames=torch.cat([turned, 5 * torch.randn(1, tokens, 1, 3)], 2))
    if "grid" in mixer.needs:
        hidden = hidden._replace(grid=(ROWS, tokens // ROWS))
    pair_width = mixer.width if mixer.pairs else getattr(mixer.config, "pair_width", None)
    if mixer.pairs or "pair" in mixer.needs:
        hidden = hidden._replace(pair=torch.randn(1, tokens, tokens, pair_width or mixer.width, requires_grad=True))
    return hidden


def built(kind: str, width: int, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return decode(find("mixing", kind).Config, {"kind": kind, **settings}).build(width)


def measured(
    kind: str, tokens: int, width: int, causal: bool, settings: dict[str, Any], proper: bool, threads: int
) -> dict[str, Any]:
    """Seconds (the best of two or three passes: in the first, memory is new) and MiB of the first beyond what this process
    held before. `proper`: without projections."""
    torch.set_num_threads(threads)
    mixer = built(kind, width, settings)
    if proper:
        mixer.qkv = mixer.out = nn.Identity()
    mask = Mask(causal=causal)
    inner = 3 * width if proper else width
    for n in (64, min(256, tokens)):  # what first calls cost, in time and memory
        hidden = given(mixer, n, inner)
        y = mixer(hidden, mask)
        y.backward(torch.randn_like(y))
    del y
    hidden = given(mixer, tokens, inner)
    noise = torch.randn_like(hidden.pair if mixer.pairs else hidden.x[..., :width])
    forget_high_water()
    before, best, forward, spent, most = resident("VmRSS"), math.inf, math.inf, 0.0, None
    for number in range(3):
        start = time.perf_counter()
        y = mixer(hidden, mask)
        middle = time.perf_counter()
        y.backward(noise)
        end = time.perf_counter()
        del y
        forward, best, spent = min(forward, middle - start), min(best, end - start), spent + end - start
        if number == 0:
            most = resident("VmHWM")
        elif spent > 8:
            break
    memory = None if before is None or most is None else max(0, most - before) / 1024
    return {"forward": forward, "seconds": best, "MiB": memory}


def apart(*point: Any) -> dict[str, Any]:
    """The same in a fresh process. Torch is loaded before it begins, but has computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "sevenfold.core.rooms"])
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(measured, *point).result()
    except BrokenProcessPool:
        raise SystemExit(f"{point[0]} with {point[1]:,} tokens: its process was ended, as for want of memory") from None


def slope(points: dict[int, float]) -> float | None:
    """The exponent of a power law through the points from LOW to HIGH (least squares of logarithms)."""
    chosen = [(math.log(n), math.log(value)) for n, value in points.items() if LOW <= n <= HIGH and value > 0]
    if len(chosen) < 2:
        return None
    mean_x, mean_y = (sum(part) / len(chosen) for part in zip(*chosen))
    return sum((x - mean_x) * (y - mean_y) for x, y in chosen) / sum((x - mean_x) ** 2 for x, _ in chosen)


def claims(kind: str, width: int) -> float:
    """The exponent of the mixer's own formula of FLOPs."""
    mixer = built(kind, width, {})

    def flops(tokens: int) -> int:
        attended = tokens if mixer.crosses else mixer.attended(tokens, (ROWS, tokens // ROWS) if mixer.needs else None)
        return int(mixer.flops(tokens, attended))

    return math.log(flops(HIGH) / flops(LOW)) / math.log(HIGH / LOW)


def foretold(points: dict[int, float], tokens: int) -> float:
    """Seconds at `tokens`, from the last two points."""
    if len(points) < 2:
        return 0.0
    a, b = sorted(points)[-2:]
    power = max(1.0, math.log(points[b] / points[a]) / math.log(b / a))
    return points[b] * (tokens / b) ** power


def tabled(
    chosen: list[str], sizes: list[int], limit: float, width: int, threads: int
) -> tuple[dict[str, Any], list[str]]:
    """Prints a table and what was left out; gives kind → tokens → point, and what is larger than it claims."""
    table: dict[str, dict[int, dict[str, Any]]] = {}
    left_out, broken, fits = [], [], sum(LOW <= n <= HIGH for n in sizes) > 1
    names = [f"{n:,}" for n in sizes] + (["exponent of time", "of memory", "of its formula"] if fits else [])
    print("\n| mixer | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for kind in chosen:
        points, cells = table.setdefault(kind, {}), []
        part = find("mixing", kind)
        for n in sizes:
            guess = foretold({m: point["seconds"] for m, point in points.items()}, n)
            if guess > limit:
                left_out.append(f"{kind} at {n:,} tokens ({guess:.0f} s)")
                cells.append("–")
                continue
            found = points[n] = apart(kind, n, width, part.continues, {}, False, threads)
            memory = "" if found["MiB"] is None else f", {found['MiB']:.0f} MiB"
            cells.append(f"{found['forward']:.3f} + {found['seconds'] - found['forward']:.3f} s{memory}")
        if fits:
            claimed = claims(kind, width)
            for name in ("seconds", "MiB"):
                power = slope({n: point[name] for n, point in points.items() if point[name] is not None})
                over = power is not None and claimed <= ALLOWED < power
                cells.append("–" if power is None else f"{power:.2f}" + (f" (over {ALLOWED})" if over else ""))
                if over:
                    broken.append(
                        f"{kind}: its {name} grow by an exponent of {power:.2f}, its formula by {claimed:.2f}"
                    )
            cells.append(f"{claimed:.2f}")
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)
    if left_out:
        print(f"\nLeft out, beyond {limit:g} s: " + ", ".join(left_out) + ".")
    return table, broken


def near_and_far(threads: int) -> list[str]:
    """A window against full attention, with and without projections; what is less than it must be."""
    broken, heads, near = [], {"heads": 8}, {"heads": 8, "window": 256}
    print("\n8 heads of 64, float32, window 256, forward and backward:\n")
    for causal in (True, False):
        name = "causal" if causal else "bidirectional"
        for proper in (True, False):
            full = apart("attention", 8192, 512, causal, heads, proper, threads)["seconds"]
            local = apart("local_global", 8192, 512, causal, near, proper, threads)["seconds"]
            what = "without projections" if proper else "whole mixer"
            print(f"- {name}, {what}, 8,192 tokens: attention {full:.2f} s, local_global {local:.2f} s, ", end="")
            print(f"{full / local:.1f} times", flush=True)
            if causal and proper and full / local < FASTER:
                broken.append(f"local_global: {full / local:.1f} times faster than attention, and not {FASTER:g}")
        shorter, longer = (apart("local_global", n, 512, causal, near, True, threads)["seconds"] for n in (8192, 32768))
        print(
            f"- {name}, without projections, 32,768 tokens: {longer:.2f} s, {longer / shorter:.1f} times that of 8,192"
        )
        if longer / shorter > LONGER:
            broken.append(
                f"local_global, {name}: 4 times the tokens take {longer / shorter:.1f} times, and not {LONGER:g}"
            )
    return broken


def draw(table: dict[str, dict[int, dict[str, Any]]], path: Path) -> None:
    """Time and memory over tokens, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5))
    colors = plt.get_cmap("tab20").colors
    for axis, name in zip(axes, ("seconds", "MiB")):
        for number, (kind, points) in enumerate(table.items()):
            shown = {n: point[name] for n, point in points.items() if point[name]}
            style = {"color": colors[number % 20], "marker": "os^D"[number % 4], "markersize": 4}
            axis.loglog(list(shown), list(shown.values()), label=kind, **style)
        axis.set(xlabel="tokens", ylabel=f"{name}, forward and backward")
        sizes = sorted({n for points in table.values() for n in points})
        axis.set_xticks(sizes, [f"{n:,}" for n in sizes], fontsize=7)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", help="kinds, separated by commas; by default all")
    parser.add_argument("--most", type=int, default=HIGH, help="tokens")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8.0, help="of one forward and backward pass, at most")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("mixers.png"))
    parser.add_argument("--json", type=Path, help="all points, as a file")
    asked = parser.parse_args()
    chosen = asked.mixers.split(",") if asked.mixers else list(kinds("mixing"))
    print(
        f"width {asked.width}, {asked.threads} threads, torch {torch.__version__}; cells: forward + backward, peak memory"
    )
    flat = [kind for kind in chosen if not touches_a_pair(kind)]
    paired = [kind for kind in chosen if touches_a_pair(kind)]
    table: dict[str, Any] = {}
    broken: list[str] = []
    for some, sizes in ((flat, [512 << i for i in range(20)]), (paired, [64, 128, 256])):
        if some:
            sizes = [n for n in sizes if n <= asked.most]
            points, over = tabled(some, sizes, asked.seconds, asked.width, asked.threads)
            table, broken = {**table, **points}, broken + over
    draw({kind: points for kind, points in table.items() if kind in flat}, asked.out)
    if {"local_global", "attention"} <= set(chosen) and asked.most >= 8192:
        broken += near_and_far(asked.threads)
    if asked.json:
        asked.json.write_text(json.dumps(table, indent=1))
    for line in broken:
        print(line, file=sys.stderr)
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
