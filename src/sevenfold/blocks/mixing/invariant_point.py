"""Invariant point attention: tokens with frames attend by likeness, by their pair, and by how near their points are in space.

    w_ij = softmax_j(sqrt(1/3) (q_i . k_j / sqrt(c) + norm(z_ij) W_b - softplus(g_h)/2 sqrt(2/(9 P)) sum_p |T_i q_ip - T_j k_jp|^2))
    out = [sum_j w_ij v_j,  u_ip = T_i^-1 (sum_j w_ij T_j v_jp),  |u_ip|,  sum_j w_ij norm(z_ij)] W_o

T_i x = R_i x + t_i is the frame of token i, lengths in `unit`. The result does not change when all frames are moved by one
rotation and shift. Jumper 2021, doi:10.1038/s41586-021-03819-2, supplement, algorithm 22; softplus(g_h) = 1 at first. The
structure modules of AlphaFold 2 and ESMFold. Tokens without a frame neither give nor take: theirs is 0. Cost O(n^2 h (c + P + p)).
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


class InvariantPoint(Mixer):
    class Config(Mixer.Config):
        heads: int = Field(12, ge=1, le=4096)
        """How many heads."""
        head_width: int = Field(16, ge=1)
        """Channels c of a head's queries, keys and values."""
        points: int = Field(4, ge=1)
        """Points P of a head's query and key."""
        value_points: int = Field(8, ge=1)
        """Points of a head's value."""
        unit: float = Field(10.0, gt=0)
        """Å that count as length 1."""
        eps: float = Field(1e-8, gt=0)
        """Added under the root of |u_ip|."""
        pair_width: int | None = Field(None, ge=1)
        """Width of the pair representation; by default that of the trunk's, if it has one."""

    continues = False
    needs = frozenset({"frames"})
    variants = ({"heads": 3, "head_width": 5, "points": 2, "value_points": 3, "unit": 4.0, "pair_width": 20},)

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        h, c, p, values = config.heads, config.head_width, config.points, config.value_points
        pair = config.pair_width or 0
        self.qkv = self.project(width, 3 * h * c)
        self.points = self.project(width, 3 * h * (2 * p + values))
        self.pair_norm = nn.LayerNorm(pair) if pair else None
        self.pair_bias = self.project(pair, h) if pair else None
        self.nearness = nn.Parameter(torch.empty(h))
        self.out = self.project(h * (c + 4 * values + pair), width)

    def rules(self) -> dict[str, Rule]:
        rules: dict[str, Rule] = {"nearness": Constant(0.541324854612918)}  # softplus^-1(1)
        norm: dict[str, Rule] = {"pair_norm.weight": Constant(1.0), "pair_norm.bias": Constant(0.0)}
        return {**rules, **norm} if self.pair_norm is not None else rules

    def _attend(self, hidden: Hidden, mask: Mask) -> tuple[Frames, Tensor, Tensor, Tensor, Tensor | None]:
        """Frames, weights [b h n n], values [b h n c], their points in space [b h n points 3], the normed pair."""
        settings, frames = self.config, frames_of(hidden, self.config.unit)
        q, k, v = self.qkv(hidden.x).unflatten(-1, (3 * settings.heads, -1)).transpose(1, 2).chunk(3, dim=1)
        z = None if self.pair_norm is None or hidden.pair is None else self.pair_norm(hidden.pair)
        bias = None if z is None or self.pair_bias is None else self.pair_bias(z)
        points = self.points(hidden.x).unflatten(-1, (-1, 3))
        with torch.autocast(v.device.type, enabled=False):  # points in bf16 would be rounded to 1 Å at 200 Å
            placed = frames.placed(points.to(frames.origin.dtype))
            split = [settings.points, settings.points, settings.value_points]
            asked, given, values = placed.unflatten(2, (settings.heads, -1)).transpose(1, 2).split(split, dim=3)
            score = (wide(q) * settings.head_width**-0.5) @ wide(k).transpose(-1, -2)
            if bias is not None:
                score = score + wide(bias).movedim(-1, 1)
            apart = distances(asked.flatten(3), given.flatten(3)).square()
            score = score - F.softplus(wide(self.nearness))[:, None, None] * (18 * settings.points) ** -0.5 * apart
            seen = allowed_with(frames, hidden, mask)
            weights = (score * 3**-0.5).masked_fill(~seen, float("-inf")).softmax(-1)
        return frames, weights, v, values, z

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        frames, weights, v, values, z = self._attend(hidden, mask)
        with torch.autocast(v.device.type, enabled=False):
            scalars = (weights @ wide(v)).transpose(1, 2).flatten(2)
            met = (weights @ values.flatten(3)).unflatten(3, (-1, 3)).transpose(1, 2)  # [b n h points 3]
            met = frames.seen(met.flatten(2, 3))
            found = [scalars, *met.unbind(-1), (met.square().sum(-1) + self.config.eps).sqrt()]
            if z is not None:
                found.append((weights.transpose(1, 2) @ wide(z)).flatten(2))
        y = self.out(torch.cat(found, -1).to(hidden.x.dtype))
        return y.masked_fill(~frames.there.unsqueeze(-1), 0.0)

    def weights(self, hidden: Hidden, mask: Mask = Mask(), rows: Tensor | None = None) -> Tensor:  # noqa: B008
        weights = self._attend(hidden, mask)[1]
        return weights if rows is None else weights[:, :, rows]

    def flops(self, tokens: int, attended: int) -> int:
        s = self.config
        pair, all_points = s.pair_width or 0, 2 * s.points + s.value_points
        made = tokens * self.width * s.heads * (3 * s.head_width + 3 * all_points) + attended**2 * pair * s.heads
        moved = tokens * s.heads * 9 * (all_points + s.value_points)
        met = tokens * attended * s.heads * (2 * s.head_width + 3 * s.value_points + pair)
        return 2 * (made + moved + met) + 2 * tokens * self.width * s.heads * (s.head_width + 4 * s.value_points + pair)

    def kept(self, tokens: int, attended: int) -> int:
        s, pair = self.config, self.config.pair_width or 0
        each = 4 * s.head_width + 6 * s.points + 14 * s.value_points + pair
        looked = 4 * (3 + bool(pair)) * s.heads + (4 * (pair + 2) if pair else 0) + 1  # in quarters: a mask is bytes
        return tokens * (s.heads * each + 18) + tokens * attended * looked // 4

    def cached(self, tokens: int) -> int:
        return 0
