"""How much should be hidden? Pictures: a masked autoencoder, judged by a linear probe. Text: masked tokens, judged by held-out nats
at one small ratio that is the same for all.

    python benchmarks/masking_ratio.py --data DATA --seeds 2

DATA is a folder of public sets (see _sets.py). Everything but the ratio is one recipe; budgets are in steps. Nothing looks at a test
part: the probe is tested on training pictures that it was not fitted to, the text on its held-out tenth. Pictures: 20,000 of MNIST.
He 2021, arXiv:2111.06377 figure 5 (best at 0.75); Wettig 2022, arXiv:2202.08005 table 1 (text: 0.15 to 0.4, far worse from 0.6 on).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import _sets
import sevenfold as sf
from representations import embedded, spread
from sevenfold.adaptation.readout import probe
from sevenfold.core.part import decode, find
from sevenfold.training.look import evaluate
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe

PICTURES, TEXT = (0.25, 0.5, 0.75, 0.9), (0.15, 0.3, 0.5, 0.75)
JUDGED = {"kind": "masked_token", "ratio": 0.15, "mask": 1.0, "random": 0.0}
"""How every model of text is asked, whatever it was trained with."""


def pictures(data: Path, ratio: float, seed: int, steps: int) -> dict[str, Any]:
    learned = {"kind": "learned_grid", "table": [7, 7]}
    return {
        "data": {"kind": "arrays", "path": str(data), "fields": {"image": "image"}, "limit": 20_000, "held_out": 0.02},
        "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 4}}},
        "trunks": {
            "enc": {"inputs": ["image"], "width": 48, "depth": 2, "position": learned},
            "dec": {"inputs": ["enc"], "width": 32, "depth": 1, "position": learned},
        },
        "objective": {"kind": "mae", "ratio": ratio},
        "train": _train(steps, 64, {"kind": "muon", "lr": 5e-3, "weight_decay": 0.05}),
        "seed": seed,
    }


def text(data: Path, ratio: float, seed: int, steps: int) -> dict[str, Any]:
    return {
        "data": {"kind": "text", "path": str(data), "held_out": 0.1},
        "streams": {"text": {"kind": "text", "length": 64, "ends": False}},
        "trunks": {"enc": {"inputs": ["text"], "width": 64, "depth": 2}},
        "objective": {"kind": "masked_token", "ratio": ratio},
        "train": _train(steps, 16, {"kind": "adamw", "lr": 4e-3, "weight_decay": 0.05}),
        "seed": seed,
    }


def _train(steps: int, batch: int, optimizer: dict[str, Any]) -> dict[str, Any]:
    return {"steps": steps, "batch": batch, "optimizer": optimizer, "evaluate_batches": 1, "evaluate_every": steps}


def probed(model: Any, data: Path) -> float:
    """Right answers of a probe on 5,000 pictures that the model was not trained on, fitted to 5,000 others of those."""
    with np.load(data) as file:
        images, labels = file["image"][-10_000:], file["label"][-10_000:]
    z = embedded(model, "image", list(images[..., None]), "mean")
    readout = probe(z[:5000], labels[:5000], strengths=(1e-3, 1e-2, 1e-1))
    return float((readout.predict(z[5000:]) == labels[5000:]).mean())


def judged(model: Any, recipe: dict[str, Any]) -> float:
    """Nats of hidden held-out tokens, 15 % of them, all replaced by the mask; the same ones for every model."""
    ready = prepare(read_recipe(recipe))
    objective = decode(find("objective", "masked_token").Config, JUDGED).build(model)
    return evaluate(objective, ready.held_out, ready.recipe.train, seed=0, batches=40)["nats"]


def kept(path: Path, make: Callable[[], float]) -> float:
    if path.is_file():
        return json.loads(path.read_text())
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("runs/masking_ratio"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--picture-steps", type=int, default=500)
    parser.add_argument("--text-steps", type=int, default=800)
    parser.add_argument("--only", choices=("pictures", "text"))
    args = parser.parse_args()
    mnist, letters = _sets.mnist(args.data, args.cache)["train"], args.data / "tinyshakespeare" / "input.txt"
    kinds: dict[str, tuple[Any, Path, tuple[float, ...], int, str]] = {
        "pictures": (pictures, mnist, PICTURES, args.picture_steps, "probe, right"),
        "text": (text, letters, TEXT, args.text_steps, "nats at 0.15"),
    }
    for kind, (recipe, data, ratios, steps, column) in kinds.items():
        if args.only not in (None, kind):
            continue
        print(f"\n{kind}, {steps} steps, {args.seeds} seeds\n\n| ratio | {column} |\n|---|---|", flush=True)
        for ratio in ratios:
            found = []
            for seed in range(args.seeds):
                out = args.cache / f"{kind}_{steps}_{ratio}_{seed}"
                plain, began = recipe(data, ratio, seed, steps), time.perf_counter()

                def measured(
                    plain: dict[str, Any] = plain, out: Path = out, kind: str = kind, data: Path = data
                ) -> float:
                    resume = (out / "recipe.yaml").is_file()
                    run = sf.train(plain, out=out, resume=resume, say=lambda line: None, bar=False)
                    return probed(run.model, data) if kind == "pictures" else judged(run.model, plain)

                found.append(kept(args.cache / "figures" / f"{out.name}.json", measured))
                print(f"<!-- {ratio} seed {seed}: {found[-1]:.4f}, {time.perf_counter() - began:.0f} s -->", flush=True)
            print(f"| {ratio} | {spread(found)} |", flush=True)


if __name__ == "__main__":
    main()
