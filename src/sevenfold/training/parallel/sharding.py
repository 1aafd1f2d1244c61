"""Sharded weights (FSDP2): each process keeps 1/n of every weight, its gradient and its optimizer state, and gathers the rest when needed.

Zhao 2023 (FSDP), arXiv:2304.11277; Rajbhandari 2020 (ZeRO, stage 3), arXiv:1910.02054. Every block is a unit, and so is all that
is in no block; gradients are summed, not averaged, since the loop divides by the count of targets.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import distribute_tensor

from sevenfold.assembly.block import Block
from sevenfold.core.ranks import Mesh, Ranks
from sevenfold.objective import Objective


def shard(objective: Objective, mesh: Mesh) -> None:
    """Shard the weights of an objective in place: those of a block over the processes that have the same slices of it, the rest over
    all. Scalars (a temperature) stay whole. Units go to the device one by one, so that no device ever has all of them whole."""
    blocks: list[Any] = [module for module in objective.modules() if isinstance(module, Block)]
    aside = {parameter for parameter in objective.parameters() if parameter.dim() == 0}
    if mesh.copies.alone:
        aside |= {parameter for block in blocks for parameter in block.parameters()}
    for unit in (*([] if mesh.copies.alone else blocks), objective):
        others = mesh.every if unit is objective else mesh.copies
        fully_shard(unit, mesh=_devices(others), ignored_params=aside)
        unit.set_gradient_divide_factor(float(others.size // mesh.copies.size))
        unit.set_force_sum_reduction_for_comms(True)
        if hasattr(unit, "set_reduce_scatter_unused_params"):
            unit.set_reduce_scatter_unused_params(True)
        else:
            _add_zeros(unit)
    register_fsdp_forward_method(objective, "embed")


def _add_zeros(unit: Any) -> None:
    """Weights of a unit without a gradient on this process get one of zeros before gradients are reduced, for others may have one:
    what PyTorch does itself from after 2.11 on."""
    group = unit._get_fsdp_state()._fsdp_param_group
    if group is None:
        return
    add_up = group.post_backward

    def post_backward(*unused: Any) -> None:
        for held in group.fsdp_params:
            weight = getattr(held, "_unsharded_param", None)
            if (
                weight is not None
                and weight.requires_grad
                and weight.grad is None
                and held.unsharded_accumulated_grad is None
            ):
                weight.grad = torch.zeros_like(weight)
        add_up(*unused)

    group.post_backward = post_backward


def _devices(ranks: Ranks) -> DeviceMesh:
    group: Any = ranks.group or dist.group.WORLD
    return DeviceMesh.from_group(group, ranks.device.type)


def shard_of(parameter: Any, value: Tensor) -> Tensor:
    """This process's shard of a whole tensor, placed as the parameter is."""
    found: Tensor = distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
    return found
