"""What the patch tokens of DINOv2 hold: do their principal components tell figure from ground, and do registers take junk?

    python benchmarks/patches.py --out docs/objectives/patches.png

Pictures are made here: a figure (a bar, a ring, a triangle, a disc) of fine grain on a ground of coarse grain, of the same mean and
contrast, so that no brightness gives the figure away. One small transformer learns from them without labels, without and
with two registers. Figures are of pictures that it has not seen: the area under the ROC curve of the first three components for "more
than half of this patch is figure" (the sign is free; drawn is the one that is best on 500 others), beside the same network with its
first weights and the pixels of each patch; and how large the largest token norms on the ground are, in medians, with the share of
attention of the last block that the registers get.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from sevenfold.training.fit import fit
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import read_recipe

SIDE, PATCH = 24, 4


def picture(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [24 24 1], bool [24 24] where the figure is)."""
    row, column = np.mgrid[:SIDE, :SIDE]
    y, x = row - draw.uniform(8, 15), column - draw.uniform(8, 15)
    size, angle = draw.uniform(5, 8), draw.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    far = np.hypot(x, y)
    figure = [
        far < size,
        (far < size + 1) & (far > size / 2),
        (np.abs(u) < size + 1) & (np.abs(v) < size / 2),
        (v > -size / 2) & (v < size - 1.7 * np.abs(u)),
    ][int(draw.integers(4))]
    fine = draw.integers(0, 2, (SIDE, SIDE))
    coarse = draw.integers(0, 2, (SIDE // 4 + 1, SIDE // 4 + 1)).repeat(4, 0).repeat(4, 1)
    down, right = draw.integers(4, size=2)
    image = np.where(figure, fine, coarse[down : down + SIDE, right : right + SIDE]) * 160.0 + 48
    return image.clip(0, 255).astype(np.uint8)[..., None], figure


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(images [n 24 24 1], figure: the share of each patch that is one, [n 36])."""
    draw = np.random.default_rng(seed)
    found = [picture(draw) for _ in range(count)]
    masks = np.stack([mask for _, mask in found]).astype(float)
    cells = masks.reshape(count, SIDE // PATCH, PATCH, SIDE // PATCH, PATCH).mean((2, 4)).reshape(count, -1)
    return np.stack([image for image, _ in found]), cells


def recipe(folder: Path, registers: int, steps: int) -> dict[str, Any]:
    np.savez(folder / "pictures.npz", image=pictures(3000, 0)[0])
    position = {"kind": "learned", "size": SIDE // PATCH}
    return {
        "data": {"kind": "arrays", "path": str(folder / "pictures.npz"), "fields": {"image": "image"}, "held_out": 0.02},
        "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": PATCH}}},
        "trunks": {
            "enc": {
                "inputs": ["image"], "width": 64, "depth": 3, "class_token": True, "registers": registers, "position": position,
            }
        },
        "objective": {
            "kind": "dinov2", "views": [{"kind": "affine", "degrees": 8, "scale": 0.1, "slant": 0.1, "pixels": 2}], "crops": 0, "masker": "block",
            "pool": "mean", "momentum": 0.97, "teacher_temperature": [0.03, 0.03], "koleo": 0.5, "head": {"norm": "batch"}, "balance": "sinkhorn",
        },
        "train": {
            "steps": steps, "batch": 64, "evaluate_batches": 1, "evaluate_every": max(1, steps // 5),
            "optimizer": {"kind": "muon", "lr": 0.01, "weight_decay": 0.05},
        },
    }  # fmt: skip


@torch.inference_mode()
def tokens(ready: Ready, images: np.ndarray) -> np.ndarray:
    """[n 36 d]: the patch tokens of some pictures."""
    return np.stack(ready.model.embed(list(images), pool="none"))


def component(seen: np.ndarray, asked: np.ndarray, which: int = 0) -> np.ndarray:
    """[n 36]: a principal component of all tokens of `seen`, of those of `asked`."""
    flat = seen.reshape(-1, seen.shape[-1])
    mean = flat.mean(0)
    return (asked - mean) @ np.linalg.svd(flat - mean, full_matrices=False)[2][which]


def best(seen: np.ndarray, asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Of the first three components the one that is best on the pictures that they were found on, of the others."""
    areas = [area(component(seen, seen, which), known) for which in range(3)]
    return component(seen, asked, int(np.argmax(areas)))


def area(scores: np.ndarray, cells: np.ndarray) -> float:
    """The area under the ROC curve, whatever the sign."""
    found = float(roc_auc_score(cells.ravel() > 0.5, scores.ravel()))
    return max(found, 1 - found)


@torch.inference_mode()
def junk(ready: Ready, images: np.ndarray, cells: np.ndarray) -> tuple[float, float]:
    """(the 99.5th percentile of the norms of tokens on the ground before the last norm, in medians; the share of attention of the
    last block's patch tokens that goes to class and register tokens)."""
    trunk = ready.model.trunks["enc"]
    held: list[torch.Tensor] = []
    block: Any = trunk.blocks[-1]
    hook = block.register_forward_hook(lambda module, given, hidden: held.append(hidden.x))
    weights: list[torch.Tensor] = []
    asked = block.mixer.register_forward_pre_hook(
        lambda module, given, kw: weights.append(shares(module, *given, **kw)), with_kwargs=True
    )
    ready.model.embed(list(images), pool="none", batch_size=len(images))
    hook.remove()
    asked.remove()
    extra = held[0].shape[1] - cells.shape[1]
    norms = held[0][:, extra:].norm(dim=-1).numpy()
    return float(np.quantile(norms[cells == 0], 0.995) / np.median(norms)), float(
        weights[0][:, extra:, :extra].sum(-1).mean()
    )


def shares(mixer: Any, hidden: Any, *more: Any, **named: Any) -> torch.Tensor:
    """[b n n]: who looks at whom, the mean over heads."""
    found: torch.Tensor = mixer.weights(hidden, *more, **named)
    return found.mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    args = parser.parse_args()
    seen, known = pictures(500, 1)
    asked, cells = pictures(500, 2)
    shown: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as place:
        for registers in (0, 2):
            ready = prepare(read_recipe(recipe(Path(place), registers, args.steps)))
            for name in ("first weights", "trained"):
                if name == "trained":
                    found = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, seed=0, bar=False)
                    told = ", ".join(f"{key} {value:.2f}" for key, value in found.held_out.items())
                    print(f"{registers} registers, {found.seconds:.0f} s: {told}")
                ours = [tokens(ready, images) for images in (seen, asked)]
                areas = [area(component(*ours, which), cells) for which in range(3)]
                large, share = junk(ready.objective.eval() and ready, asked, cells)
                print(
                    f"{registers} registers, {name}: AUC of components 1, 2, 3 {' '.join(f'{a:.3f}' for a in areas)}; "
                    f"largest norms on the ground {large:.2f} medians; {share:.3f} of attention to class and registers"
                )
                if name == "trained" or not registers:
                    shown[name + " 2 registers" * bool(registers)] = best(*ours, known)
    raw = [images.reshape(len(images), SIDE // PATCH, PATCH, -1, PATCH).swapaxes(2, 3).reshape(len(images), -1, PATCH**2) / 255.0
           for images in (seen, asked)]  # fmt: skip
    print(f"pixels: AUC of components 1, 2, 3 {' '.join(f'{area(component(*raw, k), cells):.3f}' for k in range(3))}")
    drawn(args.out, asked, cells, {"pixels": best(*raw, known), **shown})


def drawn(out: Path, images: np.ndarray, cells: np.ndarray, parts: dict[str, np.ndarray], count: int = 8) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = {"picture": images[..., 0], "figure": cells, **parts}
    figure, axes = plt.subplots(len(rows), count, figsize=(count, len(rows) * 1.05))
    for line, (name, values) in zip(axes, rows.items()):
        sign = 1 if name in ("picture", "figure") or roc_auc_score(cells.ravel() > 0.5, values.ravel()) > 0.5 else -1
        for axis, value in zip(line, values):
            axis.imshow(
                sign * (value if value.ndim == 2 else value.reshape(SIDE // PATCH, -1)),
                cmap="gray" if name == "picture" else "viridis",
            )
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main()
