"""What a trunk costs: its inputs, its position, its blocks, and the norms around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import nn

from sevenfold.assembly.cost import Cost, Passes, cost_of, norm_cost, trained
from sevenfold.assembly.cost.block import block_costs, turns
from sevenfold.assembly.cost.tokens import entering, trunk_tokens

if TYPE_CHECKING:
    from sevenfold.assembly.trunk import Trunk


def trunk_costs(
    trunk: Trunk,
    name: str,
    lengths: Mapping[str, int],
    memory: int = 0,
    masked: bool = False,
    flows: Mapping[str, bool] | None = None,
) -> list[Cost]:
    """One row of the batch through a trunk, part by part; `lengths` are the tokens of each input.

    masked   whether rows have masks of their own: padding, or several documents in a window
    flows    which inputs (and the memory) need a gradient
    """
    flows = flows or {}
    learns = bool(trained(trunk)) or any(flows.values())
    passes = Passes(
        tokens=trunk_tokens(trunk, lengths),
        memory=memory,
        memory_learns=flows.get(trunk.config.cross_attends or "", False),
        masked=masked,
        learns=learns,
        wide=any(not isinstance(embed, nn.Identity) and embed.reads_ids for embed in trunk.embeds.values()),
    )
    side = passes.tokens if trunk.grid is None else trunk.grid[1]
    found = [*_inputs(trunk, name, lengths, flows, passes), _position(trunk, name, passes)]
    if trunk.pair is not None:
        kept = 2 * passes.tokens * int(trunk.config.width)
        found.append(cost_of(f"{name}.pair", "pair", [trunk.pair], trunk.pair.flops(side), learns, learns, kept=kept))
    if trunk.input_norm is not None:
        found.append(norm_cost(f"{name}.input_norm", trunk.input_norm, passes.tokens, learns, passes.wide))
    for index, block in enumerate(trunk.blocks):
        found += block_costs(trunk, block, f"{name}.blocks.{index}", passes, side)
    if trunk.norm is not None:
        found.append(norm_cost(f"{name}.norm", trunk.norm, passes.tokens, learns, passes.wide))
    return found


def _inputs(
    trunk: Trunk, name: str, lengths: Mapping[str, int], flows: Mapping[str, bool], passes: Passes
) -> Iterator[Cost]:
    """How inputs get in: embeddings, what is special about one input, the condition, and the trunk's own tokens."""
    width, learns = int(trunk.config.width), passes.learns
    for given, embed in trunk.embeds.items():
        if isinstance(embed, nn.Identity):
            yield Cost(f"{name}.embeds.{given}", "identity", 0, 0)
            continue
        tokens = max(0, lengths.get(given, 0) - trunk.dropped[given])
        kept = embed.kept(tokens) + (tokens * embed.width_in if given in flows else 0)
        more = {"kept": kept, "scratch": 2 * tokens * width}
        flow = flows.get(given, False)
        yield cost_of(f"{name}.embeds.{given}", embed.kind, [embed], embed.flops(tokens), flow, learns, **more)
    for given, entry in trunk.entries.items():
        kept = entry.kept(entering(trunk, given, lengths))
        yield cost_of(f"{name}.entries.{given}", "entry", [entry], 0, True, learns, kept=kept, wide=passes.wide)
    if (conditioner := trunk.conditioner) is not None:
        flops = conditioner.embed.flops(lengths.get(conditioner.name, 1))
        yield cost_of(f"{name}.condition", conditioner.embed.kind, [conditioner], flops, False, learns)
    own = [*(trunk.marks or {}).values(), *(given for given in (trunk.tokens, trunk.prompts) if given is not None)]
    if own:
        count, learned = sum(p.numel() for p in own), sum(p.numel() for p in own if p.requires_grad)
        yield Cost(f"{name}.tokens", "class and registers", count, 0, learned)


def _position(trunk: Trunk, name: str, passes: Passes) -> Cost:
    """The trunk's position, and those that blocks have of their own."""
    rotated = {
        (block.stands, mixer.rotated) for block in trunk.blocks for mixer in block.mixers if turns(trunk, block, mixer)
    }
    kept = passes.tokens * sum(width or 0 for _, width in rotated)
    kept += passes.tokens * int(trunk.config.width) if trunk.config.dropout else 0
    parts = [trunk.position, trunk.block_positions]
    return cost_of(f"{name}.position", trunk.position.kind, parts, 0, True, passes.learns, kept=kept, wide=True)
