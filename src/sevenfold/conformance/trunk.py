"""What a whole trunk must do, for one mixer with one position: used by the checks of both rooms."""

from __future__ import annotations

import math
from typing import Any

import torch
from safetensors.torch import load, save

from sevenfold.assembly.block import Block
from sevenfold.assembly.mask import MaskConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.trunk import Trunk
from sevenfold.blocks.projection.packing import Packing
from sevenfold.conformance._kit import TOKENS, WIDTH, compiled, expect, near
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.types import Stream
from sevenfold.objective.next_token import NextToken


def check(mixer: Any, position: Any, compiles: bool = True) -> None:
    """Everything below, compiled too if asked for, which takes ten times as long as the rest. ConfigError where the two do not
    go together."""
    objective = made(mixer, position)
    model, stream = objective.model, tokens(objective.model)
    batch = dict.fromkeys(model.modalities, stream)
    what = f"a trunk of {mixer.kind!r} with {position.kind!r}"
    loss = float(objective(batch).mean.detach())
    ids = model.modalities["text"].tokenizer.size or 1
    expect(
        abs(loss - math.log(ids)) < 0.1, f"{what} starts at {loss:.3f} nats, not near log {ids} = {math.log(ids):.3f}"
    )
    saves_and_loads(objective, made(mixer, position), batch, what)
    trunk: Any = model.trunks["lm"]
    memory = model(batch).get("memory")
    earlier = {} if memory is None else {"memory": memory}
    if compiles:
        near(compiled(trunk)(batch, earlier).x, trunk(batch, earlier).x, f"{what}, compiled")
    packs(made(mixer, position).model, model, batch, what)
    steps(model.double(), batch, what)


def made(mixer: Any, position: Any) -> NextToken:
    """Next-token prediction on bytes with a small causal trunk of two blocks (and an earlier one, for cross mixers)."""
    torch.manual_seed(1)
    block = Block.Config(cross=mixer) if mixer.part.crosses else Block.Config(mixer=mixer)
    causal = MaskConfig(causal=True)
    settings: dict[str, Any] = {"width": WIDTH, "depth": 2, "position": position, "mask": causal}
    trunks = {"lm": Trunk.Config(inputs=("text",), block=block, **settings)}
    streams: dict[str, Any] = {"text": decode(find("modality", "text").Config, {"length": TOKENS})}
    if mixer.part.crosses:
        streams["other"] = streams["text"]
        memory = Trunk.Config(inputs=("other",), width=24, depth=1)
        trunks = {"memory": memory, "lm": trunks["lm"].replace(cross_attends="memory")}
    modalities = {name: config.build() for name, config in streams.items()}
    config = NextToken.Config(trunk="lm")
    model = ModelConfig(streams=streams, trunks=trunks)
    model = model.replace(heads=NextToken.heads(config, model, {}))
    return NextToken(config, Model(model, modalities)).eval()


def tokens(model: Model) -> Stream:
    """Random ids, the last row padded at the end."""
    ids = torch.randint(model.modalities["text"].tokenizer.size or 1, (16, TOKENS))
    valid = torch.ones(16, TOKENS, dtype=torch.bool)
    valid[-1, -4:] = False
    return Stream(ids, torch.arange(TOKENS)[None, :, None].expand(16, -1, -1), valid)


def saves_and_loads(objective: NextToken, other: NextToken, batch: Any, what: str) -> None:
    """Weights that went through a file give the same output, bit for bit."""
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    other.load_state_dict(load(save(state)))
    expect(torch.equal(objective(batch).total, other(batch).total), f"{what} differs after saving and loading")


@torch.no_grad()
def packs(model: Model, same: Model, batch: Any, what: str) -> None:
    """Packed for reading only, its projections give what they gave."""
    model.load_state_dict(same.state_dict())
    wanted, _ = model(batch)["lm"].x, model.quantize("float32")
    expect(any(isinstance(module, Packing) for module in model.trunks["lm"].blocks.modules()), f"{what} packs nothing")
    near(model(batch)["lm"].x, wanted, f"{what}, packed", within=1e-4)


@torch.no_grad()
def steps(model: Model, batch: Any, what: str) -> None:
    """A trunk that steps through a sequence gives what one pass gives, in float64."""
    trunk: Any = model.trunks["lm"]
    done = model(batch)
    wanted, memory = done["lm"].x, done.get("memory")
    state, found, start = trunk.start(len(wanted), TOKENS), [], 0
    for size in (5, 1, TOKENS - 6):
        piece = trunk.embed("text", batch["text"].slice(start, start + size))
        hidden, state = trunk.step(piece, state, memory)
        found.append(hidden.x)
        start += size
    valid = batch["text"].valid
    near(torch.cat(found, 1)[valid], wanted[valid], f"{what}, step by step")
    goes_on(trunk, batch["text"], memory, wanted, what)


def goes_on(trunk: Any, text: Stream, memory: Any, wanted: Any, what: str) -> None:
    """A state that was copied, of which rows were taken, or that took tokens back, goes on as forward does."""
    index, cut = torch.tensor([3, 0, 3]), TOKENS - 4

    def step(state: Any, rows: Any, start: int, stop: int) -> Any:
        piece = trunk.embed("text", text.rows(rows).slice(start, stop))
        told = memory if memory is None else memory.each(lambda part: part[rows])
        hidden, state = trunk.step(piece, state, told)
        return hidden.x, state

    every = slice(None)
    state = step(trunk.start(len(wanted), TOKENS), every, 0, cut - 2)[1]
    kept, chosen = state.copy(), state.rows(index)
    wrong = step(state, torch.arange(len(wanted)).flip(0), cut - 2, cut)[1].rewind(2)
    for name, after, rows in (("copy", kept, every), ("rows", chosen, index), ("rewind", wrong, every)):
        if after is not None:
            found = step(after, rows, cut - 2, cut)[0]
            near(found, wanted[rows, cut - 2 : cut], f"{what}, after {name}")


def one_line(error: ConfigError) -> None:
    """A refusal is one line."""
    expect("\n" not in str(error) and str(error), f"a refusal of more than one line: {error}")
