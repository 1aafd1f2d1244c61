"""Convolution over a grid of tokens against a loop over its taps, and where it does not belong."""

from __future__ import annotations

import pytest
import torch

from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.types import Hidden
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import Recipe, read_recipe

CONV = find("mixing", "grid_conv")


@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (3, 2), (5, None), (1, 1)])
@torch.no_grad()
def test_against_a_loop(kernel, groups):
    """y_rc = sum over the square of W_ij x_(r+i)(c+j), channels of one group together; 0 beyond the edges and at padding."""
    torch.manual_seed(0)
    rows, columns, width = 4, 5, 6
    mixer = CONV.Config(kernel=kernel, groups=groups).build(width).double()
    for parameter in mixer.parameters():
        parameter.normal_()
    x, valid = torch.randn(2, rows * columns, width).double(), torch.rand(2, rows * columns) < 0.8
    given, real = x.view(2, rows, columns, width), valid.view(2, rows, columns)
    y, each, reach = torch.zeros_like(given), width // mixer.groups, kernel // 2
    for b in range(2):
        for r in range(rows):
            for c in range(columns):
                for out in range(width):
                    y[b, r, c, out] = mixer.bias[out]
                    first = out // each * each
                    for i in range(-reach, reach + 1):
                        for j in range(-reach, reach + 1):
                            if 0 <= r + i < rows and 0 <= c + j < columns and real[b, r + i, c + j]:
                                taps = mixer.taps[out, :, i + reach, j + reach]
                                y[b, r, c, out] += taps @ given[b, r + i, c + j, first : first + each]
    wanted = mixer.out(y.relu().flatten(1, 2))
    found = mixer(Hidden(x, valid=valid, grid=(rows, columns)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trunks.enc.block.mixer.kernel=4"], "4 has no middle: choose 3 or 5"),
        (["trunks.enc.block.mixer.groups=5"], "5 groups do not divide a width of 64"),
        (["trunks.enc.class_token=true"], "whole grid"),
        (["trunks.enc.mask.causal=true"], "causal"),
    ],
)
def test_where_it_does_not_belong(overrides, message):
    with pytest.raises(ConfigError, match=message):
        prepare(read_recipe("byol", ["data.limit=40", "train.batch=4", *overrides]))


def test_a_second_trunk_has_the_grid_of_the_first():
    data = find("objective", "simclr").example()
    block = {"mixer": "grid_conv", "nonlinearity": None}
    data["trunks"] = {
        "low": {"inputs": ["image"], "width": 16, "depth": 1, "block": block, "position": "none"},
        "high": {"inputs": ["low"], "width": 24, "depth": 1, "block": block, "position": "none"},
    }
    ready = prepare(decode(Recipe, data, "recipe"))
    assert ready.model.trunks["high"].grid == (4, 4)
