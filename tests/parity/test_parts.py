"""Single parts against the same parts of other people's code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import LlamaConfig
from transformers.activations import ACT2FN
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP, LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as turned_by_llama
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from twins import ragged, same, stirred

from sevenfold.assembly.block import Block
from sevenfold.blocks.mixing.attention import turn
from sevenfold.blocks.position.alibi import slopes
from sevenfold.core.part import decode, find
from sevenfold.core.types import Hidden, Mask

LLAMA = [
    {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 48},
    {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 17},
    {"hidden_size": 21, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6, "intermediate_size": 33},
]


def made(room: str, kind: str, *args, **settings):
    return decode(find(room, kind).Config, settings).build(*args)


def places(b: int, n: int) -> torch.Tensor:
    return torch.arange(n).expand(b, n).unsqueeze(-1)


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 8, 12, 20])
def test_alibi_slopes(heads):
    """BLOOM's for any number of heads; MPT's for powers of two (it orders the others in its own way)."""
    bloom = build_alibi_tensor(torch.ones(1, 2, dtype=torch.long), heads, torch.float64)[:, 0, 1]
    assert torch.allclose(torch.tensor(slopes(heads), dtype=torch.float64), bloom.double(), rtol=0, atol=1e-7)
    if math.log2(heads).is_integer():
        mpt = build_mpt_alibi_tensor(heads, 3)[:, 0, -2]
        assert torch.allclose(torch.tensor(slopes(heads)), -mpt, rtol=0, atol=1e-7)


def test_alibi_attention():
    """Under a causal mask their bias, which counts from the start, gives the weights of ours, which counts apart."""
    heads, n = 6, 11
    torch.manual_seed(0)
    scores = torch.randn(2, heads, n, n)
    future = torch.ones(n, n).triu(1).bool()
    theirs = build_alibi_tensor(torch.ones(2, n, dtype=torch.long), heads, torch.float32).view(2, heads, 1, n)
    ours = made("position", "alibi", 12, 1).bias(places(2, n), places(2, n), heads)
    weights = [(scores + bias).masked_fill(future, float("-inf")).softmax(-1) for bias in (ours, theirs)]
    same(*weights)


@pytest.mark.parametrize("base", [10000.0, 500.0])
@pytest.mark.parametrize("width", [2, 6, 64])
def test_rotary(width, base):
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 40, width), torch.randn(2, 1, 40, width)
    config = LlamaConfig(hidden_size=width, num_attention_heads=1, rope_theta=base)
    config.rope_parameters = {"rope_type": "default", "rope_theta": base}
    theirs = turned_by_llama(q, k, *LlamaRotaryEmbedding(config)(q, places(2, 40)[..., 0]))
    cos, sin = made("position", "rotary", width, 1, base=base).angles(places(2, 40), width)
    for ours, their in zip((turn(q, cos, sin), turn(k, cos, sin)), theirs):
        same(ours, their)


@pytest.mark.parametrize("width", [1, 7, 64])
def test_rms(width):
    torch.manual_seed(0)
    theirs, x = LlamaRMSNorm(width, eps=1e-6), torch.randn(3, 5, width) * 4
    theirs.weight.data.normal_()
    ours = made("normalization", "rms", width)
    ours.load_state_dict(theirs.state_dict())
    same(ours(x), theirs(x))


@pytest.mark.parametrize(("kind", "name"), [("swiglu", "silu"), ("geglu", "gelu")])
@pytest.mark.parametrize("bias", [False, True])
def test_gated(kind, name, bias):
    theirs = stirred(
        LlamaMLP(
            LlamaConfig(hidden_size=14, num_attention_heads=1, intermediate_size=29, hidden_act=name, mlp_bias=bias)
        )
    )
    project = find("projection", "linear").Config(bias=bias).build
    ours = made("nonlinearity", kind, 14, project, inner=29)
    with torch.no_grad():
        for field in ("weight", "bias")[: 1 + bias]:
            getattr(ours.up, field).copy_(torch.cat([getattr(p, field) for p in (theirs.gate_proj, theirs.up_proj)]))
            getattr(ours.out, field).copy_(getattr(theirs.down_proj, field))
    x = torch.randn(2, 5, 14)
    same(ours(x), theirs(x))


@pytest.mark.parametrize("kind", ["relu", "silu", "gelu", "quick_gelu"])
def test_pointwise(kind):
    x = torch.randn(1000) * 3
    same(made("nonlinearity", kind, 4).activate(x), ACT2FN[kind](x))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", LLAMA)
def test_llama_block(shape, padded):
    """Grouped queries, rotary, RMS norm, SwiGLU together, in one pass and token by token."""
    config = LlamaConfig(**shape, num_hidden_layers=1, attn_implementation="eager", rms_norm_eps=1e-5)
    theirs = stirred(LlamaDecoderLayer(config, 0))
    settings = {
        "mixer": {
            "kind": "attention",
            "heads": shape["num_attention_heads"],
            "kv_heads": shape["num_key_value_heads"],
            "head_width": config.head_dim,
        },
        "nonlinearity": {"kind": "swiglu", "inner": shape["intermediate_size"]},
        "norm": {"kind": "rms", "eps": 1e-5},
    }
    width, n = shape["hidden_size"], 9
    ours = Block(decode(Block.Config, settings), width).eval()
    attention, feed = theirs.self_attn, theirs.mlp
    with torch.no_grad():
        ours.mixer.qkv.weight.copy_(
            torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        )
        ours.mixer.out.weight.copy_(attention.o_proj.weight)
        ours.feed.up.weight.copy_(torch.cat([feed.gate_proj.weight, feed.up_proj.weight]))
        ours.feed.out.weight.copy_(feed.down_proj.weight)
        ours.norms[0].weight.copy_(theirs.input_layernorm.weight)
        ours.norms[1].weight.copy_(theirs.post_attention_layernorm.weight)
    torch.manual_seed(1)
    x = torch.randn(3, n, width)
    valid = ragged(x[..., 0], [n, 1, 5]) if padded else None
    coords = places(3, n)
    rotary = made("position", "rotary", width, 1)
    angles = {config.head_dim: rotary.angles(coords, config.head_dim)}

    seen = torch.ones(n, n).tril().bool()[None].expand(3, n, n)
    if valid is not None:
        seen = (seen & valid[:, None, :]) | torch.eye(n).bool()
    additive = torch.zeros(3, 1, n, n).masked_fill(~seen[:, None], torch.finfo(torch.float32).min)
    turned = LlamaRotaryEmbedding(config)(x, coords[..., 0])
    their = theirs(x, attention_mask=additive, position_embeddings=turned, position_ids=coords[..., 0])
    their = their[0] if isinstance(their, tuple) else their
    whole = ours(Hidden(x, coords, valid, angles=angles), Mask(causal=True)).x
    same(whole, their, valid)

    state, pieces = ours.start(3, n, x), []
    for start, stop in ((0, 4), (4, 5), (5, n)):
        cut = {width: tuple(part[:, start:stop] for part in pair) for width, pair in angles.items()}
        hidden = Hidden(x[:, start:stop], coords[:, start:stop], None if valid is None else valid[:, start:stop])
        hidden, state = ours.step(hidden._replace(angles=cut), state, Mask(causal=True))
        pieces.append(hidden.x)
    same(torch.cat(pieces, 1), their, valid)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_of_torch(causal, padded):
    torch.manual_seed(0)
    theirs, x = stirred(nn.MultiheadAttention(18, 3, bias=False, batch_first=True)), torch.randn(3, 7, 18)
    valid = ragged(x[..., 0], [7, 1, 4]) if padded else None
    ours = made("mixing", "attention", 18, heads=3)
    with torch.no_grad():
        ours.qkv.weight.copy_(theirs.in_proj_weight)
        ours.out.weight.copy_(theirs.out_proj.weight)
    future = torch.ones(7, 7).triu(1).bool() if causal else None
    hidden_keys = None if valid is None else ~valid
    their, weights = theirs(x, x, x, hidden_keys, attn_mask=future, average_attn_weights=False)
    same(ours(Hidden(x, valid=valid), Mask(causal=causal)), their, valid)
    every = torch.ones(3, 7).bool() if valid is None else valid
    same(ours.weights(Hidden(x, valid=valid), Mask(causal=causal)).transpose(1, 2), weights.transpose(1, 2), every)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("memory_width", [18, 11])
def test_cross_attention_of_torch(memory_width, padded):
    torch.manual_seed(0)
    theirs = stirred(nn.MultiheadAttention(18, 3, bias=False, batch_first=True, kdim=memory_width, vdim=memory_width))
    x, memory = torch.randn(3, 4, 18), torch.randn(3, 7, memory_width)
    valid = ragged(memory[..., 0], [7, 1, 4]) if padded else None
    ours = made("mixing", "cross", 18, heads=3, memory_width=memory_width)
    with torch.no_grad():
        if theirs.in_proj_weight is not None:
            q, k, v = theirs.in_proj_weight.chunk(3)
        else:
            q, k, v = theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight
        ours.query.weight.copy_(q)
        ours.key_value.weight.copy_(torch.cat([k, v]))
        ours.out.weight.copy_(theirs.out_proj.weight)
    hidden_keys = None if valid is None else ~valid
    their, weights = theirs(x, memory, memory, hidden_keys, average_attn_weights=False)
    hidden = Hidden(x, memory=Hidden(memory, valid=valid))
    same(ours(hidden), their)
    same(ours.weights(hidden), weights)


@pytest.mark.parametrize("post", [False, True])
def test_block_of_torch(post):
    """A whole encoder layer, norm before and after, with biases."""
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(18, 3, 31, activation="gelu", batch_first=True, norm_first=not post)
    theirs, x = stirred(theirs), torch.randn(3, 7, 18)
    settings = {
        "mixer": {"kind": "attention", "heads": 3},
        "nonlinearity": {"kind": "gelu", "inner": 31},
        "projection": {"kind": "linear", "bias": True},
        "post_norm": post,
    }
    ours = Block(decode(Block.Config, settings), 18).eval()
    ours.mixer.qkv.load_state_dict({"weight": theirs.self_attn.in_proj_weight, "bias": theirs.self_attn.in_proj_bias})
    pairs = [
        (ours.mixer.out, theirs.self_attn.out_proj),
        (ours.feed.up, theirs.linear1),
        (ours.feed.out, theirs.linear2),
    ]
    pairs += [(ours.norms[0], theirs.norm1), (ours.norms[1], theirs.norm2)]
    for our, their in pairs:
        our.load_state_dict(their.state_dict())
    same(ours(Hidden(x), Mask()).x, theirs(x))
