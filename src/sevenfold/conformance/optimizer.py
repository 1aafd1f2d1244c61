"""What every optimizer must do: see the contract in sevenfold.training.optimizer."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from sevenfold.conformance._kit import expect, refusal
from sevenfold.core.errors import CheckpointError

SHAPES = {
    "model.trunks.enc.blocks.0.mixer.out.weight": (6, 4),
    "model.trunks.enc.embeds.text.weight": (5, 4),
    "model.trunks.enc.norm.weight": (4,),
    "model.trunks.enc.position.tables": (1, 5, 4),
    "scale": (),
}
"""Parameters of every sort, under names as a model has them."""


def parameters() -> dict[str, nn.Parameter]:
    """Some, the same every time."""
    generator = torch.Generator().manual_seed(1)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


def loss_of(weights: dict[str, nn.Parameter]) -> Tensor:
    """A quadratic bowl around 2."""
    return sum((((weight - 2) ** 2).sum() for weight in weights.values()), torch.zeros(()))


def step(optimizer: Any, weights: dict[str, nn.Parameter], factor: float = 1.0) -> float:
    """One step down; the loss before it."""
    loss = loss_of(weights)
    loss.backward()
    optimizer.step(factor)
    optimizer.zero_grad()
    return float(loss.detach())


def check_every_parameter(config: Any) -> None:
    """Every parameter belongs to exactly one of its parts."""
    weights = parameters()
    parts = config.build(weights).parts
    owned = [id(weight) for part in parts for group in part.param_groups for weight in group["params"]]
    expect(sorted(owned) == sorted(map(id, weights.values())), "a parameter is left out or has two owners")


def check_descends(config: Any) -> None:
    """It lowers a quadratic, every part of it."""
    weights = parameters()
    before = {name: float((weight.detach() - 2).norm()) for name, weight in weights.items()}
    optimizer = config.replace(lr=0.2, weight_decay=0.0).build(weights)
    for _ in range(60):
        step(optimizer, weights)
    for name, weight in weights.items():
        after = float((weight.detach() - 2).norm())
        expect(
            after < 0.8 * before[name],
            f"{name} is {after:.2f} from the minimum after 60 steps, {before[name]:.2f} before",
        )


def check_rate(config: Any) -> None:
    """At factor 0 nothing moves, not even by weight decay; the rate that it returns is the peak times the factor."""
    weights = parameters()
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = config.build(weights)
    step(optimizer, weights, 0.0)
    expect(all(torch.equal(weights[name], before[name]) for name in weights), "moves at a learning rate of 0")
    expect(abs(optimizer.step(0.5) - 0.5 * config.lr) < 1e-12, "the rate is not the peak times the factor")


def check_decay(config: Any) -> None:
    """Weight decay shrinks matrices, and leaves norms, scales and positions alone."""
    weights = parameters()
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = config.replace(lr=0.01, weight_decay=0.5).build(weights)
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step(1.0)
    for name, weight in weights.items():
        matrix = weight.dim() == 2 and name.endswith("weight")
        expect(torch.equal(weight, before[name]) != matrix, f"{name} is {'not ' if matrix else ''}decayed")


def check_state(config: Any) -> None:
    """Its state goes through a file bit for bit: the steps after it are the same."""
    weights = parameters()
    optimizer = config.build(weights)
    for _ in range(3):
        step(optimizer, weights, 0.7)
    copies = {name: nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    other = config.build(copies)
    other.restore(load(save(optimizer.tensors())))
    for _ in range(2):
        step(optimizer, weights)
        step(other, copies)
    expect(all(torch.equal(weights[name], copies[name]) for name in weights), "the steps after restoring differ")
    first, second = optimizer.tensors(), other.tensors()
    expect(first.keys() == second.keys(), "the state has other tensors after restoring")
    expect(all(torch.equal(first[name], second[name]) for name in first), "the state differs after restoring")
    expect(all(first[name].dtype == second[name].dtype for name in first), "the state has another type after restoring")


def check_refuses(config: Any) -> None:
    """State of a parameter that is not there is an error of one line."""
    refusal(lambda: config.build(parameters()).restore({"elsewhere|step": torch.ones(())}), CheckpointError)
