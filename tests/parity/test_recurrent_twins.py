"""Recurrent mixers against the same layers of `transformers`, with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import Mamba2Config, MambaConfig, Qwen3NextConfig
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next.modeling_qwen3_next import (
    Qwen3NextGatedDeltaNet,
    torch_chunk_gated_delta_rule,
    torch_recurrent_gated_delta_rule,
)
from twins import same

from sevenfold.blocks.mixing.gated_delta import delta_rule
from sevenfold.core.part import decode, find
from sevenfold.core.types import Hidden, Mask

CAUSAL = Mask(causal=True)


def made(kind: str, width: int, **settings):
    torch.manual_seed(0)
    return decode(find("mixing", kind).Config, settings).build(width)


def gradients_agree(ours: Tensor, theirs: Tensor, x: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Of the input and of every pair of parameters, for one random direction."""
    direction = torch.randn_like(theirs)
    mine = torch.autograd.grad((ours * direction).sum(), [x, *(a for a, _ in pairs)])
    other = torch.autograd.grad((theirs * direction).sum(), [x, *(b for _, b in pairs)])
    for a, b in zip(mine, other, strict=True):
        assert float((a.reshape(b.shape) - b).abs().max()) <= 1e-4 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize(("width", "state", "tokens", "chunk"), [(24, 16, 70, 16), (32, 5, 33, 256)])
def test_mamba(width, state, tokens, chunk):
    config = MambaConfig(hidden_size=width, state_size=state, num_hidden_layers=1, vocab_size=8)
    theirs = MambaMixer(config, 0).eval()
    ours = made("selective_ssm", width, state=state, chunk=chunk)
    pairs = [
        (ours.up.weight, theirs.in_proj.weight),
        (ours.taps, theirs.conv1d.weight),
        (ours.taps_bias, theirs.conv1d.bias),
        (ours.select.weight, theirs.x_proj.weight),
        (ours.dt_weight, theirs.dt_proj.weight),
        (ours.dt_bias, theirs.dt_proj.bias),
        (ours.A_log, theirs.A_log),
        (ours.D, theirs.D),
        (ours.out.weight, theirs.out_proj.weight),
    ]
    assert len(pairs) == len(list(ours.parameters())) == len(list(theirs.parameters()))
    with torch.no_grad():
        for a, b in pairs:
            b.copy_(a.reshape(b.shape) + 0.2 * torch.randn(b.shape))
            a.copy_(b.reshape(a.shape))
    x = torch.randn(2, tokens, width, requires_grad=True)
    y, wanted = ours(Hidden(x), CAUSAL), theirs(x)
    same(y, wanted)
    gradients_agree(y, wanted, x, pairs)


@pytest.mark.parametrize(("keys", "values"), [(2, 4), (3, 3)])
def test_qwen3_next(keys, values):
    """Their projections interleave heads of keys with what belongs to them; ours lie side by side."""
    width, d_k, d_v, tokens = 32, 8, 6, 70
    config = Qwen3NextConfig(
        hidden_size=width,
        linear_num_key_heads=keys,
        linear_num_value_heads=values,
        linear_key_head_dim=d_k,
        linear_value_head_dim=d_v,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    theirs = Qwen3NextGatedDeltaNet(config, 0).eval()
    ours = made("gated_delta", width, heads=values, key_heads=keys, head_width=d_k, value_width=d_v, chunk=16)
    shared = values // keys
    qkvz = theirs.in_proj_qkvz.weight.detach().normal_(std=width**-0.5).view(keys, -1, width)
    ba = theirs.in_proj_ba.weight.detach().normal_(std=width**-0.5).view(keys, -1, width)
    parts = [*qkvz.split([d_k, d_k, shared * d_v, shared * d_v], 1), *ba.split([shared, shared], 1)]
    with torch.no_grad():
        ours.up.weight.copy_(torch.cat([part.reshape(-1, width) for part in parts]))
        theirs.norm.weight.normal_(1, 0.2)
        pairs = [
            (ours.taps, theirs.conv1d.weight),
            (ours.A_log, theirs.A_log),
            (ours.dt_bias, theirs.dt_bias),
            (ours.scale, theirs.norm.weight),
            (ours.out.weight, theirs.out_proj.weight),
        ]
        for a, b in pairs:
            a.copy_(b.reshape(a.shape))
    x = torch.randn(2, tokens, width, requires_grad=True)
    y, wanted = ours(Hidden(x), CAUSAL), theirs(x)
    same(y, wanted)
    gradients_agree(y, wanted, x, pairs)


@pytest.mark.parametrize("rule", [torch_chunk_gated_delta_rule, torch_recurrent_gated_delta_rule])
def test_delta_rule(rule):
    """From a state, through several chunks, with the state after them."""
    torch.manual_seed(0)
    b, h, n, d_k, d_v = 2, 3, 50, 6, 5
    q, k, v = torch.randn(b, n, h, d_k), torch.randn(b, n, h, d_k), torch.randn(b, n, h, d_v)
    k = k / k.norm(dim=-1, keepdim=True)
    g, beta, state = -torch.rand(b, n, h), torch.rand(b, n, h), torch.randn(b, h, d_k, d_v)
    wanted, after = rule(q, k, v, g=g, beta=beta, initial_state=state, output_final_state=True)
    turned = [x.transpose(1, 2) for x in (q * d_k**-0.5, k, v, g, beta)]
    y, last = delta_rule(*turned, None, state, 16)
    same(y.transpose(1, 2), wanted)
    same(last, after)


@pytest.mark.parametrize(("groups", "heads", "tokens", "chunk"), [(1, 4, 70, 16), (2, 4, 33, 64), (4, 4, 70, 7)])
def test_mamba2(groups, heads, tokens, chunk):
    """The whole layer; with several groups, B, C and the norm of each are its own."""
    width, state = 24, 5
    config = Mamba2Config(
        hidden_size=width,
        num_heads=heads,
        head_dim=2 * width // heads,
        state_size=state,
        n_groups=groups,
        chunk_size=16,
        num_hidden_layers=1,
        vocab_size=8,
    )
    theirs = Mamba2Mixer(config, 0).eval()
    ours = made("state_space_duality", width, heads=heads, state=state, groups=groups, chunk=chunk)
    pairs = [
        (ours.up.weight, theirs.in_proj.weight),
        (ours.taps, theirs.conv1d.weight),
        (ours.taps_bias, theirs.conv1d.bias),
        (ours.dt_bias, theirs.dt_bias),
        (ours.A_log, theirs.A_log),
        (ours.D, theirs.D),
        (ours.scale, theirs.norm.weight),
        (ours.out.weight, theirs.out_proj.weight),
    ]
    assert len(pairs) == len(list(ours.parameters())) == len(list(theirs.parameters()))
    with torch.no_grad():
        for a, b in pairs:
            b.copy_(a.reshape(b.shape) + 0.2 * torch.randn(b.shape))
            a.copy_(b.reshape(a.shape))
    x = torch.randn(2, tokens, width, requires_grad=True)
    y, wanted = ours(Hidden(x), CAUSAL), theirs(x)
    same(y, wanted)
    gradients_agree(y, wanted, x, pairs)
