"""Parts with pairs, grids and frames against ESMFold's and ESMFold2's in `transformers`: outputs and gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.esm import modeling_esmfold as esmfold
from transformers.models.esm.openfold_utils import Rigid, Rotation
from transformers.models.esmfold2.modeling_esmfold2 import EsmFold2OuterProductMean
from twins import GRADIENT, ragged, same, stirred

from sevenfold.core.part import decode, find
from sevenfold.core.types import Hidden

B, N, D, P = 2, 7, 24, 12
DTYPES = [torch.float32, torch.float64]


def made(kind: str, width: int, dtype: torch.dtype, bias: bool, **settings: Any) -> Any:
    project = find("projection", "linear").Config(bias=bias).build
    return decode(find("mixing", kind).Config, settings).build(width, project).to(dtype).eval()


def noise(*shape: int, dtype: torch.dtype, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def copied(part: Any, *sources: Any) -> None:
    """The weights (and biases, 0 where a source has none) of several maps, one above the other."""
    with torch.no_grad():
        part.weight.copy_(torch.cat([source.weight for source in sources]))
        if part.bias is not None:
            part.bias.copy_(
                torch.cat([s.weight.new_zeros(len(s.weight)) if s.bias is None else s.bias for s in sources])
            )


def alike(ours: Tensor, theirs: Tensor, parts: list[tuple[Tensor, Tensor]], where: Tensor | None = None) -> None:
    """Outputs, and the gradients of a random projection of them: of inputs and weights, ours and theirs."""
    same(ours, theirs, where)
    weight = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64).to(theirs)
    if where is not None:
        weight = weight * where[..., None]
    mine = torch.autograd.grad((ours * weight).sum(), [our for our, _ in parts])
    their = torch.autograd.grad((theirs * weight).sum(), [their for _, their in parts])
    for a, b in zip(mine, their):
        assert b.abs().max() > 1e-6, "no gradient is compared"
        scale = max(1.0, float(b.abs().max()))
        assert (a - b).abs().max() <= GRADIENT[b.dtype] * scale, (a - b).abs().max()


def attention_into(ours: Any, theirs: Any) -> None:
    """The weights of their gated attention, the rows of q, k and v joined."""
    copied(ours.qkv, theirs.linear_q, theirs.linear_k, theirs.linear_v)
    copied(ours.gate, theirs.linear_g)
    copied(ours.out, theirs.linear_o)


def pair_mask(valid: Tensor | None) -> Tensor | None:
    return None if valid is None else valid[:, :, None] & valid[:, None, :]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("ending", [False, True])
def test_triangle_attention(ending, padded, dtype):
    theirs = stirred(esmfold.EsmFoldTriangleAttention(P, 5, 3, starting=not ending)).to(dtype)
    ours = made("triangle_attention", P, dtype, True, heads=3, head_width=5, ending=ending)
    attention_into(ours, theirs.mha)
    copied(ours.third, theirs.linear)
    z, x = noise(B, N, N, P, dtype=dtype), noise(B, N, D, dtype=dtype)
    valid = ragged(x[..., 0], [N, 4]) if padded else None
    real = pair_mask(valid)
    y = ours(Hidden(x, pair=theirs.layer_norm(z), valid=valid))
    wanted = theirs(z, None if real is None else real.to(dtype))
    alike(
        y,
        wanted,
        [(z, z), (ours.third.weight, theirs.linear.weight), (ours.out.weight, theirs.mha.linear_o.weight)],
        real,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("incoming", [False, True])
def test_triangle_multiplication(incoming, padded, dtype):
    config = SimpleNamespace(pairwise_state_dim=P)
    theirs = stirred(esmfold.EsmFoldTriangleMultiplicativeUpdate(config, _outgoing=not incoming)).to(dtype)
    ours = made("triangle_multiplication", P, dtype, True, incoming=incoming)
    copied(ours.sides, theirs.linear_a_p, theirs.linear_b_p)
    copied(ours.side_gates, theirs.linear_a_g, theirs.linear_b_g)
    copied(ours.out, theirs.linear_z)
    copied(ours.gate, theirs.linear_g)
    ours.norm.load_state_dict(theirs.layer_norm_out.state_dict())
    z, x = noise(B, N, N, P, dtype=dtype), noise(B, N, D, dtype=dtype)
    valid = ragged(x[..., 0], [N, 4]) if padded else None
    real = pair_mask(valid)
    y = ours(Hidden(x, pair=theirs.layer_norm_in(z), valid=valid))
    wanted = theirs(z, None if real is None else real.to(dtype))
    alike(y, wanted, [(z, z), (ours.out.weight, theirs.linear_z.weight), (ours.gate.bias, theirs.linear_g.bias)], real)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padded", [False, True])
def test_pair_attention(padded, dtype):
    """ESMFold's keeps q, k and v of each head together."""
    theirs = stirred(esmfold.EsmFoldSelfAttention(D, 3, D // 3, gated=True)).to(dtype)
    bias = stirred(esmfold.EsmFoldPairToSequence(P, 3)).to(dtype)
    ours = made("pair_attention", D, dtype, True, heads=3, pair_width=P)
    with torch.no_grad():
        ours.qkv.weight.copy_(theirs.proj.weight.unflatten(0, (3, 3, -1)).transpose(0, 1).flatten(0, 2))
    copied(ours.gate, theirs.g_proj)
    copied(ours.out, theirs.o_proj)
    copied(ours.pair_bias, bias.linear)
    ours.pair_norm.load_state_dict(bias.layernorm.state_dict())
    x, z = noise(B, N, D, dtype=dtype), noise(B, N, N, P, dtype=dtype)
    valid = ragged(x[..., 0], [N, 4]) if padded else None
    wanted, weights = theirs(x, valid, bias(z))
    hidden = Hidden(x, pair=z, valid=valid)
    alike(ours(hidden), wanted, [(x, x), (z, z), (ours.pair_bias.weight, bias.linear.weight)], valid)
    same(ours.weights(hidden).transpose(1, 2), weights.permute(0, 3, 2, 1), valid)  # [b q h k]; theirs is [b k h q]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["row_attention", "column_attention"])
def test_grid_attention(kind, padded, dtype):
    """The rows (or columns) of an alignment one by one through their attention."""
    rows, columns = 3, 5
    theirs = stirred(esmfold.EsmFoldAttention(D, D, D, 5, 3)).to(dtype)
    bias = stirred(esmfold.EsmFoldPairToSequence(P, 3)).to(dtype)
    along_rows = kind == "row_attention"
    ours = made(kind, D, dtype, True, heads=3, head_width=5, **({"pair_width": P} if along_rows else {}))
    attention_into(ours, theirs)
    x, z = noise(B, rows * columns, D, dtype=dtype), noise(B, columns, columns, P, dtype=dtype)
    valid = torch.ones(B, rows * columns, dtype=torch.bool)
    if padded:
        valid[1, columns:] = False  # whole sequences are missing
        valid.view(B, rows, columns)[0, :, -2:] = False  # and whole columns
    lines, real = x.unflatten(1, (rows, columns)), valid.unflatten(1, (rows, columns))
    if along_rows:
        copied(ours.pair_bias, bias.linear)
        ours.pair_norm.load_state_dict(bias.layernorm.state_dict())
    else:
        lines, real = lines.transpose(1, 2), real.transpose(1, 2)
    hidden_keys = (-1e9 * (~real).to(dtype))[:, :, None, None, :]
    biases = [hidden_keys, bias(z).movedim(-1, 1).unsqueeze(1)] if along_rows else [hidden_keys]
    wanted = theirs(lines, lines, biases)
    wanted = (wanted if along_rows else wanted.transpose(1, 2)).flatten(1, 2)
    y = ours(Hidden(x, valid=valid, grid=(rows, columns), pair=z if along_rows else None))
    extra = [(z, z), (ours.pair_bias.weight, bias.linear.weight)] if along_rows else []
    alike(y, wanted, [(x, x), (ours.out.weight, theirs.linear_o.weight), *extra], valid)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 4])
def test_outer_product_mean(rows, dtype):
    columns, inner = 6, 5
    settings = SimpleNamespace(hidden_size=D, outer_hidden_size=inner, outer_product_chunk_size=None)
    config = SimpleNamespace(msa_encoder=settings, pairwise_hidden_size=P)
    theirs = stirred(EsmFold2OuterProductMean(config)).to(dtype)
    ours = made("outer_product_mean", P, dtype, True, inner=inner, token_width=D)
    norm = torch.nn.LayerNorm(D).to(dtype)  # theirs computes in float32 whatever it is given
    norm.load_state_dict(theirs.norm.state_dict())
    theirs.norm = norm
    copied(ours.factors, theirs.input_proj)
    copied(ours.out, theirs.output_proj)
    ours.norm.load_state_dict(theirs.norm.state_dict())
    x = noise(B, rows * columns, D, dtype=dtype)
    valid = torch.rand(B, rows * columns, generator=torch.Generator().manual_seed(1)) < 0.7
    wanted = theirs(
        x.unflatten(1, (rows, columns)).transpose(1, 2), valid.unflatten(1, (rows, columns)).transpose(1, 2)
    )
    pair = noise(B, columns, columns, P, dtype=dtype)
    y = ours(Hidden(x, valid=valid, grid=(rows, columns) if rows > 1 else None, pair=pair))
    alike(y, wanted, [(x, x), (ours.out.weight, theirs.output_proj.weight), (ours.out.bias, theirs.output_proj.bias)])


def frames(dtype: torch.dtype) -> Tensor:
    """Random frames [B N 4 3]: rotations and origins, of numbers that float32 holds (their frames are in float32)."""
    axes = torch.linalg.qr(noise(B, N, 3, 3, dtype=torch.float64, seed=8).detach())[0]
    axes = axes * torch.linalg.det(axes)[..., None, None]
    return torch.cat([axes, noise(B, N, 1, 3, dtype=torch.float64, seed=9).detach() * 3], 2).float().to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padded", [False, True])
def test_invariant_point(padded, dtype):
    h, c, points, values = 3, 5, 2, 4
    config = SimpleNamespace(
        sequence_dim=D, pairwise_dim=P, ipa_dim=c, num_heads_ipa=h, num_qk_points=points, num_v_points=values
    )
    config.inf, config.epsilon = 1e9, 1e-8
    theirs = stirred(esmfold.EsmFoldInvariantPointAttention(config)).to(dtype)
    settings = {"heads": h, "head_width": c, "points": points, "value_points": values, "unit": 1.0, "pair_width": P}
    ours = made("invariant_point", D, dtype, True, **settings)
    each = points + values
    for name in ("weight", "bias"):
        q, kv, b = (getattr(part, name) for part in (theirs.linear_q, theirs.linear_kv, theirs.linear_b))
        k, v = kv.unflatten(0, (h, 2, c)).unbind(1)
        q_points, kv_points = getattr(theirs.linear_q_points, name), getattr(theirs.linear_kv_points, name)
        q_points = q_points.unflatten(0, (3, h, points)).movedim(0, 2)  # [h points 3 …], theirs lead with the axis
        kv_points = kv_points.unflatten(0, (3, h, each)).movedim(0, 2)
        with torch.no_grad():
            getattr(ours.qkv, name).copy_(torch.cat([q, k.flatten(0, 1), v.flatten(0, 1)]))
            getattr(ours.points, name).copy_(torch.cat([q_points, kv_points], 1).flatten(0, 2))
            getattr(ours.pair_bias, name).copy_(b)
            getattr(ours.out, name).copy_(getattr(theirs.linear_out, name))
    with torch.no_grad():
        ours.nearness.copy_(theirs.head_weights)
    x, z, placed = noise(B, N, D, dtype=dtype), noise(B, N, N, P, dtype=dtype), frames(dtype)
    valid = ragged(x[..., 0], [N, 4]) if padded else None
    rigid = Rigid(Rotation(rot_mats=placed[..., :3, :], quats=None), placed[..., 3, :])
    normed = torch.nn.functional.layer_norm(z, (P,))
    mask = torch.ones(B, N, dtype=dtype) if valid is None else valid.to(dtype)
    wanted = theirs(x, normed, rigid, mask)
    y = ours(Hidden(x, pair=z, valid=valid, frames=placed))
    pairs = [(x, x), (z, z), (ours.nearness, theirs.head_weights), (ours.out.weight, theirs.linear_out.weight)]
    alike(y, wanted, pairs, valid)
