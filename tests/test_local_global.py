"""Windows and global tokens of packed and padded rows: against one softmax under a mask that loops write out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sevenfold.blocks.mixing._windows import Windows, windows
from sevenfold.core.part import decode, find
from sevenfold.core.types import Hidden, Mask

N = 45


def made(**settings):
    torch.manual_seed(0)
    mixer = decode(find("mixing", "local_global").Config, {"kind": "local_global", "heads": 3, **settings}).build(24)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return mixer.double().eval()


def written_out(documents, window, count, causal):
    """[n n] of one row, from the document of each token (-1: padding): documents are runs of one number."""
    first = {}
    for i, document in enumerate(documents):
        first.setdefault(document, i)
    seen = torch.eye(len(documents), dtype=torch.bool)
    for i, mine in enumerate(documents):
        for j, yours in enumerate(documents):
            if mine != yours or mine < 0 or (causal and j > i):
                continue
            seen[i, j] = abs(i - j) < window or i - first[mine] < count or j - first[mine] < count
    return seen


def dense(mixer, x, seen):
    """The mixer's weights and output under that mask."""
    q, k, v = (t.unflatten(-1, (3, 8)).transpose(1, 2) for t in mixer.qkv(x).chunk(3, -1))
    weights = (q @ k.mT / math.sqrt(8)).masked_fill(~seen[:, None], float("-inf")).softmax(-1)
    return mixer.out((weights @ v).transpose(1, 2).flatten(2))


PACKED = [
    [[0] * 45, [0] * 20 + [1] * 25],
    [[0] * 2 + [1] * 3 + [2] * 21 + [3] * 18 + [4], [0] + [1] * 43 + [2]],
]
PADDED = [
    [[0] * 45, [0] * 12 + [-1] * 33],
    [[-1] * 17 + [0] * 28, [-1] * 3 + [0] * 42],
    [[-1] * 11 + [0] * 21 + [-1] * 13, [0] * 44 + [-1]],
]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("window", "count", "block"), [(7, 0, 4), (5, 3, 4), (11, 2, 3), (4, 6, 9), (16, 1, None)])
@pytest.mark.parametrize("rows", [*PACKED, *PADDED])
def test_rows_of_documents_and_padding(rows, window, count, block, causal):
    """Windows of no whole number of blocks, rows of no whole number of blocks, padding longer than several blocks."""
    mixer = made(window=window, global_tokens=count, **({} if block is None else {"block": block}))
    x = torch.randn(2, N, 24, dtype=torch.float64, requires_grad=True)
    documents = torch.tensor(rows)
    valid = documents >= 0
    packed = (documents > 0).any()
    hidden = Hidden(x, valid=None if valid.all() else valid, segments=documents if packed else None)
    seen = torch.stack([written_out(row, window, count, causal) for row in rows])
    found, wanted = mixer(hidden, Mask(causal=causal)), dense(mixer, x, seen)
    torch.testing.assert_close(found[valid], wanted[valid], rtol=0, atol=1e-10)
    noise = torch.randn_like(x) * valid[..., None]
    parameters = [x, *mixer.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad((y * noise).sum(), parameters) for y in (found, wanted))):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("n", "before", "size", "span", "count"), [(10, 3, 4, 7, 3), (9, 5, 3, 13, 3), (6, 0, 2, 2, 3)]
)
def test_windows_are_unfold(n, before, size, span, count):
    """Values and gradients, the second too."""
    x = torch.randn(2, 3, n, 2, dtype=torch.float64, requires_grad=True)
    after = (count - 1) * size + span - before - n
    wanted = F.pad(x, (0, 0, before, after)).unfold(2, span, size).transpose(3, 4)
    found = windows(x, before, size, span, count)
    assert torch.equal(found, wanted)
    noise = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad((y * noise).sum(), x)[0] for y in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert torch.autograd.gradgradcheck(lambda t: Windows.apply(t, before, size, span, count) ** 2, x)


def test_memory_grows_with_tokens_times_window():
    """Nothing of the size of n * n is kept: four times the tokens, four times the numbers."""
    mixer = made(window=16, global_tokens=2).float()
    mixer.qkv = mixer.out = nn.Identity()
    sizes = []
    for n in (256, 1024):
        kept: dict[int, int] = {}

        def pack(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = mixer(Hidden(torch.randn(1, n, 72, requires_grad=True)), Mask(causal=True))
        sizes.append(sum(kept.values()))
        assert y.requires_grad
    assert sizes[1] < 4.2 * sizes[0]
