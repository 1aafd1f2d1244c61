"""Parameters and FLOPs of every part, by formula: what `show` prints, what utilisation is computed from.

Only products of matrices are counted (2 per multiply-add), as PyTorch's FlopCounterMode does: no norms, no softmax, no
pointwise functions. Attention is counted in full whatever the mask, as the counter does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model
    from sevenfold.assembly.trunk import Trunk


class Row(NamedTuple):
    """One part of a model: where it is, what it is, its parameters, and the FLOPs of one row through it."""

    place: str
    kind: str
    parameters: int
    flops: int


def parameters(module: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def trunk_rows(trunk: Trunk, name: str, lengths: Mapping[str, int], memory: int = 0) -> list[Row]:
    """One row of the batch through a trunk; `lengths` are the tokens of each input."""
    rows = []
    extra = 0 if trunk.tokens is None else len(trunk.tokens)
    for given, embed in trunk.embeds.items():
        tokens = lengths.get(given, 0)
        kind, flops = ("identity", 0) if isinstance(embed, nn.Identity) else (str(embed.kind), embed.flops(tokens))
        rows.append(Row(f"{name}.embeds.{given}", kind, parameters(embed), flops))
    beside = sum(p.numel() for p in (trunk.marks or {}).values())
    if extra or beside:
        beside += 0 if trunk.tokens is None else trunk.tokens.numel()
        rows.append(Row(f"{name}.tokens", "class and registers", beside, 0))
    rows.append(Row(f"{name}.position", str(trunk.position.kind), parameters(trunk.position), 0))
    tokens = extra + sum(lengths.get(given, 0) for given in trunk.embeds)
    for index, block in enumerate(trunk.blocks):
        place, mixer, cross, feed = f"{name}.blocks.{index}", block.mixer, block.cross, block.feed
        rows.append(Row(f"{place}.mixer", str(mixer.kind), parameters(mixer), mixer.flops(tokens, tokens)))
        if cross is not None:
            rows.append(Row(f"{place}.cross", str(cross.kind), parameters(cross), cross.flops(tokens, memory)))
        if feed is not None:
            rows.append(Row(f"{place}.feed", str(feed.kind), parameters(feed), feed.flops(tokens)))
        around = parameters(block.norms) + parameters(block.residuals)
        rows.append(Row(f"{place}.norms", str(block.norms[0].kind), around, 0))
    for place, norm in (("input_norm", trunk.input_norm), ("norm", trunk.norm)):
        if norm is not None:
            rows.append(Row(f"{name}.{place}", str(norm.kind), parameters(norm), 0))
    return rows


def trunk_tokens(trunk: Trunk, lengths: Mapping[str, int]) -> int:
    """Tokens inside a trunk, class and register tokens included."""
    return (0 if trunk.tokens is None else len(trunk.tokens)) + sum(lengths.get(given, 0) for given in trunk.embeds)


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
        found[name] = len(layout) if layout is not None else 1 if modality.tokenizer.axes == 0 else free
    return found


def model_rows(model: Model, lengths: Mapping[str, int]) -> list[Row]:
    """One row of the batch through every trunk and head. `lengths`: stream → tokens."""
    known, rows = known_tokens(model, lengths), []
    for name, trunk in model.trunks.items():
        memory = known.get(trunk.config.cross_attends or "", 0)
        rows += trunk_rows(trunk, name, known, memory)
    for name, head in model.heads.items():
        width = model.config.trunks[head.config.trunk].width
        if head.config.pool != "none":
            tokens = 1
        else:
            tokens = known.get(head.config.stream or "", known[head.config.trunk])
        flops = 2 * tokens * width * head.outputs + (2 * tokens * width**2 if head.dense is not None else 0)
        rows.append(Row(f"heads.{name}", head.config.projection.kind, parameters(head), flops))
    return rows


def forward_flops(model: Model, lengths: Mapping[str, int]) -> int:
    """FLOPs of one row of the batch, forward."""
    return sum(row.flops for row in model_rows(model, lengths))
