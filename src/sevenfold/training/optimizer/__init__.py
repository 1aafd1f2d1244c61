"""Optimizers: PyTorch's own, with the parameters divided among them by a rule that is written down once.

Weight decay goes to the parameters whose rules say so (sevenfold.core.initial): matrices, not biases, norms, scales,
class and register tokens. The factor of each one's learning rate is the initialisation's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.core import part
from sevenfold.core.cut import Cut
from sevenfold.core.errors import CheckpointError
from sevenfold.core.initial import Care
from sevenfold.training.parallel.gradients import fits, placed, sharded


class Optimizer(part.Part):
    """One or more torch optimizers that step together. `parts` are these; every group has its peak rate as `peak`."""

    room = "optimizer"

    class Config(part.Config):
        lr: float = Field(1e-3, gt=0)
        """The peak learning rate."""
        weight_decay: float = Field(0.1, ge=0)
        """Decoupled weight decay of matrices."""

    def __init__(
        self,
        config: Any,
        parameters: Mapping[str, nn.Parameter],
        care: Mapping[str, Care] | None = None,
        cuts: Mapping[str, Cut] | None = None,
    ):
        """`care`: how to treat each parameter; those that it leaves out are decayed where they are called weight and have
        two sides. `cuts`: those of which this process has a slice (tensor parallelism), and which."""
        self.config, self.care, self.cuts = config, care or {}, cuts or {}
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.parts: list[torch.optim.Optimizer] = self.share_out(dict(parameters))
        for optimizer in self.parts:
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]

    def share_out(self, parameters: dict[str, nn.Parameter]) -> list[torch.optim.Optimizer]:
        """The torch optimizers for named trainable parameters."""
        raise NotImplementedError

    @classmethod
    def flops(cls, parameters: Mapping[str, nn.Parameter]) -> int:
        """Multiply-adds ×2 of its own matrix products in one step over named trainable parameters, by formula."""
        return 0

    @classmethod
    def scratch(cls, parameters: Mapping[str, nn.Parameter]) -> int:
        """Bytes that it needs for a moment while it steps, beside weights, gradients and state, by formula."""
        return 0

    def groups(self, parameters: Mapping[str, nn.Parameter], power: float = 1.0) -> list[dict[str, Any]]:
        """Torch's parameter groups: those that are decayed first, with the rate of each (the factor ** power for optimizers
        whose steps do not have Adam's size). Decay times rate is the same for all that are decayed."""
        found: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
        for name, parameter in parameters.items():
            care = self.care.get(name, Care(parameter.dim() >= 2 and name.endswith("weight")))
            found.setdefault((care.decays, care.rate**power, sharded(parameter)), []).append(parameter)
        lr, decay = self.config.lr, self.config.weight_decay
        return [
            {"params": found[decays, rate, shared], "lr": lr * rate, "weight_decay": decay / rate if decays else 0.0}
            for decays, rate, shared in sorted(found, reverse=True)
        ]

    def zero_grad(self) -> None:
        for optimizer in self.parts:
            optimizer.zero_grad(set_to_none=True)

    def step(self, factor: float) -> float:
        """One step at `factor` × the peak rates; returns the rate where the factor of the parameter is 1."""
        for optimizer in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
        return self.config.lr * factor

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
        """Take over what `tensors` gave, here or on any number of processes."""
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
            cut = self.cuts.get(parameter_name)
            if value.dim() and not fits(parameter, value, cut):
                raise CheckpointError(
                    f"{where}: {name} has shape {list(value.shape)}, the parameter has {list(parameter.shape)}"
                )
            here = placed(parameter, value, cut) if value.dim() else value
            optimizer.state[parameter][key] = here.clone().to(parameter.device)
