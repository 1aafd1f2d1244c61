"""An embedding that two trunks have: the table of one stream, read by an earlier trunk, serves another stream too.

    x = E[id]                           one E for what an encoder reads and a decoder writes

Vaswani 2017, arXiv:1706.03762 section 3.4; T5, arXiv:1910.10683; BART. A stream says so by `table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sevenfold.blocks.projection import Projection
from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.modality import Modality


class Shared(nn.Module):
    """forward(ids [b n]) → [b n d], by the embedding of an earlier trunk. Its weight is listed, saved and counted there."""

    kind, reads_ids = "shared", True

    def __init__(self, owner: Projection):
        super().__init__()
        self._owner = (owner,)  # in a tuple it is no submodule of this one
        self.width_in, self.width_out, self.reads_row = owner.width_in, owner.width_out, owner.reads_row

    @property
    def weight(self) -> Tensor:
        return self._owner[0].weight

    def forward(self, x: Tensor, *row: Tensor | None) -> Tensor:
        return self._owner[0](x, *row)

    def flops(self, tokens: int) -> int:
        """As the embedding's."""
        return self._owner[0].flops(tokens)

    def kept(self, tokens: int) -> int:
        """As the embedding's."""
        return self._owner[0].kept(tokens)


def shared(name: str, streams: Mapping[str, Modality], width: int, earlier: Mapping[str, Any]) -> Shared | None:
    """What embeds stream `name` where it has the table of another (`earlier`: the trunks before); None where it has its own."""
    table = streams[name].config.table
    if table is None:
        return None
    place = f"streams.{name}.table"
    trunk = next((trunk for trunk in earlier.values() if table in trunk.config.inputs), None)
    if trunk is None:
        near = did_you_mean(table, streams)
        raise ConfigError(f"{place}: no earlier trunk reads {table!r}, whose embedding it should be{near}")
    if streams[name].config.projection is not None:
        raise ConfigError(f"{place}: the embedding is that of {table!r}: take streams.{name}.projection out")
    own, other = streams[name].tokenizer.size, streams[table].tokenizer.size
    if own is None or own != other:
        told = " and ".join("vectors" if size is None else f"{size} ids" for size in (own, other))
        raise ConfigError(f"{place}: needs the same ids as {table!r}, and they have {told}")
    if trunk.config.width != width:
        raise ConfigError(f"{place}: the embedding of {table!r} has width {trunk.config.width}, and this trunk {width}")
    return Shared(trunk.embeds[table])
