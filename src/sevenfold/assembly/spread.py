"""The tokens of long rows, spread over processes: each carries its part of every row through the blocks.

    rank r of C:  tokens r n/C … (r+1) n/C - 1;   attention asks with these, and of the keys and values of all

What is no mixer looks at one token at a time and needs no other; positions are coordinates, which stay as they are. Keys and
values are sent, not scores: Llama 3, arXiv:2407.21783 section 3.3.2 (all-gather context parallelism). Rows are padded to a
multiple of C.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sevenfold.assembly.block import Block
from sevenfold.core import ranks
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Hidden


def spread(hidden: Hidden) -> Hidden:
    """This process's tokens of what all processes of a row have: `hidden.whole` is that."""
    others = ranks.sequence()
    if others.alone:
        return hidden
    count = hidden.x.shape[1]
    hidden = padded(hidden, -count % others.size)
    each = hidden.x.shape[1] // others.size
    begin = others.rank * each

    def cut(part: Tensor) -> Tensor:
        return part[:, begin : begin + each]

    angles = None if hidden.angles is None else {w: (cut(a), cut(b)) for w, (a, b) in hidden.angles.items()}
    elsewhere = hidden.elsewhere and tuple(
        (None if turned is None else {w: (cut(a), cut(b)) for w, (a, b) in turned.items()}, bias)
        for turned, bias in hidden.elsewhere
    )
    cut_up = hidden.each(cut)._replace(angles=angles, elsewhere=elsewhere, documents=None)
    return cut_up._replace(whole=hidden, begin=begin)


def gathered(x: Tensor, hidden: Hidden) -> Tensor:
    """The tokens of all processes again [b n d], without the padding that `spread` put to those of `hidden`."""
    others = ranks.sequence()
    return x if others.alone else others.all_gather(x, 1)[:, : hidden.x.shape[1]]


def padded(hidden: Hidden, more: int) -> Hidden:
    """With that many tokens of padding at the end of each row."""
    if not more:
        return hidden

    def longer(part: Tensor) -> Tensor:
        return F.pad(part, (*([0, 0] * (part.dim() - 2)), 0, more))

    valid = hidden.valid
    if valid is None:
        valid = torch.ones(hidden.x.shape[:2], dtype=torch.bool, device=hidden.x.device)
    angles = None if hidden.angles is None else {w: (longer(a), longer(b)) for w, (a, b) in hidden.angles.items()}
    elsewhere = hidden.elsewhere and tuple(
        (None if turned is None else {w: (longer(a), longer(b)) for w, (a, b) in turned.items()}, bias)
        for turned, bias in hidden.elsewhere
    )
    return hidden._replace(valid=valid).each(longer)._replace(angles=angles, elsewhere=elsewhere)


def check_spread(model: nn.Module) -> None:
    """ConfigError if a part of the model would have to see tokens that are with other processes."""
    for name, module in model.named_modules():
        if getattr(module, "across", False):
            raise ConfigError(f"parallel.sequence: the norm {name!r} is over a batch: choose layer or rms")
        if isinstance(module, Block):
            for mixer in module.mixers:
                if not mixer.spreads:
                    raise ConfigError(
                        f"parallel.sequence: {mixer.kind!r} in {name!r} cannot have its tokens spread over processes, "
                        "attention can: set parallel.sequence to 1"
                    )
