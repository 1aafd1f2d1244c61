"""Optimizers: PyTorch's own, with the parameters shared out by a rule that is written down once.

Weight decay goes to matrices only: not to biases, norms, scales, class and register tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.core import part
from sevenfold.core.errors import CheckpointError


class Optimizer(part.Part):
    """One or more torch optimizers that step together. `parts` are these; every group has its peak rate as `peak`."""

    room = "optimizer"

    class Config(part.Config):
        lr: float = Field(1e-3, gt=0)
        """The peak learning rate."""
        weight_decay: float = Field(0.1, ge=0)
        """Decoupled weight decay of matrices."""

    def __init__(self, config: Any, parameters: Mapping[str, nn.Parameter]):
        self.config = config
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.parts: list[torch.optim.Optimizer] = self.share_out(dict(parameters))
        for optimizer in self.parts:
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]

    def share_out(self, parameters: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
        """The torch optimizers for named trainable parameters."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        for optimizer in self.parts:
            optimizer.zero_grad(set_to_none=True)

    def step(self, factor: float) -> float:
        """One step at `factor` × the peak rates; returns the (first group's) rate."""
        for optimizer in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
        return self.parts[0].param_groups[0]["lr"]

    # Exact state, by parameter name, without pickle
    def tensors(self) -> dict[str, Tensor]:
        """Its state as named tensors: `parameter|key`."""
        found = {}
        for optimizer in self.parts:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    value = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
                    found[f"{self.names[id(parameter)]}|{key}"] = value.detach().clone()
        return found

    def restore(self, tensors: Mapping[str, Tensor], where: str = "optimizer") -> None:
        """Take over what `tensors` gave."""
        owner = {
            self.names[id(parameter)]: (optimizer, parameter)
            for optimizer in self.parts
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for optimizer in self.parts:
            optimizer.state.clear()
        for name, value in tensors.items():
            parameter_name, _, key = name.rpartition("|")
            if parameter_name not in owner:
                raise CheckpointError(f"{where}: holds state of {parameter_name!r}, which this recipe does not train")
            optimizer, parameter = owner[parameter_name]
            if value.dim() and value.shape != parameter.shape:
                raise CheckpointError(
                    f"{where}: {name} has shape {list(value.shape)}, the parameter has {list(parameter.shape)}"
                )
            optimizer.state[parameter][key] = value.clone().to(parameter.device)


def decayed(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices (decayed), and everything else (not)."""
    matrices = [p for name, p in parameters.items() if p.dim() >= 2 and name.endswith("weight")]
    kept = {id(p) for p in matrices}
    others = [p for p in parameters.values() if id(p) not in kept]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
