"""Attention in space: geometric attention against its formula written out, and both kinds under rotations and shifts."""

from __future__ import annotations

import math

import pytest
import torch

from sevenfold.conformance._kit import lively, near
from sevenfold.core.part import decode, find
from sevenfold.core.types import Hidden

B, N, D = 2, 6, 18


def made(kind, **settings):
    torch.manual_seed(1)
    return lively(decode(find("mixing", kind).Config, settings).build(D)).double().eval()


def frames(spread=5.0):
    generator = torch.Generator().manual_seed(2)
    axes = torch.linalg.qr(torch.randn(B, N, 3, 3, generator=generator, dtype=torch.float64))[0]
    axes = axes * torch.linalg.det(axes)[..., None, None]
    return torch.cat([axes, spread * torch.randn(B, N, 1, 3, generator=generator, dtype=torch.float64)], 2)


def tokens():
    return torch.randn(B, N, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_geometric_attention_is_its_formula():
    """Token by token, head by head; one token of the second row has no frame, one is padding."""
    heads, unit = 3, 4.0
    mixer, x, placed = made("geometric", heads=heads, unit=unit), tokens(), frames()
    placed[1, 2] = 0
    valid = torch.ones(B, N, dtype=torch.bool)
    valid[1, -1] = False
    found = mixer(Hidden(x, frames=placed, valid=valid))
    wanted = torch.zeros_like(x)
    vectors = mixer.vectors(x).view(B, N, 5, heads, 3)
    there = valid & placed.ne(0).flatten(2).any(-1)
    for b in range(B):
        seen = [j for j in range(N) if there[b, j]]
        for i in seen:
            heard = []
            turn_i, origin_i = placed[b, i, :3], placed[b, i, 3] / unit
            for h in range(heads):
                scores, values = [], []
                for j in seen:
                    turn_j, origin_j = placed[b, j, :3], placed[b, j, 3] / unit
                    alike = (turn_i @ vectors[b, i, 0, h]) @ (turn_j @ vectors[b, j, 1, h])
                    a, c = turn_i @ vectors[b, i, 3, h] + origin_i, turn_j @ vectors[b, j, 4, h] + origin_j
                    near_by, far = (
                        math.log1p(math.exp(float(part[h].detach()))) for part in (mixer.direction, mixer.distance)
                    )
                    scores.append((near_by * alike - far * (a - c).norm()) / math.sqrt(3))
                    values.append(turn_j @ vectors[b, j, 2, h])
                weights = torch.stack(scores).softmax(0)
                heard.append(turn_i.T @ (weights[:, None] * torch.stack(values)).sum(0))
            wanted[b, i] = mixer.out(torch.cat(heard))
    near(found, wanted, "geometric attention")


@pytest.mark.parametrize("kind", ["geometric", "invariant_point"])
def test_a_reflection_is_not_a_rotation(kind):
    """Mirrored frames are no frames of the mirrored world: what comes out changes, so hands are told apart."""
    mixer, x, placed = made(kind, unit=10.0), tokens(), frames()
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    turned = torch.cat([mirror @ placed[..., :3, :] @ mirror, placed[..., 3:, :] @ mirror], 2)
    assert (mixer(Hidden(x, frames=turned)) - mixer(Hidden(x, frames=placed))).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["geometric", "invariant_point"])
def test_far_from_the_origin_float32_still_sees(kind):
    """2,000 Å away: the coordinates themselves hold 1e-4 Å there, and nothing more is lost."""
    mixer, x, placed = made(kind, unit=10.0).float(), tokens().float(), frames().float()
    far = placed.clone()
    far[..., 3, :] += 2000.0
    near(mixer(Hidden(x, frames=far)), mixer(Hidden(x, frames=placed)), "far away", within=1e-4)


@pytest.mark.parametrize("kind", ["geometric", "invariant_point"])
def test_tokens_at_one_place_have_finite_gradients(kind):
    mixer, placed = made(kind), frames()
    placed[...] = placed[:1, :1]
    x = tokens()[:, :1].expand(-1, N, -1).clone().requires_grad_()
    mixer(Hidden(x, frames=placed)).square().sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.any()
