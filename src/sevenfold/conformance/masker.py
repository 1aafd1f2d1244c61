"""What every masker must do: see the contract in sevenfold.objective.masker."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import RowNoise, expect, near
from sevenfold.objective.masker import share

SHAPES = ((7,), (6, 6), (3, 4, 5))
"""Grids that tokens are placed on, one for each number of axes."""


def grids(config: Any) -> list[tuple[Tensor, Tensor]]:
    """(coords, eligible) on which it can be used: whole grids, then rows with padding and tokens that may not be hidden."""
    found = []
    for shape in SHAPES:
        if len(shape) < config.part.axes:
            continue
        places = torch.cartesian_prod(*(torch.arange(side) for side in shape)).reshape(-1, len(shape))
        coords = places.expand(5, -1, -1)
        n = coords.shape[1]
        found.append((coords, torch.ones(5, n, dtype=torch.bool)))
        some = torch.arange(n)[None, :] < torch.tensor([n, n - 1, max(n // 2, 1), 1, 0])[:, None]
        found.append((coords, some & (torch.arange(n) != 1)))
    return found


def check_count(config: Any) -> None:
    """Exactly as many eligible tokens as are wanted are hidden, and no other; never more than there are."""
    masker = config.build()
    for coords, eligible in grids(config):
        for ratio in (0.15, 0.5, 0.9):
            wanted = share(eligible, ratio)
            hidden = masker.choose(coords, eligible, wanted)
            expect(hidden.dtype == torch.bool and hidden.shape == eligible.shape, "gives no [b n] bool")
            expect(not (hidden & ~eligible).any(), "hides a token that may not be hidden")
            expect(torch.equal(hidden.sum(1), wanted), f"hides {hidden.sum(1).tolist()} instead of {wanted.tolist()}")
        most = masker.choose(coords, eligible, torch.full((5,), 1000))
        expect(torch.equal(most, eligible), "does not hide all where more are wanted than there are")


def check_scores(config: Any) -> None:
    """Scores are finite and in 0…1."""
    for coords, eligible in grids(config):
        scores = config.build().scores(coords, eligible)
        expect(scores.shape == eligible.shape, f"scores of shape {list(scores.shape)}")
        inside = scores[eligible]
        expect(bool(((inside >= 0) & (inside <= 1)).all()), "a score outside of 0…1")


def check_chance(config: Any) -> None:
    """The generator decides, and another draw hides others; every token is hidden sometimes."""
    masker = config.build()
    for coords, eligible in grids(config)[::2]:
        wanted = share(eligible, 0.5)
        drawn = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            drawn.append(masker.choose(coords, eligible, wanted))
        expect(torch.equal(drawn[0], drawn[1]), "the same seed hides other tokens")
        ever = drawn[0].any(0)
        for _ in range(60):
            ever |= masker.choose(coords, eligible, wanted).any(0)
        expect(bool(ever.all()), f"token {int((~ever).nonzero()[0, 0]) if not ever.all() else 0} is never hidden")
        expect(not torch.equal(drawn[0], drawn[2]), "every draw hides the same tokens")


def check_padding(config: Any) -> None:
    """Padding behind a row changes nothing of what is hidden in it."""
    masker = config.build()
    for coords, eligible in grids(config):
        found = []
        for more in (0, 3):
            longer = torch.cat([coords, coords.new_zeros(5, more, coords.shape[-1])], 1)
            may = torch.cat([eligible, eligible.new_zeros(5, more)], 1)
            with torch.random.fork_rng(devices=[]), RowNoise():
                found.append(masker.choose(longer, may, share(may, 0.5))[:, : eligible.shape[1]])
        near(found[1].double(), found[0].double(), "what is hidden when padding is added")
