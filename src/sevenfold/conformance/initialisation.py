"""What every scheme of first weights must do: see the contract in sevenfold.assembly.initialisation."""

from __future__ import annotations

import math
from typing import Any

import torch

from sevenfold.assembly.mask import MaskConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.trunk import Trunk
from sevenfold.conformance._kit import WIDTH, expect, finite
from sevenfold.conformance.trunk import tokens
from sevenfold.core.part import decode, find
from sevenfold.objective.next_token import NextToken

DEPTHS = (1, 8)


def made(config: Any, depth: int = 2, scheme: str | None = None) -> NextToken:
    """Next-token prediction on bytes with a causal trunk whose first weights are of this scheme."""
    torch.manual_seed(1)
    trunk = Trunk.Config(inputs=("text",), width=WIDTH, depth=depth, class_token=True, mask=MaskConfig(causal=True))
    streams: dict[str, Any] = {"text": decode(find("modality", "text").Config, {"length": 16})}
    init = config if scheme is None else find("initialisation", scheme).Config()
    model = ModelConfig(streams=streams, trunks={"lm": trunk}, init=init)
    model = model.replace(heads=NextToken.heads(NextToken.Config(), model, {}))
    built = Model(model, {name: stream.build() for name, stream in streams.items()})
    return NextToken(NextToken.Config(), built).eval()


def check_repeatable(config: Any) -> None:
    """The seed decides the weights, and the scheme draws nothing: what is drawn next is the same as with another."""
    first = made(config).state_dict()
    after = torch.rand(4)
    second = made(config).state_dict()
    expect(all(torch.equal(first[name], second[name]) for name in first), "the same seed gives other weights")
    made(config, scheme="standard")
    expect(torch.equal(after, torch.rand(4)), "it draws random numbers of its own")


def check_names(config: Any) -> None:
    """Weights have the names and shapes that they have with the standard scheme, so that weights from files fit."""
    found, wanted = made(config).state_dict(), made(config, scheme="standard").state_dict()
    shapes = [{name: value.shape for name, value in state.items()} for state in (found, wanted)]
    expect(shapes[0] == shapes[1], "the model has other weights than with the standard scheme")


def check_start(config: Any) -> None:
    """The first loss is near the log of the number of ids, and finite with finite gradients."""
    objective = made(config)
    loss = objective({"text": tokens(objective.model)}).mean
    ids = objective.model.modalities["text"].tokenizer.size or 1
    expect(abs(float(loss.detach()) - math.log(ids)) < 0.1, f"starts at {float(loss.detach()):.3f} nats")
    loss.backward()
    for name, parameter in objective.named_parameters():
        if parameter.grad is not None:
            finite(parameter.grad, f"the gradient of {name}")


def check_depth(config: Any) -> None:
    """The stream has about the size at depth 8 that it has at depth 1."""
    sizes = []
    for depth in DEPTHS:
        objective = made(config, depth)
        trunk: Any = objective.model.trunks["lm"]
        trunk.norm = None
        sizes.append(float(trunk({"text": tokens(objective.model)}).x.detach().square().mean().sqrt()))
    expect(sizes[1] < 2 * sizes[0], f"the stream has size {sizes[0]:.3g} after one block, {sizes[1]:.3g} after eight")


def check_rates(config: Any) -> None:
    """Learning rates are positive factors of parameters that are there."""
    model = made(config).model
    names = dict(model.named_parameters())
    for name, rate in model.rates.items():
        expect(name in names, f"there is no parameter {name!r}")
        expect(rate > 0 and math.isfinite(rate), f"{name} learns at {rate} times the rate")
