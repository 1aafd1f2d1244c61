"""Quantizers against those of `transformers`: EnCodec's codebook look-up, X-codec 2's finite scalar quantization."""

from __future__ import annotations

import pytest
import torch

from sevenfold.core.part import find

transformers = pytest.importorskip("transformers")


def test_nearest_codes_are_those_of_encodec():
    from transformers.models.encodec.modeling_encodec import EncodecEuclideanCodebook

    theirs = EncodecEuclideanCodebook(transformers.EncodecConfig(codebook_size=64, codebook_dim=6))
    torch.manual_seed(0)
    ours = find("quantizer", "vq").Config(size=64, width=6).build().eval()
    theirs.embed.copy_(ours.codes)
    z = torch.randn(3, 500, 6)
    found, wanted = ours(z), theirs.encode(z)
    assert torch.equal(found.ids, wanted)
    torch.testing.assert_close(found.x, theirs.decode(wanted), atol=1e-5, rtol=0)
    assert len(wanted.unique()) > 50


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (7, 5, 5, 5, 5), (4,) * 8, (3, 6)])
def test_levels_are_those_of_xcodec2(levels):
    module = pytest.importorskip("transformers.models.xcodec2.modeling_xcodec2")
    theirs = module.Xcodec2FiniteScalarQuantization(transformers.Xcodec2Config(quantization_levels=list(levels)))
    ours = find("quantizer", "fsq").Config(levels=levels).build()
    torch.manual_seed(0)
    z = torch.randn(2, 400, len(levels)) * 2
    one, other = z.clone().requires_grad_(), z.clone().requires_grad_()
    found, (wanted, ids) = ours(one), theirs(other)
    assert torch.equal(found.ids, ids.long())
    torch.testing.assert_close(found.x, wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.vectors(), theirs.codebook.float(), atol=0, rtol=0)
    direction = torch.randn_like(z)
    (found.x * direction).sum().backward()
    (wanted * direction).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=0)
