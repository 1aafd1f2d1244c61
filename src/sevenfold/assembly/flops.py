"""Parameters, FLOPs and memory of every part, by formula: what `show`, the planner and utilisation are computed from.

Only products of matrices are counted (2 per multiply-add), as PyTorch's FlopCounterMode does: no norms, no softmax, no
pointwise functions. Attention is counted in full whatever the mask, as the counter does. A product takes as much again for
the gradient of each of its two factors that needs one. `kept` is what autograd keeps for the backward pass, each tensor
once: the stream with the norm that reads it, a part's input with the part. In the line of Korthikanti 2022,
arXiv:2205.05198 section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from sevenfold.assembly.pool import WIDER
from sevenfold.core.cut import Share, sharing

if TYPE_CHECKING:
    from sevenfold.assembly.block import Block
    from sevenfold.assembly.model import Model
    from sevenfold.assembly.trunk import Trunk
    from sevenfold.blocks.mixing import Mixer


class Row(NamedTuple):
    """One part of a model: where and what it is, and what one row of the batch takes in it."""

    place: str
    kind: str
    parameters: int
    flops: int
    """Forward."""
    trained: int = 0
    """Of its parameters, those that learn."""
    backward: int = 0
    """FLOPs of the backward pass."""
    kept: int = 0
    """Numbers kept for the backward pass."""
    wide: bool = False
    """Whether these stay in float32 where products run in bf16."""
    scratch: int = 0
    """Numbers that it needs for a moment, beside what is kept."""
    exact: bool = False
    """Whether these are in float32 where products run in bf16."""
    scored: tuple[int, int] = (0, 0)
    """Bytes in addition where products run in bf16 on a CPU, and of how many rows of the batch at a time."""
    stream: int = 0
    """Of the first row of a block: the numbers that go into the block."""
    outputs: int = 0
    """Of a head: the numbers that it gives."""
    each: int = 0
    """Of a head: those of one place."""
    once: int = 0
    """FLOPs of a forward pass that a batch takes once, however many rows it has."""
    cached: tuple[int, int] = (0, 0)
    """Numbers of state that generation carries, after all of the tokens and after all but one."""
    cut: Share = Share()


class Told(NamedTuple):
    """What the formulas need to know of a trunk's passes: tokens and those of the memory, whether that has a gradient, whether rows have masks of
    their own (padding, several documents in a window), whether gradients are kept, whether the stream stays in float32
    where products run in bf16 (it does where ids are embedded; what a product gives is bf16)."""

    tokens: int
    memory: int
    answers: bool
    masked: bool
    learns: bool
    wide: bool


def parameters(module: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def trained(module: nn.Module) -> int:
    """Number of parameters that learn."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _row(
    place: str, kind: Any, modules: Iterable[nn.Module], flops: int, flows: bool, learns: bool, **more: Any
) -> Row:
    """A row of modules; `flows`: whether what they are given needs a gradient."""
    modules = list(modules)
    counts, own = sum(parameters(module) for module in modules), sum(trained(module) for module in modules)
    if not (own or flows) or not learns:
        more |= {"kept": 0}
    return Row(place, str(kind), counts, flops, own, flops * (bool(own) + flows) if learns else 0, **more)


def trunk_rows(
    trunk: Trunk,
    name: str,
    lengths: Mapping[str, int],
    memory: int = 0,
    masked: bool = False,
    flows: Mapping[str, bool] | None = None,
) -> list[Row]:
    """One row of the batch through a trunk; `lengths` are the tokens of each input.

    masked   whether rows have masks of their own: padding, or several documents in a window
    flows    which inputs (and the memory) need a gradient
    """
    flows, width = flows or {}, int(trunk.config.width)
    learns = bool(trained(trunk)) or any(flows.values())
    wide = any(not isinstance(embed, nn.Identity) and embed.reads_ids for embed in trunk.embeds.values())
    rows, begun = [], any(flows.values()) or bool(trained(trunk))
    for given, embed in trunk.embeds.items():
        tokens = max(0, lengths.get(given, 0) - trunk.dropped[given])
        if isinstance(embed, nn.Identity):
            rows.append(Row(f"{name}.embeds.{given}", "identity", 0, 0))
            continue
        kept = embed.kept(tokens) + (tokens * embed.width_in if given in flows else 0)
        made = 2 * tokens * width
        rows.append(
            _row(
                f"{name}.embeds.{given}", embed.kind, [embed], embed.flops(tokens), flows.get(given, False), learns,
                kept=kept, scratch=made,
            )
        )  # fmt: skip
    for given, entry in trunk.entries.items():
        kept = entry.kept(entering(trunk, given, lengths))
        rows.append(_row(f"{name}.entries.{given}", "entry", [entry], 0, True, learns, kept=kept, wide=wide))
    beside = list((trunk.marks or {}).values())
    if trunk.conditioner is not None:
        told = trunk.conditioner
        flops = told.embed.flops(lengths.get(told.name, 1))
        rows.append(_row(f"{name}.condition", str(told.embed.kind), [told], flops, False, learns))
    beside += [given for given in (trunk.tokens, trunk.prompts) if given is not None]
    if beside:
        numbers = sum(p.numel() for p in beside)
        own = sum(p.numel() for p in beside if p.requires_grad)
        rows.append(Row(f"{name}.tokens", "class and registers", numbers, 0, own))
    tokens = trunk_tokens(trunk, lengths)
    standing = {
        (block.stands, mixer.rotated) for block in trunk.blocks for mixer in block.mixers if turns(trunk, block, mixer)
    }
    noise = tokens * width if trunk.config.dropout else 0
    rows.append(
        _row(
            f"{name}.position", trunk.position.kind, [trunk.position, trunk.block_positions], 0, True, learns,
            kept=noise + sum(tokens * (turned or 0) for _, turned in standing), wide=True,
        )
    )  # fmt: skip
    side = tokens if trunk.grid is None else trunk.grid[1]
    if trunk.pair is not None:
        made = trunk.pair.flops(side)
        rows.append(_row(f"{name}.pair", "pair", [trunk.pair], made, begun, learns, kept=2 * tokens * width))
    if trunk.input_norm is not None:
        rows.append(_normed(f"{name}.input_norm", trunk.input_norm, tokens, learns, wide))
    passes = Told(tokens, memory, flows.get(trunk.config.cross_attends or "", False), masked, learns, wide)
    for index, block in enumerate(trunk.blocks):
        rows += _block(trunk, block, f"{name}.blocks.{index}", passes, side)
    if trunk.norm is not None:
        rows.append(_normed(f"{name}.norm", trunk.norm, tokens, learns, wide))
    return rows


def turns(trunk: Trunk, block: Block, mixer: Mixer) -> bool:
    """Whether the position turns what a mixer of a block compares."""
    return trunk.position_of(block).turns and bool(mixer.rotated)


def _normed(place: str, norm: Any, tokens: int, learns: bool, wide: bool) -> Row:
    given = tokens * norm.width
    return _row(
        place, norm.kind, [norm], norm.flops(tokens), True, learns,
        kept=given + norm.kept(tokens), wide=wide, scratch=2 * given,
    )  # fmt: skip


def _mixer(trunk: Trunk, block: Block, mixer: Mixer, place: str, told: Told) -> Row:
    """How the trunk's own tokens are mixed."""
    tokens, position = told.tokens, trunk.position_of(block)
    attended = mixer.attended(tokens, trunk.grid)
    kept = tokens * int(trunk.config.width) + mixer.kept(tokens, attended)
    if turns(trunk, block, mixer):
        kept += mixer.turned(tokens)
    bias, teaches = 0, bool(trained(position))
    if mixer.heads and position.biased:
        bias = tokens * attended * mixer.heads
        kept += bias * (1 + 2 * teaches)
    elif mixer.heads and told.masked and not mixer.narrow:
        kept += tokens * attended
    cached = (mixer.cached(tokens), mixer.cached(tokens - 1)) if trunk.config.mask.causal and tokens > 1 else (0, 0)
    row = _row(
        place, mixer.kind, [mixer], mixer.apart * mixer.flops(tokens, attended), True, told.learns,
        kept=kept, scratch=mixer.scratch(tokens, attended), cached=cached, once=mixer.flops_once(tokens), exact=mixer.exact, cut=sharing(mixer, tokens, bias=bias * teaches, whole=bias * (1 + 2 * teaches)),
    )  # fmt: skip
    causal = trunk.config.mask.causal and not told.masked
    scored = (0, 0) if position.biased else mixer.scored(tokens, attended, causal)
    return row._replace(backward=row.backward + mixer.again(tokens, attended) * told.learns, scored=scored)


def _block(trunk: Trunk, block: Block, place: str, told: Told, side: int) -> list[Row]:
    """The parts of a block. Its norms stand first: they keep the stream, and every part its own input."""
    tokens, learns, width = told.tokens, told.learns, int(trunk.config.width)
    mixer, cross, feed, noise = block.mixer, block.cross, block.feed, bool(block.config.dropout)
    streams, given = block.residuals[0].streams, tokens * width
    between = sum(norm.kept(tokens) + given * streams for norm in block.norms if norm.acts)
    wider = 0 if streams == 1 else streams + 1 + (streams - 1) * block.config.post_norm  # the branch reads a part of it
    between += sum(part.kept(tokens) + given * (noise + wider) for part in block.residuals)
    around, moment = [*block.norms, *block.residuals], 2 * given * streams
    flops, made = sum(part.flops(tokens) for part in around), {"kept": between, "wide": told.wide, "scratch": moment}
    rows = [_row(f"{place}.norms", block.config.last_norm.kind, around, flops, True, learns, **made)]
    beside = side * side * trunk.config.pair.width if trunk.config.pair else 0
    rows = [rows[0]._replace(stream=given * streams + beside)]
    if block.pair is not None:
        rows += _pair(block, place, told, side)
    if mixer is not None:
        rows.append(_mixer(trunk, block, mixer, f"{place}.mixer", told))
    if cross is not None:
        kept = given + cross.kept(tokens, told.memory)
        read = told.memory * (cross.config.memory_width or width) * told.answers
        rows.append(
            _row(
                f"{place}.cross", cross.kind, [cross], cross.apart * cross.flops(tokens, told.memory), True, learns,
                kept=kept, scratch=cross.scratch(tokens, told.memory), cached=(cross.cached(told.memory),) * 2, cut=sharing(cross, tokens, memory=read),
            )
        )  # fmt: skip
    if feed is not None:
        made = {"kept": given + feed.kept(tokens), "scratch": feed.scratch(tokens)}
        row = _row(f"{place}.feed", feed.kind, [feed], feed.apart * feed.flops(tokens), True, learns, **made)
        rows.append(row._replace(cut=sharing(feed, tokens)))
    return rows


def _pair(block: Block, place: str, told: Told, side: int) -> list[Row]:
    """What a block does to the pair, side × side vectors."""
    pair, rows, learns = block.pair, [], told.learns
    assert pair is not None
    cells = side * side
    parts: list[tuple[str, Any, int, int]] = [
        (str(number), item, item.flops(told.tokens, side), item.kept(told.tokens, side))
        for number, item in enumerate(pair.parts)
    ]
    if pair.feed is not None:
        parts.append(("feed", pair.feed, pair.feed.flops(cells), pair.feed.kept(cells)))
    for name, item, flops, kept in parts:
        given = cells * item.width
        rows.append(
            _row(f"{place}.pair.{name}", item.kind, [item], flops, True, learns, kept=kept + given, scratch=4 * given)
        )
    between = sum(norm.kept(cells) + cells * norm.width for norm in pair.norms.values())
    between += sum(part.kept(cells) for part in pair.residuals)
    around = [pair.norms, pair.residuals]
    rows.append(
        _row(f"{place}.pair.norms", block.config.last_norm.kind, around, 0, True, learns, kept=between, wide=True)
    )
    return rows


def trunk_tokens(trunk: Trunk, lengths: Mapping[str, int]) -> int:
    """Tokens inside a trunk, class and register tokens and prompts included."""
    own = sum(len(given) for given in (trunk.tokens, trunk.prompts) if given is not None)
    return own + sum(entering(trunk, name, lengths) for name in trunk.embeds)


def entering(trunk: Trunk, name: str, lengths: Mapping[str, int]) -> int:
    """Tokens of one input inside a trunk: with its class token, without the class and register tokens that are dropped."""
    tokens = lengths.get(name, 0)
    return tokens + trunk.fronts[name] - trunk.dropped[name] if tokens else 0


def known_tokens(model: Model, lengths: Mapping[str, int]) -> dict[str, int]:
    """Tokens of every stream and trunk, from those of the streams."""
    known = dict(lengths)
    for name, trunk in model.trunks.items():
        known[name] = trunk_tokens(trunk, known)
    return known


def full_lengths(model: Model, otherwise: int = 256) -> dict[str, int]:
    """Tokens of an item of full length in every stream; `otherwise` where a stream knows no length."""
    found = {}
    for name, modality in model.modalities.items():
        layout = modality.tokenizer.layout()
        free = modality.config.length or otherwise
        found[name] = len(layout) if layout is not None else free
    return found


def model_rows(
    model: Model,
    lengths: Mapping[str, int],
    masked: Iterable[str] = (),
    asked: Mapping[str, int] | None = None,
) -> list[Row]:
    """One row of the batch through every trunk and head.

    lengths   stream → tokens
    masked    streams whose rows have masks of their own
    asked     head → how many tokens it is asked about, where these are not all of its stream
    """
    known, rows, shaded = known_tokens(model, lengths), [], set(masked)
    flowing: dict[str, bool] = {}
    for name, trunk in model.trunks.items():
        config, memory = trunk.config, trunk.config.cross_attends or ""
        reads = {given: flowing[given] for given in (*config.inputs, memory) if given in flowing}
        hides = any(given in shaded for given in config.inputs) or trunk.splice is not None
        rows += trunk_rows(trunk, name, known, known.get(memory, 0), hides, reads)
        flowing[name] = bool(trained(trunk)) or any(reads.values())
        shaded |= {name} if hides else set()
    for name, head in model.heads.items():
        config = head.config
        number = 1 if config.pool != "none" else known.get(config.stream or "", known[config.trunk])
        rows.append(head_row(model, name, (asked or {}).get(name, number), flowing[config.trunk]))
    return rows


def head_row(model: Model, name: str, tokens: int, flows: bool = True) -> Row:
    """A head that is asked about so many tokens: it keeps what it is given, its outputs' softmax or their difference from
    what was wanted is kept by the loss."""
    head = model.heads[name]
    width = int(model.config.trunks[head.config.trunk].width) * WIDER.get(head.config.pool, 1)
    flops = 2 * tokens * width * head.outputs + (2 * tokens * width**2 if head.dense is not None else 0)
    given = tokens * width * (4 if head.dense is not None else 1)
    learns = flows or bool(trained(head))
    row = _row(f"heads.{name}", head.config.projection.kind, [head], flops, flows, learns, kept=given)
    if head.config.projection.part.reads_table and learns:
        table: Any = model.trunks[head.config.trunk].embeds[head.config.stream or ""]
        row = row._replace(backward=flops * (bool(table.weight.requires_grad) + flows))
    return row._replace(outputs=tokens * head.outputs, each=head.outputs)


def forward_flops(model: Model, lengths: Mapping[str, int]) -> int:
    """FLOPs of one row of the batch, forward."""
    return sum(row.flops for row in model_rows(model, lengths))
