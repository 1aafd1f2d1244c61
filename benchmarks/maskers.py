"""Draw what each masker hides in a small picture, at two ratios: docs/objectives/maskers.png.

python benchmarks/maskers.py --out docs/objectives/maskers.png
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch

from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.core.types import Stream
from sevenfold.data.source.digits import Digits
from sevenfold.objective.masker import all_eligible, share

RATIOS = (0.5, 0.75)
SIDE = 14
"""Tokens along a side."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="maskers.png")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    small = np.asarray(Digits.Config().build()[3]["image"], np.float32).squeeze()
    place = torch.nn.functional.interpolate(
        torch.from_numpy(small)[None, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False
    )
    picture = (place / place.max())[0, 0].numpy()
    coords = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))[None]
    stream = Stream(torch.from_numpy(picture).reshape(1, -1, 1), coords)
    eligible = all_eligible(stream.coords, stream.valid)
    names = kinds("masker")
    figure, axes = plt.subplots(len(RATIOS), len(names), figsize=(1.5 * len(names), 1.62 * len(RATIOS)))
    for row, ratio in zip(axes, RATIOS):
        for axis, kind in zip(row, names):
            torch.manual_seed(args.seed)
            hidden = find("masker", kind).Config().build().choose(coords, eligible, share(eligible, ratio))
            shown = np.repeat(picture[..., None], 3, -1)
            shown[hidden[0].view(SIDE, SIDE).numpy()] = (0.72, 0.26, 0.2)
            axis.imshow(shown)
            axis.set(xticks=[], yticks=[])
            if ratio == RATIOS[0]:
                axis.set_title(kind, fontsize=9)
            if kind == names[0]:
                axis.set_ylabel(f"ratio {ratio}", fontsize=9)
    figure.tight_layout()
    figure.savefig(args.out, dpi=110)
    print(f"drawn in {args.out}")


if __name__ == "__main__":
    main()
