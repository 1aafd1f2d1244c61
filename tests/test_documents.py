"""Packed documents: attention of each by itself is what a mask over the row gives, and nothing passes from one to another."""

from __future__ import annotations

import pytest
import torch

from sevenfold.blocks.mixing import _documents
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


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("config", [{}, {"heads": 4, "kv_heads": 2, "scale": 1.0}, {"query_key_norm": True}])
def test_each_by_itself_is_what_the_mask_gives(config, padded, causal, monkeypatch):
    mixer = find("mixing", "attention").Config(**config).build(32)
    weight, found = torch.randn(3, 32, 32), []
    for shortest in (1, 1000):  # apart; under the mask
        monkeypatch.setattr(_documents, "SHORTEST", shortest)
        hidden = packed(padded=padded)
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
        mixer(hidden, mask)
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
    assert _documents.lengths(packed()) == [5, 1, 9, 17, 32, 3, 20, 4, 5]
    assert _documents.lengths(packed(padded=False)) == [5, 1, 9, 17, 32, 3, 20, 4, 5]
    assert _documents.lengths(packed(mixed=True)) is None
