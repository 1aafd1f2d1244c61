"""Pieces of a trunk's input: joining what belongs together along the token axis, and moving tokens within a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sevenfold.assembly.connector import Connector
from sevenfold.assembly.pool import extras_of
from sevenfold.blocks.projection import Projection
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden, take
from sevenfold.modality import Modality


def joined(pieces: Sequence[Hidden], coords: bool = True) -> Hidden:
    """Pieces one after the other along the token axis, spans counted on. `coords=False`: without coordinates."""
    spans, start = {}, 0
    for piece in pieces:
        for name, (a, b) in (piece.spans or {}).items():
            spans[name] = (start + a, start + b)
        start += piece.x.shape[1]
    if len(pieces) == 1:
        return pieces[0]
    places = [piece.coords for piece in pieces if piece.coords is not None] if coords else []
    floating = any(place.is_floating_point() for place in places)
    return Hidden(
        torch.cat([piece.x for piece in pieces], 1),
        torch.cat([place.float() if floating else place for place in places], 1) if places else None,
        _whole([piece.valid for piece in pieces], pieces, True, torch.bool),
        _whole([piece.segments for piece in pieces], pieces, 0, torch.long),
        spans,
        frames=_whole([piece.frames for piece in pieces], pieces, 0, torch.float32, (4, 3)),
        streams=_whole([piece.streams for piece in pieces], pieces, -1, torch.long),
        places=_whole([piece.places for piece in pieces], pieces, 0, torch.long),
    )


def _whole(
    parts: Sequence[Tensor | None], pieces: Sequence[Hidden], fill: Any, dtype: Any, shape: tuple[int, ...] = ()
) -> Tensor | None:
    if all(part is None for part in parts):
        return None
    return torch.cat(
        [
            torch.full((*piece.x.shape[:2], *shape), fill, dtype=dtype, device=piece.x.device) if part is None else part
            for part, piece in zip(parts, pieces)
        ],
        1,
    )


def body(hidden: Hidden) -> Hidden:
    """The tokens of a trunk without its class and register tokens; a stream's tokens as they are."""
    start = extras_of(hidden)
    return hidden.each(lambda part: part[:, start:])._replace(spans=None) if start else hidden


def unprompted(hidden: Hidden) -> Hidden:
    """The tokens of a trunk without an adapter's prompts in front, if it has any."""
    count = (hidden.spans or {}).get("prompts", (0, 0))[1]
    if not count:
        return hidden
    spans = {name: (a - count, b - count) for name, (a, b) in (hidden.spans or {}).items() if name != "prompts"}
    return hidden.each(lambda part: part[:, count:])._replace(spans=spans)


def reading_order(hidden: Hidden, padding_first: bool = False) -> Tensor:
    """[b n]: each row's tokens in the order in which they are read, padding behind (or before) them."""
    x, valid = hidden.x, hidden.valid
    if hidden.places is None:
        order = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    else:
        order = hidden.places.argsort(dim=1, stable=True)
    if valid is None:
        return order
    there = take(valid, order)
    return take(order, (there if padding_first else ~there).byte().argsort(dim=1, stable=True))


def numbered(hidden: Hidden) -> Tensor:
    """[b n]: how many valid tokens of its row are read before each token."""
    x, valid = hidden.x, hidden.valid
    if valid is None and hidden.places is None:
        return torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    if hidden.places is None:
        return (valid.long().cumsum(1) - 1).clamp(min=0)  # type: ignore[union-attr]
    order = reading_order(hidden)
    there = torch.ones_like(order) if valid is None else take(valid, order).long()
    return take((there.cumsum(1) - 1).clamp(min=0), order.argsort(1))


def preceding(hidden: Hidden) -> tuple[Tensor, Tensor]:
    """([b n] where the token stands that is read before each one, [b n] bool: whether there is one, and it is valid)."""
    order = reading_order(hidden)
    before, back = order.roll(1, 1), order.argsort(1)
    known = back > 0
    place = take(before, back)
    return place, known if hidden.valid is None else known & take(hidden.valid, place)


def moved(hidden: Hidden, order: Tensor) -> Hidden:
    """The tokens in the order [b n] in which they are read; spans are lost."""
    placed = hidden.each(lambda part: take(part, order))
    return placed._replace(spans=None, places=None, pair=pair_in_order(hidden.pair, order))


def pair_in_order(pair: Tensor | None, order: Tensor) -> Tensor | None:
    """A pair [b n n p] of tokens in another order [b n]."""
    if pair is None:
        return None
    rows = torch.arange(len(order), device=order.device)[:, None, None]
    return pair[rows, order[:, :, None], order[:, None, :]]


def placed(coords: Tensor, columns: Sequence[int], axes: int) -> Tensor:
    """coords [b n c] with its columns at `columns` of a trunk's axes → [b n axes], 0 on the others."""
    if list(columns) == list(range(axes)):
        return coords
    found = coords.new_zeros(*coords.shape[:2], axes)
    for own, column in enumerate(columns):
        found[..., column] = coords[..., own]
    return found


def streams_in(hidden: Hidden) -> list[str]:
    """The streams (and earlier trunks) that a Hidden is made of, in their order."""
    return [name for name in hidden.spans or {} if name not in ("class", "registers", "prompts")]


def extent(modality: Modality) -> int | None:
    """The most tokens of an item on the longest of its axes (one more than its largest coordinate), if that is fixed."""
    reach = modality.tokenizer.reach()
    if reach is not None:
        return reach
    return modality.config.length if modality.tokenizer.axes == 1 else None


def longest(config: Any, streams: Mapping[str, Modality], earlier: Mapping[str, Any]) -> int | None:
    """The most tokens of a trunk's input, class and register tokens included, if that is fixed."""
    total = int(config.class_token) + config.registers
    for name in config.inputs:
        if name in streams:
            grid = streams[name].tokenizer.layout()
            tokens = streams[name].config.length if grid is None else len(grid)
        else:
            tokens = earlier[name].longest
        if tokens is None:
            return None
        total += tokens + front_of(config, name) - dropped_of(config, name, earlier)
    return total


def front_of(config: Any, name: str) -> int:
    """How many class tokens of its own an input has (see Entry)."""
    return int(name in config.entries and config.entries[name].class_token)


def dropped_of(config: Any, name: str, earlier: Mapping[str, Any]) -> int:
    """How many class and register tokens of an earlier trunk do not come along into this one."""
    if name not in earlier or name not in config.entries or config.entries[name].extras:
        return 0
    return int(earlier[name].config.class_token) + int(earlier[name].config.registers)


def trunk_axes(config: Any, streams: Mapping[str, Modality], earlier: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The distinct axis names of a trunk's inputs, in order of appearance."""
    names: dict[str, None] = {}
    for name in config.inputs:
        names |= dict.fromkeys(streams[name].axis_names if name in streams else earlier[name])
    return tuple(names)


def projection_of(name: str, modality: Modality) -> Any:
    """The config of the projection that takes a modality's tokens to the model's width."""
    ids, given = modality.tokenizer.size is not None, modality.config.projection
    if given is None:
        return part.find("projection", "embedding" if ids else "patch_embed").Config()
    if given.part.reads_ids != ids or given.part.reads_table:
        has = "ids: choose embedding" if ids else "vectors: choose patch_embed"
        raise ConfigError(f"streams.{name}.projection: {given.kind!r} does not fit tokens that are {has}")
    if "mask_id" in type(given).model_fields and given.mask_id is None:
        if "mask" not in modality.tokenizer.specials:
            tokenizer = modality.tokenizer.kind
            raise ConfigError(
                f"streams.{name}.projection: {given.kind!r} needs a mask token, and {tokenizer!r} has none"
            )
        given = given.replace(mask_id=modality.tokenizer.specials["mask"])
    return given


def embedding_of(name: str, modality: Modality, width: int) -> Projection:
    """What takes a modality's tokens to a width, begun from what ids stand for where the tokenizer knows it."""
    embed: Projection = projection_of(name, modality).build(
        modality.tokenizer.size or modality.tokenizer.features, width
    )
    vectors = modality.tokenizer.vectors()
    if vectors is not None:
        embed.start_from(torch.from_numpy(vectors))
    return embed


def embedded(embed: nn.Module, x: Tensor, valid: Tensor | None, segments: Tensor | None) -> Tensor:
    """Tokens [b n …] → [b n d], by what is made for them; some of these look at the row."""
    return embed(x, valid, segments) if getattr(embed, "reads_row", False) else embed(x)


def bridge(width_in: int, width_out: int, connector: Any = None) -> Connector | nn.Identity:
    """What takes the vectors of an earlier trunk to this one's width: the connector, if one is named."""
    if connector is None and width_in == width_out:
        return nn.Identity()
    return (connector or part.find("connector", "linear").Config()).build(width_in, width_out)


def check_reach(config: Any, position: Any, streams: Mapping[str, Modality], longest: int | None) -> None:
    """ConfigError where tokens can stand outside of what a position reaches."""
    found = {name: extent(streams[name]) for name in config.inputs if name in streams}
    if config.index:
        found = {" + ".join(config.inputs): longest}
    for name, tokens in found.items():
        if position.reach is not None and tokens is not None and tokens > position.reach:
            raise ConfigError(
                f"position: {position.kind!r} reaches {position.reach} places, and {name} has up to {tokens}: "
                f"raise position.size to {tokens}, or cut the items (streams.….length)"
            )
