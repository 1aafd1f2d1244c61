"""Parameters, FLOPs and memory of every part, by formula: what `show`, the planner and utilisation are computed from.

Only matrix products are counted (2 FLOPs per multiply-add), as PyTorch's FlopCounterMode does: no norms, no softmax, no
pointwise functions. Attention is counted in full whatever the mask, as the counter does. A product takes as much again for
the gradient of each of its two factors that needs one. `kept` is what autograd keeps for the backward pass, each tensor
once: the residual stream with the norm that reads it, a part's input with the part. In the line of Korthikanti 2022,
arXiv:2205.05198 section 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from sevenfold.core.cut import Share


class Cost(NamedTuple):
    """What one row of the batch costs in one part of a model; numbers are counts of array elements, not bytes."""

    place: str
    """Where the part is in the model, as in names of parameters."""
    kind: str
    parameters: int
    flops: int
    """Of the forward pass."""
    trained: int = 0
    """How many of its parameters are trained."""
    backward: int = 0
    """FLOPs of the backward pass."""
    kept: int = 0
    """Numbers kept for the backward pass."""
    wide: bool = False
    """Whether these stay in float32 where products run in bf16."""
    scratch: int = 0
    """Numbers needed for a moment, beside what is kept."""
    exact: bool = False
    """Whether these are in float32 where products run in bf16."""
    scored: tuple[int, int] = (0, 0)
    """Bytes in addition where products run in bf16 on a CPU, and of how many rows of the batch at a time."""
    stream: int = 0
    """Of the first part of a block: the numbers that go into the block."""
    outputs: int = 0
    """Of a head: the numbers that it gives."""
    each: int = 0
    """Of a head: those of one token."""
    once: int = 0
    """FLOPs of a forward pass that a batch takes once, however many rows it has."""
    cached: tuple[int, int] = (0, 0)
    """Numbers of state that generation carries, after all of the tokens and after all but one."""
    cut: Share = Share()


class Passes(NamedTuple):
    """What the formulas need to know of the passes through a trunk."""

    tokens: int
    memory: int
    """Tokens that cross-attention reads."""
    memory_learns: bool
    """Whether the memory needs a gradient."""
    masked: bool
    """Whether rows have masks of their own: padding, or several documents in a window."""
    learns: bool
    """Whether there is a backward pass."""
    wide: bool
    """Whether the residual stream stays in float32 where products run in bf16: it does where ids are embedded."""


def parameters(module: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def trained(module: nn.Module) -> int:
    """Number of parameters that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def cost_of(
    place: str, kind: Any, modules: Iterable[nn.Module], flops: int, flows: bool, learns: bool, **more: Any
) -> Cost:
    """The cost of some modules; `flows`: whether their input needs a gradient; `learns`: whether there is a backward pass."""
    modules = list(modules)
    count, own = sum(map(parameters, modules)), sum(map(trained, modules))
    if not (own or flows) or not learns:
        more |= {"kept": 0}
    return Cost(place, str(kind), count, flops, own, flops * (bool(own) + flows) if learns else 0, **more)


def norm_cost(place: str, norm: Any, tokens: int, learns: bool, wide: bool) -> Cost:
    """The cost of a norm that stands by itself: it keeps its input."""
    given = tokens * norm.width
    more = {"kept": given + norm.kept(tokens), "wide": wide, "scratch": 2 * given}
    return cost_of(place, norm.kind, [norm], norm.flops(tokens), True, learns, **more)
