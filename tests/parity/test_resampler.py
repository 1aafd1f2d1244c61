"""A trunk of latents against Idefics' Perceiver resampler: the same weights give the same latents and gradients."""

from __future__ import annotations

import pytest
import torch
from transformers import IdeficsConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler
from twins import stirred

from sevenfold.assembly.trunk import Trunk
from sevenfold.core.part import decode
from sevenfold.core.types import Hidden

D, LATENTS, HEADS, DEPTH = 24, 5, 3, 2


class Seen:
    """A stand-in for an earlier trunk: what a trunk asks of one."""

    axes: tuple[str, ...] = ("row", "column")
    longest, grid, framed = 9, None, False

    class config:
        width = D


@pytest.fixture
def pair():
    torch.manual_seed(0)
    config = IdeficsConfig(vision_config={"embed_dim": D}, perceiver_config={"qk_layer_norms_perceiver": False})
    theirs = stirred(IdeficsPerceiverResampler(config, D, DEPTH, HEADS, D // HEADS, LATENTS)).double()
    block = {
        "mixer": None,
        "cross": {"kind": "resampler", "heads": HEADS},
        "nonlinearity": {"kind": "relu", "inner": 4 * D},
    }
    settings = {
        "inputs": [],
        "registers": LATENTS,
        "cross_attends": "seen",
        "width": D,
        "depth": DEPTH,
        "position": "none",
    }
    ours = Trunk(decode(Trunk.Config, {**settings, "block": block}), {}, {"seen": Seen()}).double()
    with torch.no_grad():
        ours.tokens.copy_(theirs.latents)
        for mine, (attention, mlp) in zip(ours.blocks, theirs.blocks):
            mine.cross.norm.load_state_dict(attention.context_layer_norm.state_dict())
            mine.norms[0].load_state_dict(attention.latents_layer_norm.state_dict())
            mine.cross.query.weight.copy_(attention.q_proj.weight)
            mine.cross.key_value.weight.copy_(torch.cat([attention.k_proj.weight, attention.v_proj.weight]))
            mine.cross.out.weight.copy_(attention.output_proj.weight)
            mine.norms[1].load_state_dict(mlp.ln.state_dict())
            mine.feed.up.weight.copy_(mlp.fc.weight)
            mine.feed.out.weight.copy_(mlp.c_proj.weight)
        ours.norm.load_state_dict(theirs.layer_norm.state_dict())
    return ours, theirs


def test_the_latents_are_the_same(pair):
    ours, theirs = pair
    x = torch.randn(3, 11, D, dtype=torch.float64, requires_grad=True)
    wanted = theirs(x)
    found = ours({}, {"seen": Hidden(x)})
    assert found.x.shape == (3, LATENTS, D) and found.spans == {"latents": (0, LATENTS)}
    assert torch.allclose(found.x, wanted, atol=1e-10)
    weight = torch.randn_like(wanted)
    ours_gradient, theirs_gradient = (
        torch.autograd.grad((y * weight).sum(), x, retain_graph=True)[0] for y in (found.x, wanted)
    )
    assert torch.allclose(ours_gradient, theirs_gradient, atol=1e-9)
    (found.x * weight).sum().backward()
    (wanted * weight).sum().backward()
    assert torch.allclose(ours.tokens.grad, theirs.latents.grad, atol=1e-9)


def test_the_order_of_what_is_read_does_not_matter_and_padding_is_not_read(pair):
    ours, _ = pair
    x = torch.randn(2, 9, D, dtype=torch.float64)
    wanted = ours({}, {"seen": Hidden(x)}).x
    assert torch.allclose(ours({}, {"seen": Hidden(x[:, torch.randperm(9)])}).x, wanted, atol=1e-10)
    padded = torch.cat([x, torch.full((2, 4, D), 7.0, dtype=torch.float64)], 1)
    valid = torch.arange(13).expand(2, -1) < 9
    assert torch.allclose(ours({}, {"seen": Hidden(padded, valid=valid)}).x, wanted, atol=1e-10)
