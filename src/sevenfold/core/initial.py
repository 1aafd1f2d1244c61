"""First weights as data: every parameter of a part has a rule, and one without is an error.

A part says `rules()`: name of a parameter → Rule, for the parameters that are its own (those of parts inside it are
theirs). `Config.build` fills them. A scheme (sevenfold.assembly.initialisation) may then rescale whole models by place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sevenfold.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a parameter begins, and whether weight decay pulls it to 0."""

    decays: bool = False

    def fill(self, parameter: Tensor) -> None:
        """Write the first values in place, drawing from torch's global generator."""
        raise NotImplementedError


@dataclass(frozen=True)
class Normal(Rule):
    """N(mean, std^2)."""

    std: float
    mean: float = 0.0

    def fill(self, parameter: Tensor) -> None:
        nn.init.normal_(parameter, self.mean, self.std)


@dataclass(frozen=True)
class Uniform(Rule):
    """U(low, high)."""

    low: float
    high: float

    def fill(self, parameter: Tensor) -> None:
        nn.init.uniform_(parameter, self.low, self.high)


@dataclass(frozen=True)
class Constant(Rule):
    """One value everywhere: 0 for biases, 1 for gains."""

    value: float = 0.0

    def fill(self, parameter: Tensor) -> None:
        nn.init.constant_(parameter, self.value)


@dataclass(frozen=True)
class Values(Rule):
    """What a function of the shape gives: `make(shape) → tensor` (a table in closed form, a special draw)."""

    make: Callable[[torch.Size], Tensor]

    def fill(self, parameter: Tensor) -> None:
        with torch.no_grad():
            parameter.copy_(self.make(parameter.shape))


class Ruled(nn.Module):
    """A module whose parameters begin by rules."""

    def rules(self) -> Mapping[str, Rule]:
        """Name (dotted, if in a plain torch module inside) → Rule, for every parameter that is its own."""
        return {}

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """Its parameters, without those of Ruled modules inside it."""
        inner = {id(p) for m in self.modules() if m is not self and isinstance(m, Ruled) for p in m.parameters()}
        return {name: p for name, p in self.named_parameters() if id(p) not in inner}

    def ruled(self) -> dict[str, tuple[Rule, nn.Parameter]]:
        """Each of its own parameters with its rule. ConfigError for a parameter without a rule, or a rule without one."""
        own, rules = self.own_parameters(), self.rules()
        if own.keys() != rules.keys():
            name = next(iter(own.keys() ^ rules.keys()))
            what = "has no rule for its first values" if name in own else "has a rule, and there is no such parameter"
            raise ConfigError(f"{type(self).__name__}: the parameter {name!r} {what}: see rules()")
        return {name: (rules[name], parameter) for name, parameter in own.items()}

    def begin(self) -> None:
        """Fill its own parameters by the rules. ConfigError as `ruled`."""
        for rule, parameter in self.ruled().values():
            rule.fill(parameter)


def ruled(root: Ruled) -> Iterator[tuple[str, Ruled, Rule, nn.Parameter]]:
    """(name, the module whose own it is, its rule, the parameter) of every parameter inside `root`, shared ones once.

    ConfigError for a parameter that no module has a rule for.
    """
    for place, module in root.named_modules():
        if isinstance(module, Ruled):
            for name, (rule, parameter) in module.ruled().items():
                yield f"{place}.{name}" if place else name, module, rule, parameter


class Care(NamedTuple):
    """How an optimizer treats a parameter: whether weight decay pulls it, and the factor of its learning rate (Adam's)."""

    decays: bool
    rate: float = 1.0


def cares(root: Ruled, rates: Mapping[str, float]) -> dict[str, Care]:
    """Parameter → Care, by the rules inside `root` and the `rates` that an initialisation gave (1 where it gave none)."""
    return {name: Care(rule.decays, rates.get(name, 1.0)) for name, _, rule, _ in ruled(root)}
