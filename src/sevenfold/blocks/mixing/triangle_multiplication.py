"""Pairs i-j updated by the two other sides of all triangles i-j-k, as a product of matrices per channel.

    u_ij = sigmoid(z_ij W_g + b_g) * norm(sum_k a_ik b_jk) W_o,   a = sigmoid(z W_ga + b_ga) * z W_a,   b likewise

Along outgoing edges; along incoming ones the sum is over a_ki b_kj. Jumper 2021, doi:10.1038/s41586-021-03819-2, supplement,
algorithms 11 and 12. Evoformer, Pairformer, ESMFold. Cost O(n^3 c).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from sevenfold.blocks.mixing import Mixer, Project, paired
from sevenfold.blocks.mixing._gated import Gate
from sevenfold.core.initial import Constant, Rule
from sevenfold.core.types import Hidden, Mask


class TriangleMultiplication(Mixer):
    class Config(Mixer.Config):
        incoming: bool = False
        """Along incoming edges (algorithm 12) instead of outgoing ones (algorithm 11)."""
        inner: int | None = Field(None, ge=1)
        """Channels of a and b; by default the width of the pair."""

    pairs = True
    continues = False
    needs = frozenset({"pair"})
    variants = ({"incoming": True}, {"inner": 20})

    def __init__(self, config: Any, width: int, project: Project | None = None):
        super().__init__(config, width, project)
        self.inner = config.inner or width
        self.sides = self.project(width, 2 * self.inner)
        self.side_gates = Gate(width, 2 * self.inner)
        self.norm = nn.LayerNorm(self.inner)
        self.out = self.project(self.inner, width)
        self.gate = Gate(width, width)

    def rules(self) -> dict[str, Rule]:
        return {"norm.weight": Constant(1.0), "norm.bias": Constant(0.0)}

    def forward(self, hidden: Hidden, mask: Mask = Mask()) -> Tensor:  # noqa: B008
        z, real = hidden.pair, paired(hidden)
        assert z is not None, "a trunk gives its pair"
        sides = self.side_gates(z) * self.sides(z)
        if real is not None:
            sides = sides * real.unsqueeze(-1)
        a, b = sides.movedim(-1, 1).chunk(2, dim=1)  # [b c n n]
        if self.config.incoming:
            a, b = a.transpose(-1, -2), b.transpose(-1, -2)
        summed = (a @ b.transpose(-1, -2)).movedim(1, -1)
        return self.gate(z) * self.out(self.norm(summed))

    def flops(self, tokens: int, attended: int) -> int:
        n, c, p = attended, self.inner, self.width
        return 2 * n * n * (4 * p * c + n * c + c * p + p * p)

    def kept(self, tokens: int, attended: int) -> int:
        return attended**2 * (8 * self.inner + 2 * self.width + 2)

    def cached(self, tokens: int) -> int:
        return 0
