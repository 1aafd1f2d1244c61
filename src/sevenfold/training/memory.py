"""How much memory a training step should need, by formula, before it is run.

    weights P b · gradients T b · optimizer T b s · activations  n b (sum over projections (in + out) + norms 2 d) + logits

P all and T trained parameters, b bytes of a number, s numbers of state per weight, n tokens. Counted is what the backward
pass keeps of each block; matrices of attention scores are not kept by fused kernels. In the line of Korthikanti 2022,
arXiv:2205.05198 section 4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sevenfold.assembly.flops import known_tokens
from sevenfold.assembly.model import Model
from sevenfold.blocks.normalization import Norm
from sevenfold.blocks.projection import Projection
from sevenfold.objective import Objective
from sevenfold.training.optimizer import Optimizer

LOGITS = 3
"""Copies of the logits: as the head gives them, in float32, and their gradient."""


def memory(
    objective: Objective, optimizer: Optimizer.Config, rows: int, lengths: Mapping[str, int], bf16: bool
) -> dict[str, int]:
    """Bytes that a step over `rows` rows needs: weights, gradients, optimizer state, activations."""
    every = dict(objective.named_parameters())
    trained = {name: parameter for name, parameter in every.items() if parameter.requires_grad}
    weights = sum(parameter.numel() for parameter in every.values())
    return {
        "weights": 4 * weights,
        "gradients": 4 * sum(parameter.numel() for parameter in trained.values()),
        "optimizer state": 4 * state_numbers(optimizer, trained),
        "activations": rows * activations(objective.model, lengths, 2 if bf16 else 4),
    }


def state_numbers(optimizer: Optimizer.Config, trained: Mapping[str, nn.Parameter]) -> int:
    """Numbers that an optimizer keeps about these parameters, seen on a twin with sides of at most 2."""
    twin = {name: nn.Parameter(torch.zeros([min(side, 2) for side in p.shape])) for name, p in trained.items()}
    made = optimizer.build(twin)
    for parameter in twin.values():
        parameter.grad = torch.zeros_like(parameter)
    made.step(1.0)
    count = 0
    for key, value in made.tensors().items():
        name = key.rpartition("|")[0]
        count += trained[name].numel() if value.shape == twin[name].shape else value.numel()
    return count


def activations(model: Model, lengths: Mapping[str, int], size: int) -> int:
    """Bytes that one row leaves for the backward pass, numbers of `size` bytes inside blocks."""
    known = known_tokens(model, lengths)
    total = 0
    for name, config in model.config.trunks.items():
        per_token = sum(_kept(module) for module in model.trunks[name].blocks.modules())
        total += 0 if config.frozen else known[name] * per_token * size
    for name, head in model.config.heads.items():
        tokens = 1 if head.pool != "none" else known.get(head.stream or "", known[head.trunk])
        total += LOGITS * 4 * tokens * model.heads[name].outputs
    return total


def _kept(module: nn.Module) -> int:
    """Numbers per token that a module keeps."""
    if isinstance(module, Projection):
        return module.width_in + module.width_out
    return 2 * module.width if isinstance(module, Norm) else 0
