"""Blocks with a position and norms of their own; ids that are embedded by their row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.conformance._kit import compiled
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, encode
from sevenfold.core.types import Mask, Stream

ROTARY = {"kind": "rotary", "base": 7.0}
BLOCKS = [
    {"norm": ["none", "layer"]},
    {"position": ROTARY, "norm": "rms"},
    {"position": "none", "norm": ["rms", {"eps": 1e-3}]},
    {"position": "alibi"},
    {"position": ROTARY},
]
TOKENS = 9


def built(block: Any, stream: dict[str, Any] | None = None, **trunk: Any) -> Model:
    """A trunk over bytes, in float64, no number of it at 0 or 1."""
    torch.manual_seed(0)
    settings = {"inputs": ["text"], "width": 24, "depth": 5, "block": block, "position": "rotary", **trunk}
    data = {"streams": {"text": {"kind": "text", "length": TOKENS, **(stream or {})}}, "trunks": {"lm": settings}}
    config = decode(ModelConfig, data)
    model = Model(config, {name: stream.build() for name, stream in config.streams.items()}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def words(rows: int = 3) -> Stream:
    torch.manual_seed(1)
    ids = torch.randint(250, (rows, TOKENS))
    return Stream(ids, torch.arange(TOKENS).expand(rows, -1)[..., None])


@pytest.mark.parametrize("causal", [False, True])
def test_each_block_is_as_in_a_trunk_of_its_position(causal):
    """Block by block: what it gives is what the same weights give in a trunk that has that position everywhere."""
    model = built(BLOCKS, mask={"causal": causal})
    trunk: Any = model.trunks["lm"]
    assert [position.kind for position in trunk.block_positions] == ["rotary", "none", "alibi"]
    seen: list[torch.Tensor] = []
    trunk.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].x))
    for block in trunk.blocks:
        block.register_forward_hook(lambda _, __, made: seen.append(made.x))
    given = {"text": words()}
    model(given)
    for place, settings in enumerate(BLOCKS):
        other: Any = built({**settings, "position": None}, position=settings.get("position", "rotary")).trunks["lm"]
        assert not len(other.block_positions)
        other.blocks[0].load_state_dict(trunk.blocks[place].state_dict())
        hidden = other._around(other.embed("text", given["text"])._replace(x=seen[place]), None)
        assert (other.blocks[0](hidden, Mask(causal)).x - seen[place + 1]).abs().max() < 1e-12
    assert (seen[1] - seen[0]).abs().max() > 1e-2


def test_it_steps_and_compiles():
    model = built(BLOCKS, mask={"causal": True})
    trunk: Any = model.trunks["lm"]
    given = words()
    whole = trunk({"text": given}).x
    assert (compiled(trunk)({"text": given}).x - whole).abs().max() < 1e-10
    state, pieces, start = trunk.start(3, TOKENS), [], 0
    for size in (4, 1, 4):
        hidden, state = trunk.step(trunk.embed("text", given.slice(start, start + size)), state)
        assert hidden.elsewhere is None
        pieces.append(hidden.x)
        start += size
    assert (torch.cat(pieces, 1) - whole).abs().max() < 1e-10


def test_equal_positions_are_one_and_learn_together():
    """A bias that several blocks have is one table, of which each gets its gradient (T5 has it so)."""
    model = built({"position": "relative_bias"}, depth=3)
    trunk: Any = model.trunks["lm"]
    assert len(trunk.block_positions) == 1 and {block.stands for block in trunk.blocks} == {0}
    assert [name for name in dict(model.named_parameters()) if "positions" in name] == [
        "trunks.lm.block_positions.0.tables"
    ]
    same = built({}, position="relative_bias", depth=3)
    state = {name.replace("block_positions.0", "position"): value for name, value in model.state_dict().items()}
    same.load_state_dict(state)
    given = {"text": words()}
    assert torch.equal(model(given)["lm"].x, same(given)["lm"].x)
    model(given)["lm"].x.square().sum().backward()
    assert trunk.block_positions[0].tables.grad.abs().max() > 0


def test_configs_are_whole():
    """What was given as names and lists comes back complete, and is the same."""
    config = built(BLOCKS).config
    again = decode(ModelConfig, encode(config))
    assert again == config
    assert encode(config)["trunks"]["lm"]["block"][2]["norm"][1] == {"kind": "layer", "eps": 1e-3, "bias": True}


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"position": "learned"}, "'learned' is added to the embedded tokens: it belongs in the trunk's position"),
        ({"position": "axial_rotary", "mixer": {"kind": "attention", "heads": 24}}, "axial_rotary"),
        ({"norm": ["layer"]}, "block.norm: a list of 1, and the block has 2 parts"),
        ({"norm": []}, "an empty list of norms"),
        ({"norm": ["lyer", "layer"]}, "lyer"),
        ({"position": {"kind": "stored_rotary", "head_width": 6}}, "has frequencies of heads of width 6, not 24"),
    ],
)
def test_what_cannot_be(block, told):
    with pytest.raises(ConfigError, match=told) as caught:
        built({"mixer": {"kind": "attention", "heads": 1}, **block})
    assert "\n" not in str(caught.value)


# Ids that are embedded by their row

DROPPED = {"tokenizer": {"kind": "bytes"}, "projection": "token_dropout"}


def test_token_dropout_in_words():
    """Against the sentence that says it, token by token, in a padded batch of packed documents."""
    model = built({}, DROPPED)
    embed: Any = model.trunks["lm"].embeds["text"]
    mask = model.modalities["text"].tokenizer.specials["mask"]
    assert embed.config.mask_id == mask
    given = words(2)
    ids = given.values.clone()
    ids[0, [1, 2, 5]], ids[1, [0, 1, 2]] = mask, mask
    valid = torch.tensor([[True] * 9, [True] * 7 + [False] * 2])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1, 1]])
    found = model.trunks["lm"].embed("text", Stream(ids, given.coords, valid, segments)).x
    for row, place in valid.nonzero().tolist():
        document = [i for i in range(9) if valid[row, i] and segments[row, i] == segments[row, place]]
        hidden = sum(int(ids[row, i]) == mask for i in document)
        wanted = torch.zeros(24, dtype=torch.float64)
        if ids[row, place] != mask:
            wanted = embed.weight[ids[row, place]] * (1 - 0.15 * 0.8) / (1 - hidden / len(document))
        assert (found[row, place] - wanted).abs().max() < 1e-12
    assert found[1, :3].abs().max() == 0
    given = {"text": Stream(ids, words(2).coords, valid, segments)}
    whole = model(given)["lm"].x
    assert (compiled(model.trunks["lm"])(given).x - whole)[valid].abs().max() < 1e-10


def test_where_a_row_may_not_be_read():
    with pytest.raises(ConfigError, match="'token_dropout' reads the whole row: leave mask.causal out"):
        built({}, DROPPED, mask={"causal": True})
    config = decode(
        ModelConfig,
        {"streams": {"text": {"kind": "text", **DROPPED}}, "trunks": {"enc": {"inputs": ["text"]}}},
    )
    modality = config.streams["text"].build()
    modality.tokenizer.specials = {}
    with pytest.raises(ConfigError, match="'token_dropout' needs a mask token, and 'bytes' has none"):
        Model(config, {"text": modality})
