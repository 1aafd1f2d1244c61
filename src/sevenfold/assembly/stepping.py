"""A trunk token by token: the state before any, and the next tokens after a state."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

from sevenfold.assembly.block import Block
from sevenfold.blocks.mixing.cache import Cache
from sevenfold.blocks.normalization import Norm
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Ruled
from sevenfold.core.modules import ModuleList
from sevenfold.core.types import Batch, Hidden, Mask


class TrunkState:
    """What a trunk remembers between steps: the state of each block, how many tokens each row has seen, the condition.

    A step uses the state up that it is given; `copy` keeps one.
    """

    def __init__(self, trunk: Stepping, blocks: list[Any], used: int | Tensor, condition: Tensor | None = None):
        self.trunk, self.blocks, self.used, self.condition = trunk, blocks, used, condition

    def rows(self, index: Tensor) -> TrunkState:
        """The state of the rows at `index` [k], in that order and as often: beams, several samples of one prompt. This one
        stays as it is. A memory that `step` is given must be taken alike."""
        blocks = [block.rows(state, index) for block, state in zip(self.trunk.blocks, self.blocks)]
        used = self.used.index_select(0, index) if isinstance(self.used, Tensor) else self.used
        condition = None if self.condition is None else self.condition.index_select(0, index)
        return TrunkState(self.trunk, blocks, used, condition)

    def rewind(self, count: int) -> TrunkState | None:
        """The state before the last `count` tokens, none of them padding, in the same memory; None where a mixer (a
        recurrent one) does not have it: step from a `copy` then. This one is used up unless that is so."""
        blocks = []
        for block, state in zip(self.trunk.blocks, self.blocks):
            before = block.rewind(state, count)
            if before is None:
                return None
            blocks.append(before)
        return TrunkState(self.trunk, blocks, self.used - count, self.condition)

    def copy(self) -> TrunkState:
        """The same state in memory of its own, so that both can go on."""
        return TrunkState(self.trunk, tree_map_only(Tensor, Tensor.clone, self.blocks), self.used, self.condition)


class Stepping(Ruled):
    """What a causal trunk does in generation."""

    config: Any
    blocks: ModuleList[Block]
    norm: Norm | None
    prompts: Any

    def condition(self, batch: Batch, rows: int) -> Tensor | None:
        raise NotImplementedError

    def _finish(self, hidden: Hidden, before: int | Tensor = 0) -> Hidden:
        raise NotImplementedError

    def _around(self, hidden: Hidden, memory: Hidden | None) -> Hidden:
        raise NotImplementedError

    def start(
        self, rows: int, length: int, condition: Tensor | None = None, cache: Cache.Config | str | None = None
    ) -> TrunkState:
        """The state before any token, for at most `length` tokens (class and register tokens included).

        `condition` [rows width] is what `condition` gives; by default that of rows without any. `cache` is how mixers keep
        keys and values, a kind of the room `cache` or its Config; by default `sliding` where a window shorter than
        `length` is all that a mixer sees, else `full`. ConfigError for a cache that forgets what the mask shows.
        """
        if not self.config.mask.causal:
            raise ConfigError("this trunk is not causal, so it cannot continue a sequence: set mask.causal")
        like = next(self.parameters())
        condition = self.condition({}, rows) if condition is None else condition
        mask = Mask(True, self.config.mask.window)
        blocks = [block.start(rows, length, like, cache, mask) for block in self.blocks]
        return TrunkState(self, blocks, 0, condition)

    def step(
        self, hidden: Hidden, state: TrunkState, memory: Hidden | None = None, prefix: Tensor | None = None
    ) -> tuple[Hidden, TrunkState]:
        """The next tokens (from `embed`, joined, padding in front of them) after `state` → (Hidden, the new state).

        `prefix` [b]: that many places of the first step see each other in both directions (mask.prefix).
        """
        mask = Mask(self.config.mask.causal, self.config.mask.window, prefix)
        seen = hidden.x.shape[1] if hidden.valid is None else hidden.valid.long().sum(1, keepdim=True)
        if self.prompts is not None and isinstance(state.used, int) and not state.used:
            seen = seen - len(self.prompts)
        hidden = self._around(self._finish(hidden._replace(condition=state.condition), state.used), memory)
        after = []
        x = hidden.x
        if self.blocks:
            hidden = hidden._replace(x=self.blocks[0].residuals[0].enter(x))
            for block, block_state in zip(self.blocks, state.blocks):
                hidden, new = block.step(hidden, block_state, mask)
                after.append(new)
            x = self.blocks[-1].residuals[-1].leave(hidden.x)
        if self.norm is not None:
            x = self.norm(x, hidden.condition, hidden.valid)
        return hidden._replace(x=x, angles=None, bias=None, memory=None, elsewhere=None), TrunkState(
            self, after, state.used + seen, state.condition
        )
