"""Attention among the pairs that start at one token (or end at one), biased by the third side of the triangle.

    u_ij = sigmoid(z_ij W_g + b_g) * sum_k softmax_k(q_ij . k_ik / sqrt(d_h) + z_jk W_b) v_ik,   out = u W_o

Around the starting node; around the ending node it is the same on the transposed pair. Jumper 2021,
doi:10.1038/s41586-021-03819-2, supplement, algorithms 13 and 14. Evoformer, Pairformer, ESMFold. Cost O(n^3 p).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sevenfold.blocks.mixing import Project, paired
from sevenfold.blocks.mixing._gated import Gated
from sevenfold.blocks.mixing.attention import biased
from sevenfold.core.types import Hidden, Mask


class TriangleAttention(Gated):
    class Config(Gated.Config):
        ending: bool = False
        """Around the ending node (algorithm 14) instead of the starting node (algorithm 13)."""

    pairs = True
    needs = frozenset({"pair"})
    variants = ({"ending": True}, {"heads": 3, "head_width": 10})

    def __init__(self, config: Config, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.third = self.project(width, self.heads)

    @property
    def rotated(self) -> int | None:
        return None

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        z, real = hidden.pair, paired(hidden)
        assert z is not None, "a trunk gives its pair"
        if self.config.ending:
            z = z.transpose(1, 2).contiguous()
        b, n = z.shape[:2]
        added = self.third(z).movedim(-1, 1)[:, None]  # [b 1 h n n]: the same for every i
        seen = None
        if real is not None:  # the same transposed; a line of padding sees all of itself, so that nothing is empty
            seen = (real | ~real.any(-1, keepdim=True))[:, :, None, None, :]
        added = biased(added.expand(b, n, -1, -1, -1), seen, z.dtype).flatten(0, 1)
        lines = Hidden(z.flatten(0, 1))
        q, k, v = self._heads(lines)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=added.to(q.dtype))
        y = self.out(y.transpose(1, 2).flatten(2) * self.gate(lines.x)).unflatten(0, (b, n))
        return y.transpose(1, 2) if self.config.ending else y

    def flops(self, tokens: int, attended: int) -> int:
        n = attended
        return super().flops(n * n, n) + 2 * n * n * self.width * self.heads

    def kept(self, tokens: int, attended: int) -> int:
        pairs = attended**2
        return self._scored(pairs, attended) + (pairs * self.width if self.config.ending else 0)
