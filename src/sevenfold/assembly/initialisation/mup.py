"""Maximal update parametrization: the best learning rate of a narrow model is that of a wide one.

    at r = width / base width     first std           learning rate (Adam)     in the forward pass
    input weights, biases, gains  as at the base      1
    hidden matrices               base / sqrt(r)      1 / r
    output matrices               base / r            1 / r
    tied output                   as at the base      1                        logits / r
    attention                                                                  scores / sqrt(r of the head's width)

Yang 2022, arXiv:2203.03466 tables 3 and 8; weight decay times learning rate is kept as it is. Which sides of a matrix grow
is seen on a second model, of the base width. At the base width it is the standard scheme. Under Muon, the singular values
of whose steps grow with sqrt(r) (their entries have the size of Adam's), hidden matrices learn at 1/sqrt(r): the steps'
spectral norm stays, as Yang 2023, arXiv:2310.17813 asks.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.assembly.initialisation import Initialisation, scale_outputs
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Normal, Rule, ruled


class MuP(Initialisation):
    class Config(Initialisation.Config):
        base_width: int = Field(64, ge=1, le=1 << 16)
        """The width of the model on which the learning rate was found; every trunk has it there."""

    variants = ({"base_width": 16},)

    @torch.no_grad()
    def apply(self, model: Any) -> dict[str, float]:
        scale_outputs(model)
        base = self._base(model)
        at_base = {name: (rule, weight) for name, _, rule, weight in ruled(base)}
        rates = {}
        for name, owner, rule, weight in ruled(model):
            size, rate = factors(rule, weight, *at_base[name], reads_ids=getattr(owner, "reads_ids", False))
            weight.mul_(size)
            if rate != 1:
                rates[name] = rate
        for head in model.heads.values():
            if head.config.projection.part.reads_table:
                head.scale *= base.trunks[head.config.trunk].config.width / model.trunks[head.config.trunk].config.width
        for name, trunk in model.trunks.items():
            for block, small in zip(trunk.blocks, base.trunks[name].blocks):
                for mixer, of_base in zip(block.mixers, small.mixers):
                    _temper(mixer, of_base)
        return rates

    def _base(self, model: Any) -> Any:
        """The same model at the base width, with the standard scheme."""
        width, config = self.config.base_width, model.config
        trunks = {name: trunk.replace(width=width) for name, trunk in config.trunks.items()}
        standard = part.find("initialisation", "standard").Config()
        with torch.random.fork_rng(devices=[]):
            try:
                return type(model)(config.replace(trunks=trunks, init=standard), model.modalities)
            except ConfigError as error:
                raise ConfigError(f"init.base_width: this model cannot be built at width {width}: {error}") from None


def factors(rule: Rule, weight: Tensor, base_rule: Rule, base: Tensor, reads_ids: bool = False) -> tuple[float, float]:
    """What to multiply a parameter's first values with, and its learning rate, from how its sides grew since the base."""
    grown = [side / at_base for side, at_base in zip(weight.shape, base.shape)]
    many = [ratio for ratio in grown if ratio != 1]
    size = base_rule.std / rule.std if isinstance(rule, Normal) and isinstance(base_rule, Normal) else 1.0
    if len(many) >= 2:
        into = many[-1]
        return size * (into**-0.5 if isinstance(rule, Normal) else 1.0), 1 / into
    if rule.decays and not reads_ids and grown[-1] != 1:
        return size / grown[-1] if isinstance(rule, Normal) else 1.0, 1 / grown[-1]
    return size, 1.0


def _temper(mixer: Any, base: Any) -> None:
    """Attention scores of wider heads, divided once more."""
    wide, narrow = getattr(mixer, "head_width", None), getattr(base, "head_width", None)
    if wide == narrow or wide is None or narrow is None:
        return
    if not hasattr(mixer, "score_scale"):
        raise ConfigError(
            f"init: mup does not know the scores of {mixer.kind!r}: give its heads one width (head_width)"
        )
    mixer.score_scale = (narrow / wide) ** 0.5
