"""Caches in whole trunks: what is exact, what is constant, what is refused; states that are copied, picked and taken back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sevenfold.assembly.block import Block
from sevenfold.assembly.mask import MaskConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.trunk import Trunk
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.types import Stream

LENGTH = 40


def trunk_of(mixers=({"kind": "attention"},), window=None, position="rotary", width=24) -> Trunk:
    """A causal trunk over bytes, in float64."""
    torch.manual_seed(3)
    blocks = tuple(Block.Config.model_validate({"mixer": mixer}) for mixer in mixers)
    mask = MaskConfig(causal=True, window=window)
    trunk = Trunk.Config(inputs=("text",), width=width, depth=len(blocks), block=blocks, position=position, mask=mask)
    streams = {"text": decode(find("modality", "text").Config, {"length": LENGTH})}
    model = Model(ModelConfig(streams=streams, trunks={"lm": trunk}), {"text": streams["text"].build()})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval().trunks["lm"]


def text(rows=3) -> Stream:
    coords = torch.arange(LENGTH)[None, :, None].expand(rows, -1, -1)
    return Stream(torch.randint(256, (rows, LENGTH), generator=torch.Generator().manual_seed(1)), coords)


@torch.no_grad()
def stepped(trunk, stream, sizes, cache=None):
    state, found, start = trunk.start(len(stream.values), LENGTH, cache=cache), [], 0
    for size in sizes:
        hidden, state = trunk.step(trunk.embed("text", stream.slice(start, start + size)), state)
        found.append(hidden.x)
        start += size
    return torch.cat(found, 1), state


def size_of(state) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(state.blocks) if isinstance(leaf, Tensor))


@pytest.mark.parametrize("position", ["rotary", "alibi", "none"])
@pytest.mark.parametrize("cache", [None, "full", "sliding", {"kind": "sliding", "window": 9}])
@pytest.mark.parametrize("sizes", [[1] * LENGTH, [17, 1, 1, 1, 20], [LENGTH]])
def test_windows_are_exact_in_every_cache(position, cache, sizes):
    trunk = trunk_of(window=5, position=position)
    with torch.no_grad():
        wanted = trunk({"text": text()}).x
    assert torch.allclose(stepped(trunk, text(), sizes, cache)[0], wanted, rtol=0, atol=1e-10)


def test_what_no_window_shows_is_forgotten_where_nothing_else_is_said():
    """Blocks in turn see 4 tokens and all of them: each keeps what it needs."""
    local, whole = {"kind": "attention", "window": 4}, {"kind": "attention"}
    trunk = trunk_of((local, whole, local))
    found, state = stepped(trunk, text(), [9, *[1] * (LENGTH - 9)])
    with torch.no_grad():
        assert torch.allclose(found, trunk({"text": text()}).x, rtol=0, atol=1e-10)
    assert [block[0].vectors[0].shape[2] for block in state.blocks] == [4, LENGTH, 4]
    with pytest.raises(ConfigError, match="choose full, or leave cache out"):
        trunk.start(1, LENGTH, cache="sliding")


def test_a_window_takes_the_memory_of_a_window():
    sizes = [size_of(stepped(trunk_of(window=5), text(), [tokens], None)[1]) for tokens in (6, 20, LENGTH)]
    assert len(set(sizes)) == 1
    assert sizes[0] * LENGTH == 5 * size_of(stepped(trunk_of(), text(), [LENGTH])[1])


def test_eight_bits_are_near_and_small():
    trunk = trunk_of(({"kind": "attention"},) * 2, width=64)
    exact, full = stepped(trunk, text(), [10, *[1] * (LENGTH - 10)])
    near, small = stepped(trunk, text(), [10, *[1] * (LENGTH - 10)], "quantised")
    assert float((near - exact).norm() / exact.norm()) < 0.01
    assert not torch.equal(near, exact)
    assert size_of(small) * 5 <= size_of(full)  # 8 bits and a scale for 32 of them, instead of 64 bits
    single, _ = stepped(trunk.float(), text(), [LENGTH], "quantised")
    assert float((single - exact).norm() / exact.norm()) < 0.01


@pytest.mark.parametrize("cache", ["full", "quantised", None])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_tokens_are_taken_back(cache, count):
    trunk, other = trunk_of(), text()._replace(values=text().values.flip(0))
    with torch.no_grad():
        wanted = stepped(trunk, text(), [10, 1, 1, LENGTH - 12], cache)[0][:, 10:]
        state = stepped(trunk, text(), [10], cache)[1]
        if count:
            state = trunk.step(trunk.embed("text", other.slice(10, 10 + count)), state)[1].rewind(count)
        found = []
        for start, stop in ((10, 11), (11, 12), (12, LENGTH)):
            hidden, state = trunk.step(trunk.embed("text", text().slice(start, stop)), state)
            found.append(hidden.x)
    assert torch.equal(torch.cat(found, 1), wanted)


@pytest.mark.parametrize("kind", ["min_gru", "conv", "selective_ssm"])
def test_what_is_lost_is_not_taken_back(kind):
    """A recurrent mixer among the blocks: the trunk says None, and a copy from before goes on."""
    trunk = trunk_of(({"kind": "attention"}, {"kind": kind}))
    with torch.no_grad():
        wanted = trunk({"text": text()}).x[:, 10:]
        state = stepped(trunk, text(), [10])[1]
        before = state.copy()
        assert trunk.step(trunk.embed("text", text().slice(4, 6)), state)[1].rewind(2) is None
        found = trunk.step(trunk.embed("text", text().slice(10, LENGTH)), before)[0].x
    assert torch.allclose(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mixer", [{"kind": "attention", "window": 4}, {"kind": "hyena"}, {"kind": "min_gru"}])
def test_rows_go_on_by_themselves(mixer):
    """One prompt becomes four samples, then the last of them twice."""
    trunk, stream = trunk_of((mixer, {"kind": "attention"})), text(4)
    prompt = stream.rows(torch.tensor([1] * 4)).slice(0, 12)
    told = Stream(torch.cat([prompt.values, stream.values[:, 12:]], 1), stream.coords)
    with torch.no_grad():
        wanted = trunk({"text": told}).x
        state = stepped(trunk, stream.rows(torch.tensor([1])), [12])[1].rows(torch.zeros(4, dtype=torch.long))
        found, state = trunk.step(trunk.embed("text", told.slice(12, 20)), state)
        assert torch.allclose(found.x, wanted[:, 12:20], rtol=0, atol=1e-10)
        last = torch.tensor([3, 3])
        found, _ = trunk.step(trunk.embed("text", told.rows(last).slice(20, LENGTH)), state.rows(last))
    assert torch.allclose(found.x, wanted[last, 20:], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ("slidng", "did you mean 'sliding'"),
        ({"kind": "sliding", "window": 3}, "keeps 3 tokens, and the mask's window shows 5"),
        ({"kind": "full", "window": 3}, "unknown field 'window'"),
    ],
)
def test_caches_that_cannot_be_had(cache, message):
    with pytest.raises(ConfigError, match=message):
        trunk_of(window=5).start(1, LENGTH, cache=cache)
