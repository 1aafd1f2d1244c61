"""Geometric attention: tokens with frames attend by the directions and the distances of vectors that they send into space.

    w_ij = softmax_j((softplus(a_h) q_i . k_j - softplus(b_h) |r_i - s_j|) / sqrt(3)),   y_i = R_i^T sum_j w_ij v_j,   out = y W_o

q, k, v are 3-vectors of each head, rotated into space by the frame of their token; the points r, s are rotated and moved. The
result does not change when all frames are moved by one rotation and shift. Hayes 2025, doi:10.1126/science.ads0018, supplement,
algorithm 6; a_h = b_h = 0 at first. ESM3, in its first block. Tokens without a frame neither give nor take: theirs is 0. Cost
O(n^2 h).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer, Project
from sevenfold.blocks.mixing._frames import Frames, allowed_with, distances, frames_of
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Hidden, Mask, wide


class Geometric(Mixer):
    class Config(Mixer.Config):
        heads: int | None = Field(None, ge=1, le=4096)
        """How many heads; by default one for each 6 channels."""
        unit: float = Field(10.0, gt=0)
        """Å that count as length 1."""

    continues = False
    needs = frozenset({"frames"})
    variants = ({"heads": 3, "unit": 1.0},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.count = config.heads or max(1, width // 6)
        self.vectors = self.project(width, 15 * self.count)
        self.direction = nn.Parameter(torch.empty(self.count))
        self.distance = nn.Parameter(torch.empty(self.count))
        self.out = self.project(3 * self.count, width)

    def rules(self) -> dict[str, Rule]:
        return {"direction": Constant(0.0), "distance": Constant(0.0)}

    def _attend(self, hidden: Hidden, mask: Mask) -> tuple[Frames, Tensor, Tensor]:
        """Frames, weights [b h n n], values in space [b h n 3]."""
        frames = frames_of(hidden, self.config.unit)
        vectors = self.vectors(hidden.x).unflatten(-1, (-1, 3))
        with torch.autocast(vectors.device.type, enabled=False):  # points in bf16 would be rounded to 1 Å at 200 Å
            vectors = vectors.to(frames.origin.dtype)
            turned = frames.rotated(vectors[:, :, : 3 * self.count]).transpose(1, 2)
            placed = frames.placed(vectors[:, :, 3 * self.count :]).transpose(1, 2)
            q, k, v = turned.chunk(3, dim=1)
            alike, apart = q @ k.transpose(-1, -2), distances(*placed.chunk(2, dim=1))
            near, far = (F.softplus(wide(part))[:, None, None] for part in (self.direction, self.distance))
            seen = allowed_with(frames, hidden, mask)
            score = (near * alike - far * apart) * 3**-0.5
            weights = score.masked_fill(~seen, float("-inf")).softmax(-1)
        return frames, weights, v

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        frames, weights, v = self._attend(hidden, mask)
        with torch.autocast(v.device.type, enabled=False):
            y = frames.turned_back((weights @ v).transpose(1, 2)).flatten(2)
        return self.out(y.to(hidden.x.dtype)).masked_fill(~frames.there.unsqueeze(-1), 0.0)

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        weights = self._attend(hidden, mask)[1]
        return weights if rows is None else weights[:, :, rows]

    def flops(self, tokens: int, attended: int) -> int:
        return 2 * tokens * self.count * (18 * self.width + 9 * 6 + 6 * attended)

    def kept(self, tokens: int, attended: int) -> int:
        return tokens * (18 * self.count + 27) + tokens * attended * (12 * self.count + 1) // 4  # a mask is bytes

    def cached(self, tokens: int) -> int:
        return 0
