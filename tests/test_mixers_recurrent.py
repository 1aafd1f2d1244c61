"""Recurrent mixers and long convolutions against their equations written out, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sevenfold.blocks.mixing import _scan
from sevenfold.blocks.mixing._long import convolved, convolved_in_runs, last_of, length_of
from sevenfold.blocks.mixing._scan import linear, scan
from sevenfold.blocks.mixing._selective import SelectiveScan
from sevenfold.blocks.mixing.gated_delta import delta_rule
from sevenfold.core.part import decode, find
from sevenfold.core.types import Hidden, Mask

CAUSAL = Mask(causal=True)
RUNS = torch.tensor([[1] * 1 + [2] * 20 + [3] * 2 + [4] * 60, [0] * 40 + [1] * 43])
"""Segments of many lengths; the second row begins in the segment of the state before it."""


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def close(found: Tensor, wanted: Tensor, within: float = 1e-10) -> None:
    assert wanted.abs().max() > 1e-3
    assert float((found - wanted).detach().abs().max()) <= within * max(1.0, float(wanted.detach().abs().max()))


@pytest.mark.parametrize("tokens", [1, 2, 7, 16, 83])
def test_scan(tokens):
    torch.manual_seed(0)
    keep, new, h = torch.rand(2, tokens, 3).double(), noise(2, tokens, 3), noise(2, 3)
    found = scan(keep, new, h)
    for t in range(tokens):
        h = keep[:, t] * h + new[:, t]
        close(found[:, t], h)


def forgets(run: Tensor | None, t: int) -> Tensor:
    """[b 1 1 1]: 0 where token t begins a segment."""
    if run is None:
        return torch.ones(2, 1, 1, 1, dtype=torch.float64)
    before = run[:, t - 1] if t else torch.zeros(2, dtype=torch.long)
    return (run[:, t] == before).double().view(2, 1, 1, 1)


@pytest.mark.parametrize("run", [None, RUNS])
@pytest.mark.parametrize("chunk", [1, 8, 83, 128])
def test_linear_sums(run, chunk):
    torch.manual_seed(0)
    q, k, v, g, s = (
        noise(2, 3, 83, 4),
        noise(2, 3, 83, 4),
        noise(2, 3, 83, 5),
        -3 * noise(2, 3, 83).abs(),
        noise(2, 3, 4, 5),
    )
    y, last = linear(q, k, v, g, run, s, chunk)
    for t in range(83):
        s = g[:, :, t, None, None].exp() * s * forgets(run, t) + k[:, :, t, :, None] * v[:, :, t, None]
        close(y[:, :, t], (q[:, :, t, None] @ s).squeeze(-2))
    close(last, s)


@pytest.mark.parametrize("run", [None, RUNS])
@pytest.mark.parametrize("keys", ["random", "repeated"])
def test_delta_rule(run, keys):
    """Repeated keys with beta near 1 are what an inverse by series does not survive."""
    torch.manual_seed(0)
    q, k, v, s = noise(2, 3, 83, 4), noise(2, 3, 83, 4), noise(2, 3, 83, 5), noise(2, 3, 4, 5)
    g, beta = -0.1 * noise(2, 3, 83).abs(), torch.rand(2, 3, 83).double()
    if keys == "repeated":
        k, beta = k[:, :, :1] + 1e-3 * noise(2, 3, 83, 4), 1 - 1e-3 * beta
    k = k / k.norm(dim=-1, keepdim=True)
    arguments = (q, k, v, g, beta)
    y, last = delta_rule(*arguments, run, s, 64)
    narrow, _ = delta_rule(*(x.float() for x in arguments), run, s.float(), 64)
    for t in range(83):
        s = g[:, :, t, None, None].exp() * s * forgets(run, t)
        said = (k[:, :, t, None] @ s).squeeze(-2)
        s = s + k[:, :, t, :, None] * (beta[:, :, t, None] * (v[:, :, t] - said)).unsqueeze(-2)
        close(y[:, :, t], (q[:, :, t, None] @ s).squeeze(-2))
    close(last, s)
    close(narrow.double(), y, 1e-5)


def test_selective_scan_is_differentiated_right():
    """Against finite differences: every input, the state, padding and a segment's start, over several pieces."""
    torch.manual_seed(0)
    valid, begins = torch.ones(2, 7, dtype=torch.bool), torch.zeros(2, 7, dtype=torch.bool)
    valid[0, 5:], begins[1, 4] = False, True
    given = [noise(2, 7, 3), noise(2, 7, 3), noise(3, 2), noise(2, 7, 2), noise(2, 7, 2), noise(2, 3, 2)]
    given = [x.requires_grad_() for x in given]
    assert torch.autograd.gradcheck(lambda *x: SelectiveScan.apply(*x, valid, begins, 3), given)


def test_linear_attention_in_three_forms():
    torch.manual_seed(0)
    mixer = decode(find("mixing", "linear_attention").Config, {"heads": 2, "chunk": 16}).build(12).double()
    hidden = Hidden(noise(2, 50, 12))
    chunked = mixer(hidden, CAUSAL)
    parallel = mixer.out((mixer.weights(hidden, CAUSAL) @ mixer.values(hidden)).transpose(1, 2).flatten(2))
    state, steps = mixer.start(2, 50, hidden.x), []
    for t in range(50):
        y, state = mixer.step(Hidden(hidden.x[:, t : t + 1]), state, CAUSAL)
        steps.append(y)
    close(chunked, parallel)
    close(torch.cat(steps, 1), parallel)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 64, 83])
def test_long_convolutions(n):
    """Without and with segments, against every product written out; a filter longer than the sequence is cut."""
    torch.manual_seed(0)
    w, h, run = noise(2, 3, n), noise(3, n + 5), RUNS[:, :n]
    for ids in (None, run):
        wanted = torch.zeros_like(w)
        for i in range(n):
            for j in range(i + 1):
                same = 1 if ids is None else (ids[:, i] == ids[:, j]).double()[:, None]
                wanted[:, :, i] += h[:, i - j] * w[:, :, j] * same
        close(convolved(w, h) if ids is None else convolved_in_runs(w, h, run), wanted)
        if ids is not None:
            close(last_of(w, h, run, 1), wanted[..., -1:])


def test_transforms_are_long_enough():
    assert all(n <= length_of(n) <= 2 * n for n in range(1, 3000))


def test_a_shorter_sequence_takes_the_beginning_of_the_filter():
    mixer = find("mixing", "hyena").Config(length=64).build(8)
    assert torch.allclose(mixer.filter(20), mixer.filter(64)[..., :20], atol=1e-6)


def test_the_window_of_hyena():
    """Channels fall at rates from ln(100)/1.5 to ln(100)/0.3 over the length: with a network that says 1, the window."""
    mixer = find("mixing", "hyena").Config(length=11, filter_width=1, filter_depth=0).build(5).double()
    with torch.no_grad():
        mixer.layers[0].weight.zero_(), mixer.layers[0].bias.fill_(torch.pi / 2), mixer.last.weight.fill_(1)
    found = -mixer.filter(11)[0, :, -1].log()
    close(found, torch.linspace(3.0701134573253945, 15.350567286626973, 5, dtype=torch.float64))


RECURRENT = ["gated_delta", "hyena", "linear_attention", "min_gru", "selective_ssm", "state_space_duality"]


def strong(kind: str):
    """A mixer of width 8 in float64 whose projections have weights of size 1, so that no difference is small."""
    torch.manual_seed(0)
    mixer = find("mixing", kind).Config().build(8).double()
    with torch.no_grad():
        mixer.up.weight.normal_(), mixer.out.weight.normal_()
    return mixer


@pytest.mark.parametrize("kind", RECURRENT)
def test_many_documents_in_a_row(kind):
    """Of lengths 1 to 90, over borders of chunks and blocks; forwards, both ways, and in a piece and single steps."""
    mixer, lengths = strong(kind), [1, 17, 64, 2, 90, 1, 1, 30]
    ids = torch.repeat_interleave(torch.arange(8), torch.tensor(lengths))[None]
    hidden = Hidden(noise(1, sum(lengths), 8), segments=ids)
    for mask in (CAUSAL, Mask()):
        alone = torch.cat([mixer(Hidden(x), mask) for x in hidden.x.split(lengths, 1)], 1)
        close(mixer(hidden, mask), alone)
    wanted, state, found = mixer(hidden, CAUSAL), mixer.start(1, ids.shape[1], hidden.x), []
    for first, last in [(0, 190), *((t, t + 1) for t in range(190, ids.shape[1]))]:
        piece = Hidden(hidden.x[:, first:last], segments=ids[:, first:last])
        y, state = mixer.step(piece, state, CAUSAL)
        found.append(y)
    close(torch.cat(found, 1), wanted)


@pytest.mark.parametrize("kind", RECURRENT)
def test_groups_of_tokens_change_nothing(kind, monkeypatch):
    """Outputs and gradients of 83 tokens in groups of 16 are those of one group; with padding, segments, both ways."""
    mixer, x = strong(kind), noise(2, 83, 8).requires_grad_()
    valid = torch.ones(2, 83, dtype=torch.bool)
    valid[0, 77:], valid[1, :20] = False, False
    for mask, ids in ((CAUSAL, None), (CAUSAL, RUNS), (Mask(), None), (Mask(), RUNS)):
        found = []
        for group in (1024, 16):
            monkeypatch.setattr(_scan, "GROUP", group)
            y = mixer(Hidden(x, segments=ids, valid=valid), mask)[valid]
            found.append([y, *torch.autograd.grad(y.sin().sum(), [x, *mixer.parameters()])])
        for a, b in zip(*found, strict=True):
            close(a, b)


@pytest.mark.parametrize("kind", ["gated_delta", "selective_ssm", "state_space_duality"])
def test_training_in_bf16(kind):
    """30 steps on one repeated row: finite all the way, and near the loss of float32, which falls."""
    losses = {}
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        mixer = find("mixing", kind).Config().build(32)
        x, wanted = torch.randn(4, 48, 32), torch.randn(4, 48, 32)
        optimizer, found = torch.optim.AdamW(mixer.parameters(), 1e-2), []
        for _ in range(30):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                y = mixer(Hidden(x), CAUSAL)
            loss = (y.float() - wanted).square().mean()
            optimizer.zero_grad(), loss.backward(), optimizer.step()
            found.append(float(loss.detach()))
            assert all(p.grad is not None and p.grad.isfinite().all() for p in mixer.parameters())
        losses[precision] = found
    assert losses[torch.float32][-1] < 0.8 * losses[torch.float32][0]
    for narrow, full in zip(losses[torch.bfloat16], losses[torch.float32], strict=True):
        assert abs(narrow - full) <= 0.05 * full
