"""The last keys and values only, in a ring: memory does not grow with the sequence.

    slot(i) = i mod w                   2 w kv d_h numbers for any number of tokens

Exact, because a window of w shows no more than these. Jiang 2023 (Mistral 7B), arXiv:2310.06825 section 2 (rolling buffer
cache).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.blocks.mixing.cache import Cache, Kept
from sevenfold.core.errors import ConfigError


class Sliding(Cache):
    class Config(Cache.Config):
        window: int | None = Field(None, ge=1, le=1 << 22)
        """Tokens that are kept; by default as many as the mask's window shows, and never fewer."""

    def __init__(self, config: Any, window: int | None = None):
        super().__init__(config, window)
        if window is None:
            raise ConfigError(
                "cache: 'sliding' forgets what no window shows, and a mask has none here: choose full, or leave cache out"
            )
        if config.window is not None and config.window < window:
            raise ConfigError(
                f"cache: 'sliding' keeps {config.window} tokens, and the mask's window shows {window}: leave window out"
            )
        self.kept: int = config.window or window

    def slots(self, length: int) -> int:
        return min(self.kept, length)

    def places(self, old: int, new: int, device: Any) -> Tensor:
        if new - old == 1:
            slot = torch.arange(min(self.kept, new), device=device)
            return old - (old - slot) % self.kept
        slot = torch.arange(min(self.kept, old), device=device)
        return torch.cat([old - 1 - (old - 1 - slot) % self.kept, torch.arange(old, new, device=device)])

    def put(self, whole: Tensor, part: Tensor, old: int, new: int, dim: int) -> Tensor:
        slots = whole.shape[dim]
        if new - old == 1:
            whole.narrow(dim, old % slots, 1).copy_(part)
            return whole.narrow(dim, 0, min(slots, new))
        read = torch.cat([whole.narrow(dim, 0, min(slots, old)), part.to(whole.dtype)], dim)
        last = min(slots, new - old)
        index = torch.arange(new - last, new, device=whole.device) % slots
        whole.index_copy_(dim, index, part.narrow(dim, new - old - last, last).to(whole.dtype))
        return read

    def rewind(self, kept: Kept, count: int) -> Kept | None:
        return super().rewind(kept, count) if count == 0 or kept.used <= self.slots(kept.length) else None
