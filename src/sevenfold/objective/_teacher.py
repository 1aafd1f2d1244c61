"""A teacher: a slow copy of modules, which follows them after each step and is never trained by a gradient.

    t <- m t + (1 - m) s          buffers (running statistics) are copied

Tarvainen 2017 (mean teacher), arXiv:1703.01780 eq. 1. Kept in the precision of the weights, so that small steps add up;
dropout is off in it. A schedule is a function of the share of the run that is done, which stands in a buffer: a resumed run
goes on where it was.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from sevenfold.assembly.model import Model
from sevenfold.core import ranks
from sevenfold.core.modules import ModuleDict
from sevenfold.core.types import Batch, Hidden


def cosine(start: float, end: float, share: float) -> float:
    """From `start` to `end` along half a cosine, at a share 0…1 of the way."""
    return end - (end - start) * (math.cos(math.pi * min(max(share, 0.0), 1.0)) + 1) / 2


def linear(start: float, end: float, share: float) -> float:
    """From `start` to `end` in a straight line."""
    return start + (end - start) * min(max(share, 0.0), 1.0)


class Clock(nn.Module):
    """How much of the run is done, 0…1, in a buffer."""

    done: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("done", torch.zeros((), dtype=torch.float64))

    def tick(self, step: int, steps: int) -> None:
        """To be called in `after_step`."""
        self.done.fill_((step + 1) / steps)

    @property
    def share(self) -> float:
        return float(self.done)


class Teacher(nn.Module):
    """Copies of named modules, in evaluation whatever is trained around them.

    `modules` are those that are followed; names are kept. Call `settle` in the objective's `settle`, `follow` in its
    `after_step`.
    """

    def __init__(self, **modules: nn.Module):
        super().__init__()
        self.batch = False
        self.copies: ModuleDict[Any] = ModuleDict({name: copy.deepcopy(module) for name, module in modules.items()})
        self.requires_grad_(False)
        self.eval()

    def by_batch(self) -> Teacher:
        """From now on its norms over a batch gather statistics of their own, and use those of the batch in training, instead
        of those that the modules have gathered."""
        self.batch = True
        return self

    def train(self, mode: bool = True) -> Teacher:
        super().train(False)
        for module in self.modules():
            if self.batch and getattr(module, "across", False):
                module.train(mode)
        return self

    def __getitem__(self, name: str) -> Any:
        return self.copies[name]

    @torch.no_grad()
    def settle(self, **modules: nn.Module) -> None:
        """Become equal to the modules."""
        for name, module in modules.items():
            self.copies[name].load_state_dict(module.state_dict())

    @torch.no_grad()
    def follow(self, momentum: float, **modules: nn.Module) -> None:
        """One step towards the modules."""
        for name, module in modules.items():
            own, theirs = self.copies[name], module
            mine, wanted = ([ranks.own(p.detach()) for p in module.parameters()] for module in (own, theirs))
            torch._foreach_lerp_(mine, wanted, 1 - momentum)
            for copied, followed in zip(own.modules(), theirs.modules()):
                if not (self.batch and getattr(copied, "across", False)):
                    for buffer, value in zip(copied.buffers(recurse=False), followed.buffers(recurse=False)):
                        buffer.copy_(value)


def trunks_for(model: Model, name: str) -> ModuleDict[Any]:
    """The trunk of that name with the earlier trunks that it reads, as they stand in the model (not copied)."""
    needed, config = [name], model.config.trunks
    for trunk in reversed(list(model.trunks)):
        for reader in list(needed):
            if trunk in (*config[reader].inputs, config[reader].cross_attends) and trunk not in needed:
                needed.append(trunk)
    return ModuleDict({trunk: model.trunks[trunk] for trunk in model.trunks if trunk in needed})


def through(trunks: ModuleDict[Any], batch: Batch, name: str) -> Hidden:
    """The representation of trunk `name`, through those before it."""
    done: dict[str, Hidden] = {}
    for other, trunk in trunks.items():
        done[other] = trunk(batch, done)
    return done[name]
