"""Positions against the same parts of other people's code: rotary scalings, three-axis rotary, relative buckets."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, Qwen2VLTextConfig, Qwen3VLTextConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding
from transformers.models.t5.modeling_t5 import T5Attention
from twins import same

from sevenfold.core.part import decode, find

D, BASE = 64, 500000.0
OURS = {
    "linear": [({"factor": 4.0}, {}, {}), ({"factor": 8.0}, {}, {})],
    "dynamic": [({"factor": 2.0, "trained": 2048, "length": 9000}, {}, {"seq_len": 9000})],
    "llama3": [
        (
            {"factor": 8.0, "trained": 8192},
            {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
            {},
        ),
        (
            {"factor": 32.0, "trained": 1024, "low": 0.5, "high": 9.0},
            {"low_freq_factor": 0.5, "high_freq_factor": 9.0, "original_max_position_embeddings": 1024},
            {},
        ),
    ],
    "yarn": [
        ({"factor": 4.0, "trained": 4096}, {"original_max_position_embeddings": 4096}, {}),
        (
            {"factor": 40.0, "trained": 512, "fast": 16.0, "slow": 2.0},
            {"original_max_position_embeddings": 512, "beta_fast": 16.0, "beta_slow": 2.0},
            {},
        ),
    ],
}
KIND = {"dynamic": "ntk"}


def made(room: str, kind: str, *args, **settings):
    return decode(find(room, kind).Config, settings).build(*args)


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in OURS.items() for case in range(len(cases))])
def test_rotary_scalings(kind, case):
    settings, theirs, call = OURS[kind][case]
    parameters = {"rope_type": kind, "rope_theta": BASE, "factor": settings["factor"], **theirs}
    config = LlamaConfig(
        hidden_size=4 * D,
        num_attention_heads=4,
        max_position_embeddings=settings.get("trained", 2048),
        rope_parameters=parameters,
    )
    wanted, factor = ROPE_INIT_FUNCTIONS[kind](config, None, **call)
    found, own = made("scaling", KIND.get(kind, kind), **settings).frequencies(D // 2, BASE)
    assert own == pytest.approx(factor, abs=1e-12)
    assert torch.allclose(found, wanted.double(), rtol=1e-6, atol=0)


def test_longrope():
    factors = [1 + 0.3 * i for i in range(D // 2)]
    parameters = {
        "rope_type": "longrope",
        "rope_theta": BASE,
        "factor": 16.0,
        "long_factor": factors,
        "short_factor": [1.0] * (D // 2),
        "original_max_position_embeddings": 4096,
    }
    config = LlamaConfig(hidden_size=4 * D, num_attention_heads=4, rope_parameters=parameters)
    wanted, factor = ROPE_INIT_FUNCTIONS["longrope"](config, None, seq_len=60000)
    found, own = made("scaling", "longrope", factor=16.0, trained=4096, factors=factors).frequencies(D // 2, BASE)
    assert own == pytest.approx(factor, abs=1e-12)
    assert torch.allclose(found, wanted.double(), rtol=1e-6, atol=0)


def test_static_ntk_keeps_the_highest_frequency_and_divides_the_lowest():
    plain = BASE ** -(torch.arange(D // 2, dtype=torch.float64) / (D // 2))
    found, _ = made("scaling", "ntk", factor=8.0).frequencies(D // 2, BASE)
    assert found[0] == plain[0]
    assert float(found[-1]) == pytest.approx(float(plain[-1]) / 8, rel=1e-12)


@pytest.mark.parametrize(
    ("theirs", "config", "interleaved"),
    [(Qwen2VLRotaryEmbedding, Qwen2VLTextConfig, False), (Qwen3VLTextRotaryEmbedding, Qwen3VLTextConfig, True)],
)
def test_multimodal_rotary(theirs, config, interleaved):
    sections = [6, 13, 13]
    parameters = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
    twin = theirs(config(hidden_size=4 * D, num_attention_heads=4, head_dim=D, rope_parameters=parameters))
    coords = torch.randint(0, 40, (2, 9, 3))
    cos, sin = made("position", "multimodal_rotary", 4 * D, 3, sections=sections, interleaved=interleaved).angles(
        coords, D
    )
    cos_wanted, sin_wanted = twin(torch.zeros(2, 9, 1), coords.permute(2, 0, 1))
    if not interleaved:  # the sections are chosen when queries are turned, over both halves of a head
        whole = [sections[i % 3] for i in range(6)]
        cos_wanted, sin_wanted = (
            torch.cat([part[i % 3] for i, part in enumerate(table.split(whole, dim=-1))], dim=-1)
            if table.dim() == 4
            else table
            for table in (cos_wanted, sin_wanted)
        )
    same(cos, cos_wanted[..., : D // 2])
    same(sin, sin_wanted[..., : D // 2])


def test_multimodal_rotary_of_text_is_rotary():
    coords = torch.arange(50)[None, :, None]
    for interleaved in (False, True):
        found = made("position", "multimodal_rotary", 4 * D, 1, interleaved=interleaved).angles(coords, D)
        wanted = made("position", "rotary", 4 * D, 1).angles(coords, D)
        assert torch.equal(found[0], wanted[0])
        assert torch.equal(found[1], wanted[1])


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (8, 20), (64, 500)])
def test_relative_buckets(bidirectional, buckets, most):
    part = made("position", "relative_bias", 16, 1, buckets=buckets, most=most, bidirectional=bidirectional)
    away = torch.arange(-700, 701)
    wanted = T5Attention._relative_position_bucket(away, bidirectional, buckets, most)
    assert torch.equal(part._bucket(away), wanted)
