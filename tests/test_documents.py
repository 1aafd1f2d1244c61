"""Packed documents: attention of each by itself is what a mask over the row gives, and nothing passes from one to another."""

from __future__ import annotations

import importlib
import inspect
from itertools import accumulate, pairwise

import pytest
import torch
import torch.nn.functional as F

from sevenfold.blocks.mixing import _documents, documents
from sevenfold.core.part import find
from sevenfold.core.types import Hidden, Mask

LENGTHS = [[5, 1, 9, 17], [32], [3, 20, 4]]


def packed(width=32, padded=True, mixed=False, seed=0):
    """Rows of 32 tokens in documents; the last has 5 free places, which collating marks with segment 0."""
    torch.manual_seed(seed)
    segments = torch.zeros(3, 32, dtype=torch.long)
    for row, lengths in enumerate(LENGTHS):
        segments[row, : sum(lengths)] = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    valid = torch.arange(32)[None] < torch.tensor([sum(lengths) for lengths in LENGTHS])[:, None]
    if not padded:
        segments[2, 27:] = 3
    if mixed:
        segments[0, 31] = 0  # a document in two pieces
    x = torch.randn(3, 32, width, requires_grad=True)
    return Hidden(x, torch.arange(32)[None, :, None].expand(3, -1, -1), valid if padded else None, segments)


def prepared(hidden):
    """As a trunk hands it on."""
    return hidden._replace(documents=documents(hidden))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("config", [{}, {"heads": 4, "kv_heads": 2, "scale": 1.0}, {"query_key_norm": True}])
def test_each_by_itself_is_what_the_mask_gives(config, padded, causal, monkeypatch):
    mixer = find("mixing", "attention").Config(**config).build(32)
    weight, found = torch.randn(3, 32, 32), []
    for shortest in (1, 1000):  # apart; under the mask
        monkeypatch.setattr(_documents, "SHORTEST", shortest)
        hidden = prepared(packed(padded=padded))
        y = mixer(hidden, Mask(causal=causal))
        real = torch.ones(3, 32, 1) if hidden.valid is None else hidden.valid[..., None]
        (y * weight * real).sum().backward()
        found.append((y * real, hidden.x.grad * real))
    for apart, masked in zip(*found):
        assert torch.allclose(apart, masked, rtol=0, atol=3e-6)


def test_when_documents_are_taken_apart(monkeypatch):
    taken = []
    monkeypatch.setattr(_documents, "_rows", lambda y, like, rows=_documents._rows: taken.append(1) or rows(y, like))
    mixer = find("mixing", "attention").Config().build(32)

    def apart(hidden, mask=Mask()):  # noqa: B008
        taken.clear()
        mixer(prepared(hidden), mask)
        return bool(taken)

    assert not apart(packed())  # 9 documents of 91 tokens are short
    monkeypatch.setattr(_documents, "SHORTEST", 4)
    assert apart(packed()) and apart(packed(), Mask(causal=True)) and apart(packed(padded=False))
    assert not apart(packed(mixed=True))
    assert not apart(packed(), Mask(window=3))
    assert not apart(packed()._replace(segments=None))
    assert not apart(packed()._replace(streams=torch.zeros(3, 32, dtype=torch.long)))
    assert not apart(packed()._replace(bias=lambda a, b, heads: torch.zeros(3, heads, 32, 32)))


def test_the_lengths_of_documents():
    wanted = [0, *accumulate([5, 1, 9, 17, 32, 3, 20, 4, 5])]
    assert documents(packed()).tolist() == documents(packed(padded=False)).tolist() == wanted
    assert documents(packed(mixed=True)) is documents(packed()._replace(segments=None)) is None


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv", [4, 2])
def test_flash_attention_is_asked_as_it_wants_to_be(causal, kv, grouped, monkeypatch):
    """Its arguments are those of PyTorch's function, with and without `enable_gqa` (2.11 lacks it); a loop that takes them gives
    what the mask gives."""
    signature = inspect.signature(importlib.import_module("torch.nn.attention.varlen").varlen_attn)
    has = "enable_gqa" in signature.parameters
    if grouped and not has:
        pytest.skip("this PyTorch does not take enable_gqa")
    if has and not grouped:
        signature = signature.replace(parameters=[p for p in signature.parameters.values() if p.name != "enable_gqa"])

    def kernel(*args, **more):
        given = signature.bind(*args, **more)
        given.apply_defaults()
        call = given.arguments
        assert call["window_size"] == ((-1, 0) if causal else (-1, -1)) and call["max_q"] == call["max_k"] == 32
        assert call["cu_seq_q"].dtype == torch.int32 and call.get("enable_gqa", False) == (grouped and kv == 2)
        found = []
        for start, stop in pairwise(call["cu_seq_q"].tolist()):
            q, k, v = (call[name][start:stop].transpose(0, 1)[None] for name in ("query", "key", "value"))
            found.append(
                F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=call["scale"], enable_gqa=grouped)
            )
        return torch.cat(found, 2)[0].transpose(0, 1)

    kernel.__signature__ = signature
    monkeypatch.setattr(_documents, "flash", lambda: kernel)
    mixer, hidden = find("mixing", "attention").Config(heads=4, kv_heads=kv, scale=0.7).build(32), prepared(packed())
    q, k, v = mixer._heads(hidden)
    found = _documents._flash(q, k, v, hidden.documents, causal, 0.7).transpose(1, 2).flatten(2)
    wanted = mixer(hidden._replace(documents=None), Mask(causal=causal))
    assert torch.allclose((mixer.out(found) - wanted)[hidden.valid], torch.zeros(()), atol=3e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("causal", [True, False])
def test_flash_attention_gives_what_the_mask_gives(causal):
    mixer = find("mixing", "attention").Config(heads=2).build(64).cuda().bfloat16()
    hidden = packed(64)
    hidden = hidden._replace(x=hidden.x.bfloat16()).each(lambda part: part.cuda())
    found = [mixer(one, Mask(causal=causal)) for one in (prepared(hidden), hidden)]
    assert torch.allclose((found[0] - found[1]).float()[hidden.valid], torch.zeros((), device="cuda"), atol=0.02)
