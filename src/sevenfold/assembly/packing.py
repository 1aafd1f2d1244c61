"""A model for reading only: every dense projection of its blocks, and its heads, kept in fewer bytes; and what that costs.

    perplexity = exp( -1/n sum_i log p(x_i | x_<i) )          over the tokens of windows, without the first of each

Tokens are drawn one by one at the speed at which weights are read: in half the bytes, twice as many. Embedding tables,
positions and norms stay as they are, a tied head has its own packed copy of the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sevenfold.assembly.adapter import fold
from sevenfold.assembly.prompt import drawable
from sevenfold.blocks.projection import Projection
from sevenfold.blocks.projection.packing import Packing
from sevenfold.core import part
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.types import Stream

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model


def pack(model: Model, kind: Packing.Config | str, heads: Packing.Config | str | None = None) -> Model:
    """The same model, packed in place: its projections as `kind` (of the room `packing`, or its Config), its heads as `heads`
    (by default alike). What is no single matrix stays as it is.

    It generates, embeds and answers as before; it cannot be trained or saved any more, and says so. ConfigError for a model
    that is packed already, and for an unknown kind.
    """
    if model.packed is not None:
        raise ConfigError(f"this model is packed already ({model.packed}): load it again to pack it otherwise")
    blocks: Packing.Config = part.decode(Packing.Config, kind, "packing")
    ends: Packing.Config = blocks if heads is None else part.decode(Packing.Config, heads, "packing of heads")
    model.eval().requires_grad_(False)
    fold(model)
    done: dict[int, nn.Module] = {}
    for name, head in model.heads.items():
        given = head.projection.matrix(model.table(name))
        if given is not None:
            head.projection = done[id(head.projection)] = ends.build(*given)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if id(child) not in done and isinstance(child, Projection) and (given := child.matrix()) is not None:
                done[id(child)] = blocks.build(*given)
            if id(child) in done:
                setattr(module, name, done[id(child)])
    model.packed = blocks.kind
    return model


@torch.inference_mode()
def perplexity(model: Model, given: Any, stream: str | None = None, window: int | None = None) -> float:
    """How many tokens a model hesitates between, on average: of one raw item of `stream` (a text), or its ids [n].

    The ids go in windows of `window` (by default the stream's length, or as many as positions reach), each from its beginning.
    DataError for less than two.
    """
    stream, head = drawable(model, stream)
    trunk, modality = model.config.heads[head].trunk, model.modalities[stream]
    raw = isinstance(given, str) or not np.issubdtype(np.asarray(given).dtype, np.integer)
    ids = torch.as_tensor(modality.tokenizer.encode(modality.check(given)).values if raw else np.asarray(given)).long()
    reach = model.trunks[trunk].position.reach
    size = window or min(modality.config.length or 1024, reach or 1024)
    if ids.dim() != 1 or len(ids) < 2 or size < 2:
        raise DataError(f"perplexity: at least two ids in a row are needed, not {list(ids.shape)} in windows of {size}")
    total, count = 0.0, 0
    for part_ids in ids.to(model.device).split(size):
        coords = torch.arange(len(part_ids), device=model.device)[None, :, None]
        x = model({stream: Stream(part_ids[None], coords)})[trunk].of(stream).x[0, :-1]
        for here, wanted in zip(x.split(256), part_ids[1:].split(256)):
            total += float(F.cross_entropy(model.head(head, here).float(), wanted, reduction="sum"))
        count += len(part_ids) - 1
    return float(np.exp(total / max(count, 1)))
