"""Whether a representation is alive: what joint-embedding objectives are watched by.

    rank(z)    = exp(- sum_k p_k log p_k),  p = s / sum s + 1e-7,  s the singular values of z         1 … min(b, d)
    spread(z)  = mean_j std_i(z_ij / |z_i|) sqrt(d)                                                   0 dead, 1 healthy
    entropy(p) of each row (sharpness), and of the mean row (use of the prototypes)

Garrido 2022 (RankMe), arXiv:2210.02885 eq. 1; the spread is that of Chen 2020 (SimSiam), arXiv:2011.10566 section 4.1.
Neither is comparable between widths, and more is not always better: they tell a dead representation from a live one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

POINT, LINE = 0.1, 2.0
"""A spread below which all rows are one direction, and an effective rank below which they lie along a line."""
LARGEST = 512
"""The smaller side of a matrix up to which its rank is worth its time in every step."""


@torch.no_grad()
def rank(z: Tensor) -> Tensor:
    """The effective rank of z [b d], its mean over rows taken out first (what is common to all says nothing)."""
    z = z.detach().double()
    z = z - z.mean(0)
    gram = z @ z.T if z.shape[0] < z.shape[1] else z.T @ z
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    p = values / values.sum().clamp(min=1e-30) + 1e-7
    return torch.exp(-(p * p.log()).sum())


@torch.no_grad()
def spread(z: Tensor) -> Tensor:
    """How far apart the directions of the rows of z [b d] are: 0 when all are one, 1 when they are spread evenly."""
    z = torch.nn.functional.normalize(z.detach().double(), dim=-1)
    return z.std(0, unbiased=False).mean() * math.sqrt(z.shape[1])


@torch.no_grad()
def entropies(p: Tensor) -> tuple[Tensor, Tensor]:
    """Of probabilities [b k]: the mean entropy of a row, and the entropy of the mean row, both as a share of log k."""
    p, most = p.detach().double(), math.log(p.shape[-1])
    each = -torch.xlogy(p, p).sum(-1).mean()
    mean = p.mean(0)
    return each / most, -torch.xlogy(mean, mean).sum() / most


def health(z: Tensor, name: str = "") -> dict[str, tuple[Tensor, Tensor]]:
    """The terms `rank` and `spread` of a Loss, of a representation z [b d]; none of fewer than two rows."""
    if len(z) < 2:
        return {}
    count = torch.tensor(float(len(z)), device=z.device)
    found = {f"{name}spread": (spread(z) * count, count)}
    if min(z.shape) <= LARGEST:
        found[f"{name}rank"] = (rank(z) * count, count)
    return found


def prototypes(p: Tensor, name: str = "teacher_") -> dict[str, tuple[Tensor, Tensor]]:
    """The terms `entropy` (of a row) and `use` (entropy of the mean row) of a teacher's probabilities p [b k]."""
    if len(p) < 2:
        return {}
    count = torch.tensor(float(len(p)), device=p.device)
    each, use = entropies(p)
    return {f"{name}entropy": (each * count, count), f"{name}use": (use * count, count)}


def collapsed(terms: Mapping[str, float], name: str = "", point: float = POINT) -> list[str]:
    """What `health` says that is wrong, a line each. `point`: the spread below which it is one."""
    found = []
    flat, low = terms.get(f"{name}spread"), terms.get(f"{name}rank")
    if flat is not None and flat < point:
        found.append(f"the representation has collapsed to a point: its spread is {flat:.3f} (1 is healthy, 0 dead)")
    elif low is not None and low < LINE:
        found.append(f"the representation has collapsed to a line: its effective rank is {low:.2f}")
    return found


def flat_or_stuck(terms: Mapping[str, float], name: str = "teacher_") -> list[str]:
    """What `prototypes` says that is wrong, a line each."""
    each, use = terms.get(f"{name}entropy"), terms.get(f"{name}use")
    if each is not None and each > 0.98:
        return [f"the teacher says nothing: its entropy is {100 * each:.1f} % of the most (uniform collapse)"]
    if use is not None and use < 0.1:
        return [
            f"the teacher says the same of everything: its prototypes are used to {100 * use:.1f} % (one-hot collapse)"
        ]
    return []
