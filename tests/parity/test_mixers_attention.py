"""Mixers of the attention kind against other people's code, and against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import IdeficsConfig, LongformerConfig, LxmertConfig
from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention
from transformers.models.lxmert.modeling_lxmert import LxmertAttention
from twins import stirred

from sevenfold.core.part import decode, find
from sevenfold.core.types import Hidden, Mask


def made(kind, width, **settings):
    torch.manual_seed(0)
    mixer = decode(find("mixing", kind).Config, {"kind": kind, **settings}).build(width).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return mixer


def together(theirs):
    """Their three projections as one."""
    parts = [theirs.query, theirs.key, theirs.value]
    linear = nn.Linear(parts[0].in_features, 3 * parts[0].out_features).double()
    with torch.no_grad():
        linear.weight.copy_(torch.cat([part.weight for part in parts]))
        linear.bias.copy_(torch.cat([part.bias for part in parts]))
    return linear


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("n", "window", "count", "block"), [(37, 5, 3, 4), (64, 16, 1, None), (50, 7, 9, 3), (33, 40, 2, 8)]
)
def test_window_and_global_tokens_are_a_dense_mask(n, window, count, block, causal):
    """Forward and gradients, in float64, against one softmax under a mask that is written out."""
    settings = {} if block is None else {"block": block}
    mixer = made("local_global", 24, heads=3, window=window, global_tokens=count, **settings)
    x = torch.randn(2, n, 24, dtype=torch.float64, requires_grad=True)
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    seen = ((i - j).abs() < window) | (j < count) | (i < count)
    seen = seen & (j <= i) if causal else seen
    q, k, v = (t.unflatten(-1, (3, 8)).transpose(1, 2) for t in mixer.qkv(x).chunk(3, -1))
    weights = (q @ k.mT / math.sqrt(8)).masked_fill(~seen, float("-inf")).softmax(-1)
    wanted = mixer.out((weights @ v).transpose(1, 2).flatten(2))
    found, noise = mixer(Hidden(x), Mask(causal=causal)), torch.randn(2, n, 24, dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    torch.testing.assert_close(mixer.weights(Hidden(x), Mask(causal=causal)), weights, rtol=0, atol=1e-12)
    parameters = [x, *mixer.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad((y * noise).sum(), parameters) for y in (found, wanted))):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("padded", [0, 7])
def test_longformer(monkeypatch, padded):
    """Their window is the full width, and their global projections are given the weights of the others. Their softmax is
    asked for in float32 whatever the dtype of scores: here it is in that of the scores, so that all of it is in float64."""
    softmax = nn.functional.softmax
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim))
    config = LongformerConfig(hidden_size=24, num_attention_heads=3, attention_window=[8], num_hidden_layers=1)
    theirs = stirred(LongformerSelfAttention(config, 0)).double().eval()
    for name in ("query", "key", "value"):
        getattr(theirs, f"{name}_global").load_state_dict(getattr(theirs, name).state_dict())
    mixer = made("local_global", 24, heads=3, window=5, global_tokens=2, block=4)
    x, n = torch.randn(2, 32, 24, dtype=torch.float64), 32
    mixer.out = nn.Identity()
    mixer.qkv = together(theirs)
    mask = torch.zeros(2, n, dtype=torch.float64)
    mask[:, :2] = 1  # theirs: negative padding, 0 local, positive global
    mask[1, n - padded :] = -1
    wanted = theirs(
        x, mask, is_index_masked=mask < 0, is_index_global_attn=mask > 0, is_global_attn=True, output_attentions=False
    )[0]
    found = mixer(Hidden(x, valid=mask >= 0 if padded else None))
    torch.testing.assert_close(found[mask >= 0], wanted[mask >= 0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("by_channel", [True, False])
def test_idefics(by_channel):
    """The attention branch of their gated layer (the other one closed), with images that are whole, partly and all padding.
    By PyTorch's kernel, as their own softmax is in float32."""
    config = IdeficsConfig(
        hidden_size=24, num_attention_heads=3, intermediate_size=8, vision_config={"embed_dim": 12},
        alpha_type="vector" if by_channel else "float", qk_layer_norms=False, attn_implementation="sdpa",
    )  # fmt: skip
    theirs = stirred(IdeficsGatedCrossAttentionLayer(config, 0)).double().eval()
    ours = made("gated_cross", 24, heads=3, memory_width=12, by_channel=by_channel)
    attention = theirs.cross_attn
    with torch.no_grad():
        theirs.alpha_dense.zero_()
        theirs.alpha_cross_attn.normal_()
        ours.gate.copy_(theirs.alpha_cross_attn.flatten())
        ours.query.weight.copy_(attention.q_proj.weight)
        ours.key_value.weight.copy_(torch.cat([attention.k_proj.weight, attention.v_proj.weight]))
        ours.out.weight.copy_(attention.o_proj.weight)
    x = torch.randn(3, 5, 24, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(3, 7, 12, dtype=torch.float64, requires_grad=True)
    valid = torch.arange(7)[None] < torch.tensor([7, 4, 0])[:, None]
    hidden = torch.zeros(3, 1, 5, 7, dtype=torch.float64).masked_fill(~valid[:, None, None], torch.finfo(x.dtype).min)
    gate = valid.any(1)[:, None].expand(-1, 5)
    wanted = theirs(x, image_hidden_states=memory, image_attention_mask=hidden, cross_attention_gate=gate)
    found = x + ours(Hidden(theirs.input_layernorm(x), memory=Hidden(memory, valid=valid)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert torch.equal(found[2], x[2]) and not torch.equal(found[1], x[1])
    noise = torch.randn_like(x)
    for mine, yours in zip(*(torch.autograd.grad((y * noise).sum(), [x, memory]) for y in (found, wanted))):
        torch.testing.assert_close(mine, yours, rtol=0, atol=1e-9)


def test_lxmert():
    """Both directions of co-attention are their cross-attention, with one set of projections."""
    config = LxmertConfig(hidden_size=24, num_attention_heads=3)
    theirs, ours = stirred(LxmertAttention(config)).double().eval(), made("co_attention", 24, heads=3)
    words, sights = torch.randn(2, 7, 24, dtype=torch.float64), torch.randn(2, 5, 24, dtype=torch.float64)
    ours.out = nn.Identity()
    ours.qkv = together(theirs)
    streams = torch.tensor([0] * 7 + [1] * 5).expand(2, -1)
    order = torch.randperm(12)
    found = ours(Hidden(torch.cat([words, sights], 1)[:, order], streams=streams[:, order]))
    wanted = torch.cat([theirs(words, sights)[0], theirs(sights, words)[0]], 1)
    torch.testing.assert_close(found, wanted[:, order], rtol=0, atol=1e-10)


def test_the_recurrence_is_torchs():
    mixer = made("gru_additive", 6, inner=4)
    gru = nn.GRU(6, 6, batch_first=True, bias=False).double()
    with torch.no_grad():
        gru.weight_ih_l0.copy_(mixer.input.weight)
        gru.weight_hh_l0.copy_(mixer.recurrent.weight)
    assert mixer.input.bias is None
    x = torch.randn(3, 11, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer._states(Hidden(x), Mask(causal=True)), gru(x)[0], rtol=0, atol=1e-10)
    both = gru(x)[0] + gru(x.flip(1))[0].flip(1)
    torch.testing.assert_close(mixer._states(Hidden(x), Mask()), both, rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_additive_attention_by_a_double_loop(causal):
    mixer, n = made("gru_additive", 6, inner=4, chunk=3), 8
    x = torch.randn(1, n, 6, dtype=torch.float64)
    h = mixer._states(Hidden(x), Mask(causal=causal))[0]
    rows = []
    for i in range(n):
        read = range(i + 1 if causal else n)
        scores = [mixer.score[0] @ torch.tanh(mixer.ask.weight @ h[i] + mixer.tell.weight @ h[j]) for j in read]
        parts = torch.stack(scores).exp()
        rows.append(mixer.out(torch.cat([h[i], sum(p / parts.sum() * h[j] for p, j in zip(parts, read))])))
    torch.testing.assert_close(mixer(Hidden(x), Mask(causal=causal))[0], torch.stack(rows), rtol=0, atol=1e-10)


def test_a_closed_gate_changes_nothing_and_opens():
    torch.manual_seed(0)
    gated = decode(find("mixing", "gated_cross").Config, {"kind": "gated_cross"}).build(24)
    plain = decode(find("mixing", "cross").Config, {"kind": "cross"}).build(24)
    plain.load_state_dict({name: value for name, value in gated.state_dict().items() if name != "gate"})
    x = torch.randn(2, 5, 24)
    hidden = Hidden(x, memory=Hidden(torch.randn(2, 4, 24)))
    y = x + gated(hidden)
    assert torch.equal(y, x)
    (y**2).sum().backward()
    assert gated.gate.grad.any()
    assert all(not p.grad.any() for name, p in gated.named_parameters() if name != "gate")
    with torch.no_grad():
        gated.gate.fill_(0.7)
    torch.testing.assert_close(gated(hidden), math.tanh(0.7) * plain(hidden), rtol=0, atol=1e-6)
