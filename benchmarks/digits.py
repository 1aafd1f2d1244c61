"""One recipe, every mixer in turn: how well a trunk reads digits when only its mixer is another word.

    python benchmarks/digits.py [--mixers attention hyena …] [--seeds 2] [--steps 300]

The recipe is `digits` (two blocks of width 48 over 16 patches, sinusoidal positions). How a mixer is put in follows from
what its contract says of it, never from its name:

    it mixes its own tokens          block.mixer
    it reads another trunk           block.cross, reading a trunk of patches; block.mixer is a convolution of one tap
    it updates the pair              block.pair, beside a mixer that reads the pair
    it needs several streams         patches of two sizes in one trunk
    it needs frames                  pictures have none: left out here, and said

Accuracy on held-out digits, mean over seeds (± half the range), and the share of what attention reaches.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import sevenfold as sf
from sevenfold.core.notation import read
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.training.recipe import shipped_folder


def recipe_with(kind: str) -> dict[str, Any] | str:
    """The recipe with that mixer, or why there is none."""
    recipe = read(shipped_folder() / "digits.yaml")
    part, trunk = find("mixing", kind), recipe["trunks"]["enc"]
    block = trunk["block"]
    if "frames" in part.needs:
        return "needs frames, which pictures do not have"
    if part.crosses:
        memory = {"inputs": ["image"], "width": trunk["width"], "depth": 0, "position": "sinusoidal"}
        recipe["trunks"] = {"seen": memory, "enc": {**trunk, "cross_attends": "seen"}}
        recipe["objective"]["trunk"] = "enc"
        block |= {"mixer": {"kind": "conv", "kernel": 1}, "cross": kind}
    elif part.pairs:
        trunk["pair"] = {"width": 16}
        block |= {"mixer": "pair_attention", "pair": [kind]}
    else:
        block["mixer"] = kind
        if "pair" in part.needs:
            trunk["pair"] = {"width": 16}
        if "streams" in part.needs:
            recipe["streams"]["coarse"] = {
                "kind": "image",
                "field": "image",
                "tokenizer": {"kind": "patch", "patch": 4},
            }
            trunk["inputs"] = ["image", "coarse"]
    return recipe


def accuracy(recipe: dict[str, Any], seed: int, steps: int | None) -> tuple[float, float, int]:
    """(held-out accuracy, seconds, trained parameters) of one run."""
    recipe = {**recipe, "seed": seed, "train": {**recipe["train"], **({"steps": steps} if steps else {})}}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = sf.train(recipe, Path(folder) / "run", say=lambda line: None, bar=False)
        found = float(run.results["held_out"]["accuracy"])
    return found, time.perf_counter() - began, sum(p.numel() for p in run.model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixers", nargs="*", default=None)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=None)
    args = parser.parse_args()
    wanted = args.mixers or list(kinds("mixing"))
    wanted = ["attention", *(kind for kind in wanted if kind != "attention")]
    print("| mixer | accuracy, % | of attention's | parameters | seconds a run |\n|---|---|---|---|---|", flush=True)
    best = 0.0
    below = []
    for kind in wanted:
        recipe = recipe_with(kind)
        if isinstance(recipe, str):
            print(f"| `{kind}` | {recipe} | | | |", flush=True)
            continue
        try:
            runs = [accuracy(recipe, seed, args.steps) for seed in range(args.seeds)]
        except sf.SevenfoldError as error:
            print(f"| `{kind}` | {error} | | | |", flush=True)
            below.append(kind)
            continue
        reached = [run[0] for run in runs]
        mean, spread = statistics.fmean(reached), (max(reached) - min(reached)) / 2
        best = best or mean
        seconds = statistics.median(run[1] for run in runs)
        print(
            f"| `{kind}` | {100 * mean:.1f} ± {100 * spread:.1f} | {100 * mean / best:.1f} % | {runs[0][2]:,} | {seconds:.0f} |",
            flush=True,
        )
        if mean < 0.9 * best:
            below.append(kind)
    print(f"\nbelow 90 % of attention: {', '.join(below) or 'none'}")


if __name__ == "__main__":
    main()
