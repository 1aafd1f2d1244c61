"""A trunk with a pair, a grid or frames: what padding, order and packing do to it, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.conformance._kit import compiled, counted, lively, near
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode
from sevenfold.core.types import Hidden, Mask, Stream

N = 12
UPDATES = [
    "outer_product_mean",
    "triangle_multiplication",
    {"kind": "triangle_multiplication", "incoming": True},
    "triangle_attention",
    {"kind": "triangle_attention", "ending": True},
]
PAIRED = {"mixer": "pair_attention", "pair": UPDATES, "pair_nonlinearity": "swiglu"}
LINES = [{"mixer": "row_attention", "pair": UPDATES[:2]}, {"mixer": "column_attention", "pair": UPDATES[2:3]}]
TEXT = {"kind": "text", "length": N}
IMAGE = {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}


def model(block, streams=None, **trunk):
    trunk = {"inputs": ["text"], "width": 16, "depth": 2, "position": "none", "block": block, **trunk}
    config = decode(ModelConfig, {"streams": streams or {"text": TEXT}, "trunks": {"enc": trunk}})
    torch.manual_seed(0)
    modalities = {name: stream.build() for name, stream in config.streams.items()}
    if "image" in modalities:
        modalities["image"].fit([np.zeros((8, 8), np.uint8)])
    return Model(config, modalities).eval()


def flops(made, given) -> int:
    """What the formulas count of one row."""
    return sum(cost.flops for cost in model_costs(made, given))


def words(rows=3, seed=0, **parts):
    ids = torch.randint(200, (rows, N), generator=torch.Generator().manual_seed(seed))
    return Stream(ids, torch.arange(N)[None, :, None].expand(rows, -1, -1), **parts)


def lengths(*counts):
    return torch.arange(N)[None] < torch.tensor(counts)[:, None]


JOINED = {
    "pre": ({}, lambda x, norm, part: x + part(norm(x))),
    "post": ({"post_norm": True}, lambda x, norm, part: norm(x + part(x))),
    "output": ({"output_norm": True}, lambda x, norm, part: x + norm(part(x))),
}


@pytest.mark.parametrize("place", JOINED)
def test_where_norms_stand(place):
    """Around each part of a block, of the pair first and then of the tokens."""
    settings, join = JOINED[place]
    block = lively(model({**PAIRED, **settings}, pair={"width": 8})).double().trunks["enc"].blocks[0]
    x, z = torch.randn(2, N, 16).double(), torch.randn(2, N, N, 8).double()
    found = block(Hidden(x, pair=z), Mask())
    updates = [lambda z, part=part: part(Hidden(x, pair=z), Mask()) for part in block.pair.parts]
    for index, update in enumerate([*updates, block.pair.feed]):
        norm = block.pair.norms[str(index)] if str(index) in block.pair.norms else torch.nn.Identity()
        z = join(z, norm, update)
    near(found.pair, z, "the pair")
    x = join(x, block.norms[0], lambda x: block.mixer(Hidden(x, pair=z), Mask()))
    near(found.x, join(x, block.norms[1], block.feed), "the tokens")


@pytest.mark.parametrize("place", JOINED)
def test_padding_changes_nothing(place):
    norm = JOINED[place][0]
    made = lively(model({**PAIRED, **norm}, pair={"width": 8, "relative": 3})).double()
    stream = words(valid=lengths(N, 7, 1))
    hidden = made({"text": stream})["enc"]
    assert hidden.pair.shape == (3, N, N, 8)
    for row, n in enumerate((N, 7, 1)):
        alone = made({"text": stream.rows(slice(row, row + 1)).slice(0, n)._replace(valid=None)})["enc"]
        near(hidden.x[row, :n], alone.x[0], "tokens")
        near(hidden.pair[row, :n, :n], alone.pair[0], "pairs")


def test_packed_documents_do_not_see_each_other():
    made = lively(model(PAIRED, pair={"width": 8})).double()
    segments = torch.tensor([[0] * 5 + [1] * 7])
    whole = made({"text": words(1, segments=segments)})["enc"]
    for start, stop in ((0, 5), (5, N)):
        alone = made({"text": words(1).slice(start, stop)})["enc"]
        near(whole.x[0, start:stop], alone.x[0], "tokens")
        near(whole.pair[0, start:stop, start:stop], alone.pair[0], "pairs")


def test_padding_between_streams_comes_back_to_its_place():
    streams = {"a": TEXT, "b": TEXT}
    made = lively(model(PAIRED, streams, inputs=["a", "b"], pair={"width": 8})).double()
    a, b = words(2, valid=lengths(4, N)), words(2, 1, valid=lengths(N, 9))
    hidden = made({"a": a, "b": b})["enc"]
    alone = made(
        {"a": a.rows(slice(0, 1)).slice(0, 4)._replace(valid=None), "b": b.rows(slice(0, 1))._replace(valid=None)}
    )
    real = hidden.valid[0]
    near(hidden.x[0, real], alone["enc"].x[0], "tokens")
    near(hidden.pair[0][real][:, real], alone["enc"].pair[0], "pairs")
    near(hidden.of("b").pair[0], alone["enc"].of("b").pair[0], "pairs of one stream")


def test_every_weight_gets_a_gradient_and_flops_are_counted():
    made = lively(model(PAIRED, pair={"width": 8}))
    stream = words()
    made({"text": stream})["enc"].x.square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert 3 * flops(made, {"text": N}) == counted(lambda: made({"text": stream}))


def test_compiles_whole():
    made = lively(model(PAIRED, pair={"width": 8}))
    batch = {"text": words(valid=lengths(N, 7, 1))}
    trunk = made.trunks["enc"]
    found, wanted = compiled(trunk)(batch), trunk(batch)
    near(found.x, wanted.x, "tokens")
    near(found.pair, wanted.pair, "pairs")


def test_rows_and_columns_of_pictures_with_a_pair_of_columns():
    made = lively(model(LINES, {"image": IMAGE}, inputs=["image"], pair={"width": 8}))
    layout = torch.from_numpy(made.modalities["image"].tokenizer.layout())
    values = torch.randn(2, 16, made.modalities["image"].tokenizer.features)
    batch = {"image": Stream(values, layout[None].expand(2, -1, -1))}
    trunk = made.trunks["enc"]
    hidden = trunk(batch)
    assert trunk.grid == hidden.grid == (4, 4)
    assert hidden.pair.shape == (2, 4, 4, 8)
    near(compiled(trunk)(batch).x, hidden.x, "compiled")
    assert 2 * flops(made, {"image": 16}) == counted(lambda: made(batch))
    changed = values.clone()
    changed[:, 0] += 1
    other = trunk({"image": batch["image"]._replace(values=changed)})
    assert (other.x - hidden.x).abs().amax(-1).gt(1e-6).all(), "rows and columns in turn reach every token"


REFUSED = [
    ({"mixer": "pair_attention"}, {}, r"'pair_attention' reads a pair representation, .* set pair\.width"),
    ({"pair": ["triangle_attention"]}, {}, r"'triangle_attention' updates a pair representation: give the trunk one"),
    ({"mixer": "triangle_attention"}, {"pair": {}}, r"block\.mixer: 'triangle_attention' .* belongs in block\.pair"),
    ({"pair": ["attention"]}, {"pair": {}}, r"block\.pair: 'attention' mixes tokens; it belongs in block\.mixer"),
    ({"mixer": "invariant_point"}, {}, r"'invariant_point' needs tokens with frames, and text give none"),
    ({"mixer": "row_attention"}, {}, r"'row_attention' needs tokens that are one whole grid"),
    (PAIRED, {"pair": {}, "mask": {"causal": True}}, r"leave mask\.causal out"),
]


@pytest.mark.parametrize(("block", "trunk", "match"), REFUSED)
def test_refusals(block, trunk, match):
    with pytest.raises(ConfigError, match=match) as error:
        model(block, **trunk)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("trunks.enc: block")
