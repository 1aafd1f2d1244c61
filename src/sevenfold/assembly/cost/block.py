"""What the parts of a block cost. Its norms and residuals are one part, the first: they keep the stream, and every other part its input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sevenfold.assembly.cost import Cost, Passes, cost_of, trained
from sevenfold.core.cut import sharing

if TYPE_CHECKING:
    from sevenfold.assembly.block import Block
    from sevenfold.assembly.trunk import Trunk
    from sevenfold.blocks.mixing import Mixer


def block_costs(trunk: Trunk, block: Block, place: str, passes: Passes, side: int) -> list[Cost]:
    """Of each part of a block; the pair representation, where there is one, is side × side vectors."""
    found = [_around(trunk, block, place, passes, side)]
    if block.pair is not None:
        found += _pair(block, place, passes, side)
    if block.mixer is not None:
        found.append(_mixer(trunk, block, block.mixer, f"{place}.mixer", passes))
    if block.cross is not None:
        found.append(_cross(block.cross, f"{place}.cross", passes))
    if block.feed is not None:
        found.append(_feed(block.feed, f"{place}.feed", passes))
    return found


def turns(trunk: Trunk, block: Block, mixer: Mixer) -> bool:
    """Whether the position rotates the queries and keys of a mixer of a block."""
    return trunk.position_of(block).turns and bool(mixer.rotated)


def _around(trunk: Trunk, block: Block, place: str, passes: Passes, side: int) -> Cost:
    """Norms and residuals, with the stream that they keep."""
    tokens, streams = passes.tokens, block.residuals[0].streams
    given = tokens * int(trunk.config.width)
    dropout = bool(block.config.dropout)
    branch = (
        0 if streams == 1 else streams + 1 + (streams - 1) * block.config.post_norm
    )  # the branch reads a part of it
    kept = sum(norm.kept(tokens) + given * streams for norm in block.norms if norm.acts)
    kept += sum(part.kept(tokens) + given * (dropout + branch) for part in block.residuals)
    parts = [*block.norms, *block.residuals]
    pair = side * side * trunk.config.pair.width if trunk.config.pair else 0
    return cost_of(
        f"{place}.norms", block.config.last_norm.kind, parts, sum(part.flops(tokens) for part in parts), True, passes.learns,
        kept=kept, wide=passes.wide, scratch=2 * given * streams, stream=given * streams + pair,
    )  # fmt: skip


def _mixer(trunk: Trunk, block: Block, mixer: Mixer, place: str, passes: Passes) -> Cost:
    """How the trunk's own tokens are mixed."""
    tokens, position = passes.tokens, trunk.position_of(block)
    attended = mixer.attended(tokens, trunk.grid)
    kept = tokens * int(trunk.config.width) + mixer.kept(tokens, attended)
    if turns(trunk, block, mixer):
        kept += mixer.turned(tokens)
    bias, bias_learns = 0, bool(trained(position))
    if mixer.heads and position.biased:
        bias = tokens * attended * mixer.heads
        kept += bias * (1 + 2 * bias_learns)
    elif mixer.heads and passes.masked and not mixer.narrow:
        kept += tokens * attended
    causal = trunk.config.mask.causal
    cost = cost_of(
        place, mixer.kind, [mixer], mixer.slices * mixer.flops(tokens, attended), True, passes.learns,
        kept=kept,
        scratch=mixer.scratch(tokens, attended),
        exact=mixer.exact,
        scored=(0, 0) if position.biased else mixer.scored(tokens, attended, causal and not passes.masked),
        once=mixer.flops_once(tokens),
        cached=(mixer.cached(tokens), mixer.cached(tokens - 1)) if causal and tokens > 1 else (0, 0),
        cut=sharing(mixer, tokens, bias=bias * bias_learns, whole=bias * (1 + 2 * bias_learns)),
    )  # fmt: skip
    return cost._replace(backward=cost.backward + mixer.again(tokens, attended) * passes.learns)


def _cross(cross: Any, place: str, passes: Passes) -> Cost:
    """Cross-attention to the memory."""
    tokens, memory = passes.tokens, passes.memory
    read = memory * (cross.config.memory_width or cross.width) * passes.memory_learns
    return cost_of(
        place, cross.kind, [cross], cross.slices * cross.flops(tokens, memory), True, passes.learns,
        kept=tokens * cross.width + cross.kept(tokens, memory),
        scratch=cross.scratch(tokens, memory),
        cached=(cross.cached(memory),) * 2,
        cut=sharing(cross, tokens, memory=read),
    )  # fmt: skip


def _feed(feed: Any, place: str, passes: Passes) -> Cost:
    """The feed-forward part."""
    tokens = passes.tokens
    return cost_of(
        place, feed.kind, [feed], feed.slices * feed.flops(tokens), True, passes.learns,
        kept=tokens * feed.width + feed.kept(tokens),
        scratch=feed.scratch(tokens),
        cut=sharing(feed, tokens),
    )  # fmt: skip


def _pair(block: Block, place: str, passes: Passes, side: int) -> list[Cost]:
    """What a block does to the pair representation, side × side vectors."""
    pair, cells, learns = block.pair, side * side, passes.learns
    assert pair is not None
    parts: list[tuple[str, Any, int, int]] = [
        (str(number), item, item.flops(passes.tokens, side), item.kept(passes.tokens, side))
        for number, item in enumerate(pair.parts)
    ]
    if pair.feed is not None:
        parts.append(("feed", pair.feed, pair.feed.flops(cells), pair.feed.kept(cells)))
    found = []
    for name, item, flops, kept in parts:
        given = cells * item.width
        more = {"kept": kept + given, "scratch": 4 * given}
        found.append(cost_of(f"{place}.pair.{name}", item.kind, [item], flops, True, learns, **more))
    between = sum(norm.kept(cells) + cells * norm.width for norm in pair.norms.values())
    between += sum(part.kept(cells) for part in pair.residuals)
    around, kind = [pair.norms, pair.residuals], block.config.last_norm.kind
    return [*found, cost_of(f"{place}.pair.norms", kind, around, 0, True, learns, kept=between, wide=True)]
