"""What the checks of mixers are written with: a mixer to look at, and tokens as a trunk would hand them over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import TOKENS, WIDTH, lively
from sevenfold.core.part import find
from sevenfold.core.types import Hidden, Mask

POSITIONS = ("none", "rotary", "alibi")
"""With which a mixer is checked: nothing, turned queries and keys, a bias on scores."""
ROWS, MEMORY = 3, 7


def made(config: Any, dtype: torch.dtype = torch.float64) -> Any:
    """A mixer with lively weights, in evaluation."""
    torch.manual_seed(1)
    return lively(config.build(WIDTH)).to(dtype).eval()


def given(mixer: Any, x: Tensor, position: str = "none", memory: bool = True, **parts: Any) -> Hidden:
    """x [b n d] as a trunk would hand it over."""
    coords = parts.pop("coords", None)
    if coords is None:
        coords = torch.arange(x.shape[1])[None, :, None].expand(len(x), -1, -1)
    scheme = find("position", position).Config().build(WIDTH, 1)
    angles = None if mixer.rotated is None else scheme.angles(coords, mixer.rotated)
    hidden = Hidden(x, coords, angles=None if angles is None else {mixer.rotated: angles}, **parts)
    if mixer.crosses and memory:
        hidden = hidden._replace(memory=remembered(mixer, len(x), x.dtype))
    return hidden._replace(bias=scheme.bias if scheme.biased else None)


def remembered(mixer: Any, rows: int, dtype: torch.dtype) -> Hidden:
    """A memory for cross mixers; the last tokens of every second row are padding."""
    width = getattr(mixer.config, "memory_width", None) or WIDTH
    valid = torch.ones(rows, MEMORY, dtype=torch.bool)
    valid[1::2, -3:] = False
    generator = torch.Generator().manual_seed(2)
    return Hidden(torch.randn(rows, MEMORY, width, generator=generator, dtype=dtype), valid=valid)


def noise(rows: int = ROWS, tokens: int = TOKENS, dtype: torch.dtype = torch.float64) -> Tensor:
    """Tokens."""
    return torch.randn(rows, tokens, WIDTH, dtype=dtype)


def masks(mixer: Any, causal: bool | None = None) -> list[Mask]:
    """The masks that a mixer must be able to follow."""
    found = [Mask(causal=True)] if causal is not False else []
    if causal is not True and mixer.bidirectional:
        found.append(Mask())
    if "window" in mixer.heeds:
        found += [mask._replace(window=3) for mask in found]
    return found


def dependence(mixer: Any, position: str, mask: Mask, **parts: Any) -> Tensor:
    """[n n]: whether token i of the output depends on token j of the input (by gradient, of one row)."""
    x = noise(rows=1).requires_grad_()
    y = mixer(given(mixer, x, position, **parts), mask)
    rows = [
        torch.autograd.grad((y[0, i] * torch.randn(WIDTH)).sum(), x, retain_graph=True)[0][0] for i in range(TOKENS)
    ]
    return torch.stack(rows).ne(0).any(-1)


def stepped(mixer: Any, whole: Hidden, sizes: list[int], mask: Mask) -> tuple[list[Tensor], Any]:
    """The outputs of stepping through a Hidden in pieces, and the last state."""
    state, found, start = mixer.start(len(whole.x), TOKENS, whole.x), [], 0
    for size in sizes:
        y, state = mixer.step(cut(whole, start, start + size), state, mask)
        found.append(y)
        start += size
    return found, state


def cut(hidden: Hidden, start: int, stop: int) -> Hidden:
    """Tokens start … stop."""
    angles = None
    if hidden.angles is not None:
        angles = {width: (c[:, start:stop], s[:, start:stop]) for width, (c, s) in hidden.angles.items()}
    return hidden.each(lambda part: part[:, start:stop])._replace(angles=angles)
