"""Weights in shares: each process keeps 1/n of every weight, its gradient and its optimizer state, and borrows the rest.

Zhao 2023 (FSDP), arXiv:2304.11277; Rajbhandari 2020 (ZeRO, stage 3), arXiv:1910.02054. Every block is a unit, and so is all that
is in no block; gradients are added up, not averaged, since the loop divides by what is counted.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import distribute_tensor

from sevenfold.assembly.block import Block
from sevenfold.core.ranks import Ranks
from sevenfold.objective import Objective


def shard(objective: Objective, ranks: Ranks) -> None:
    """Give each process its share of the weights of an objective, in place. Numbers (a temperature) stay whole."""
    group: Any = ranks.group or dist.group.WORLD
    mesh = DeviceMesh.from_group(group, ranks.device.type)
    numbers = {parameter for parameter in objective.parameters() if parameter.dim() == 0}
    units: list[Any] = [module for module in objective.modules() if isinstance(module, Block)]
    for unit in (*units, objective):
        fully_shard(unit, mesh=mesh, ignored_params=numbers)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
        unit.set_reduce_scatter_unused_params(True)
    register_fsdp_forward_method(objective, "embed")


def share_of(parameter: Any, value: Tensor) -> Tensor:
    """This process's share of a whole tensor, as the parameter lies."""
    found: Tensor = distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
    return found
