"""No position: the trunk treats its tokens as a set (causal masks still tell order apart).

    embed = 0,  angles = 0,  bias = 0

Sets of genes or particles; "NoPE" decoders, Kazemnejad 2023, arXiv:2305.19466.
"""

from __future__ import annotations

from sevenfold.blocks.position import Position


class NoPosition(Position):
    class Config(Position.Config):
        pass
