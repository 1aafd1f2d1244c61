"""Pooling by quarters, against PyTorch's adaptive pooling."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from sevenfold.assembly.pool import pool
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden


def picture(rows, columns, extra=0):
    """Random tokens of a grid behind `extra` class and register tokens."""
    torch.manual_seed(0)
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    coords = torch.cat([torch.zeros(extra, 2, dtype=torch.long), grid]).expand(3, -1, -1)
    return Hidden(torch.randn(3, extra + rows * columns, 5), coords, spans={"class": (0, extra)} if extra else None)


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (7, 7), (7, 4), (2, 9), (1, 6)])
def test_quarters_are_adaptive_pooling(rows, columns, extra):
    """The middle line of an odd side is in both halves, as there."""
    hidden = picture(rows, columns, extra)
    plain = hidden.x[:, extra:].transpose(1, 2).reshape(3, 5, rows, columns)
    wanted = adaptive_avg_pool2d(plain, 2).flatten(2).transpose(1, 2).flatten(1)
    torch.testing.assert_close(pool(hidden, "quarters"), wanted)


def test_the_order_of_tokens_and_padding_change_nothing():
    hidden = picture(4, 6)
    shuffled = torch.randperm(24)
    other = hidden._replace(x=hidden.x[:, shuffled], coords=hidden.coords[:, shuffled])
    torch.testing.assert_close(pool(other, "quarters"), pool(hidden, "quarters"))
    longer = Hidden(
        torch.cat([hidden.x, torch.full((3, 4, 5), 9.0)], 1),
        torch.cat([hidden.coords, torch.full((3, 4, 2), 99)], 1),
        (torch.arange(28) < 24).expand(3, -1),
    )
    torch.testing.assert_close(pool(longer, "quarters"), pool(hidden, "quarters"))
    nothing = longer._replace(valid=torch.zeros(3, 28, dtype=torch.bool))
    assert not pool(nothing, "quarters").any()


def test_quarters_of_a_line_are_refused():
    with pytest.raises(ConfigError, match="quarters are those of a picture"):
        pool(Hidden(torch.zeros(1, 3, 2), torch.zeros(1, 3, 1)), "quarters")
