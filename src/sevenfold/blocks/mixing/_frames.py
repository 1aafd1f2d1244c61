"""What mixers of residues in space share: frames taken apart and centred, points moved by them, and who has one.

point in space = R_i point + t_i,   point seen from i = R_i^T (point - t_i)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sevenfold.blocks.mixing import allowed
from sevenfold.core.types import Hidden, Mask, wide


class Frames(NamedTuple):
    """The frames of tokens: `rotation` [b n 3 3] (its columns are the axes), `origin` [b n 3], and `there` [b n] bool."""

    rotation: Tensor
    origin: Tensor
    there: Tensor

    def rotated(self, vectors: Tensor) -> Tensor:
        """Vectors [b n k 3] of each token's frame, in space."""
        return vectors @ self.rotation.transpose(-1, -2)

    def placed(self, points: Tensor) -> Tensor:
        """Points [b n k 3] of each token's frame, in space."""
        return self.rotated(points) + self.origin.unsqueeze(2)

    def turned_back(self, vectors: Tensor) -> Tensor:
        """Vectors [b n k 3] in space, in each token's frame."""
        return vectors @ self.rotation

    def seen(self, points: Tensor) -> Tensor:
        """Points [b n k 3] in space, in each token's frame."""
        return self.turned_back(points - self.origin.unsqueeze(2))


def frames_of(hidden: Hidden, unit: float) -> Frames:
    """The frames of a Hidden, lengths counted in `unit` Å, the mean origin of each row at 0 (which changes nothing but
    the rounding: what is computed depends on differences)."""
    assert hidden.frames is not None, "a trunk gives its frames"
    frames = wide(hidden.frames)
    if hidden.x.dtype == torch.float64:
        frames = frames.double()
    rotation, origin = frames[..., :3, :], frames[..., 3, :]
    there = rotation.ne(0).any(-1).any(-1)
    if hidden.valid is not None:
        there = there & hidden.valid
    weight = there.unsqueeze(-1).to(origin.dtype)
    centre = ((origin * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)).detach()
    return Frames(rotation, (origin - centre) * weight / unit, there)


def allowed_with(frames: Frames, hidden: Hidden, mask: Mask) -> Tensor:
    """[b 1 n n] bool: `allowed`, and only tokens with a frame are seen (or a token itself, so that no row is empty)."""
    seen, itself = allowed(hidden, mask), torch.eye(frames.there.shape[1], dtype=torch.bool, device=frames.there.device)
    found = (frames.there[:, None, :] | itself)[:, None]
    return found if seen is None else found & seen


def distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j| [… n m] of a [… n k] and b [… m k], from differences: |a|^2 + |b|^2 - 2ab loses 1.5 Å^2 at 2,000 Å."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
