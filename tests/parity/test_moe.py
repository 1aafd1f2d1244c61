"""The mixture of experts against Mixtral's block, and its balance against transformers' loss."""

from __future__ import annotations

import pytest
import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

from sevenfold.core.part import decode, find

WIDTH, INNER = 16, 24


def twins(experts: int, active: int):
    config = MixtralConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_local_experts=experts, num_experts_per_tok=active
    )
    torch.manual_seed(0)
    theirs = MixtralSparseMoeBlock(config).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    expert = {"kind": "swiglu", "inner": INNER}
    settings = {"experts": experts, "active": active, "expert": expert, "balance": 1.0}
    ours = decode(find("nonlinearity", "moe").Config, settings).build(WIDTH).double()
    with torch.no_grad():
        ours.router.weight.copy_(theirs.gate.weight)
        for place, part in enumerate(ours.experts):
            part.up.weight.copy_(theirs.experts.gate_up_proj[place])
            part.out.weight.copy_(theirs.experts.down_proj[place])
    return ours, theirs


@pytest.mark.parametrize(("experts", "active"), [(4, 2), (8, 3), (3, 3)])
def test_mixtral_block(experts, active):
    """Output and gradients, in float64."""
    ours, theirs = twins(experts, active)
    x = torch.randn(2, 7, WIDTH, dtype=torch.float64).requires_grad_()
    y, wanted = ours(x), theirs(x)
    torch.testing.assert_close(y, wanted, atol=1e-6, rtol=0)  # their router's softmax is float32
    weight = torch.randn_like(y)
    (found,) = torch.autograd.grad((y * weight).sum(), x)
    (asked,) = torch.autograd.grad((wanted * weight).sum(), x)
    torch.testing.assert_close(found, asked, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("experts", "active"), [(4, 1), (4, 2), (8, 3)])
def test_balance(experts, active, padded):
    """Ours is theirs divided by how many experts a token goes through."""
    ours, _ = twins(experts, active)
    x = torch.randn(2, 7, WIDTH, dtype=torch.float64)
    valid = torch.arange(7) < torch.tensor([7, 3])[:, None]
    ours.train()(x, valid if padded else None)
    logits = ours.router(x).flatten(0, 1)
    theirs = load_balancing_loss_func((logits,), experts, active, valid.long() if padded else None)
    found = ours.penalty[0] / ours.penalty[1]
    torch.testing.assert_close(found.float(), theirs.float() / active, atol=1e-5, rtol=0)
