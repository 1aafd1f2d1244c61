"""What the checks of mixers are written with: a mixer to look at, and tokens as a trunk would hand them over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import TOKENS, WIDTH, Skipped, lively
from sevenfold.core.part import find
from sevenfold.core.types import Hidden, Mask

POSITIONS = ("none", "rotary", "alibi")
"""With which a mixer is checked: nothing, turned queries and keys, a bias on scores."""
ROWS, MEMORY = 3, 7


def made(config: Any, dtype: torch.dtype = torch.float64) -> Any:
    """A mixer with lively weights, in evaluation."""
    torch.manual_seed(1)
    return lively(config.build(WIDTH)).to(dtype).eval()


def continuing(config: Any) -> Any:
    """A mixer that works under a causal mask; skipped otherwise."""
    mixer = made(config)
    if not mixer.continues:
        raise Skipped("works without a causal mask only")
    return mixer


def given(mixer: Any, x: Tensor, position: str = "none", memory: bool = True, **parts: Any) -> Hidden:
    """x [b n d] as a trunk would hand it over, with what the mixer needs: frames, streams, a grid, a pair."""
    coords = parts.pop("coords", None)
    if coords is None:
        coords = torch.arange(x.shape[1])[None, :, None].expand(len(x), -1, -1)
    scheme = find("position", position).Config().build(WIDTH, 1)
    angles = None if mixer.rotated is None else scheme.angles(coords, mixer.rotated)
    hidden = Hidden(x, coords, angles=None if angles is None else {mixer.rotated: angles}, **parts)
    if mixer.crosses and memory:
        hidden = hidden._replace(memory=remembered(mixer, len(x), x.dtype))
    hidden = hidden._replace(bias=scheme.bias if scheme.biased else None)
    return beside(mixer, hidden)


def beside(mixer: Any, hidden: Hidden) -> Hidden:
    """With what some mixers need beside tokens, the same for each row."""
    (rows, n), like, generator = hidden.x.shape[:2], hidden.x, torch.Generator().manual_seed(3)
    if "streams" in mixer.needs:
        hidden = hidden._replace(streams=torch.arange(n).expand(rows, -1) % 2)
    if "frames" in mixer.needs:
        axes = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator, dtype=torch.float64))[0]
        origin = 5 * torch.randn(n, 1, 3, generator=generator, dtype=torch.float64)
        frames = torch.cat([axes * torch.linalg.det(axes)[:, None, None], origin], 1)
        hidden = hidden._replace(frames=frames.to(like).expand(rows, -1, -1, -1))
    if "grid" in mixer.needs:
        height = max(height for height in range(1, n + 1) if n % height == 0 and height**2 <= n)
        hidden = hidden._replace(grid=(height, n // height))
    width = getattr(mixer.config, "pair_width", None)
    if "pair" in mixer.needs or mixer.pairs or width:
        side = n if hidden.grid is None else hidden.grid[1]
        pair = torch.randn(side, side, width or WIDTH, generator=generator, dtype=torch.float64)
        hidden = hidden._replace(pair=pair.to(like).expand(rows, -1, -1, -1).contiguous())
    return hidden


def side(mixer: Any, hidden: Hidden) -> int:
    """How many tokens each attends to, which the formulas are asked with."""
    if mixer.crosses:
        return MEMORY
    return int(mixer.attended(hidden.x.shape[1], hidden.grid))


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
    found = [Mask(causal=True)] if causal is not False and mixer.continues else []
    if causal is not True and mixer.bidirectional:
        found.append(Mask())
    if "window" in mixer.heeds:
        found += [mask._replace(window=3) for mask in found]
    return found


def dependence(mixer: Any, position: str, mask: Mask, **parts: Any) -> Tensor:
    """[n n]: whether token i of the output depends on token j of the input (by gradient, of one row). A gradient of less
    than 1e-13 of the largest is none: a Fourier transform rounds, and everything in it then touches everything."""
    x = noise(rows=1).requires_grad_()
    y = mixer(given(mixer, x, position, **parts), mask)
    rows = [
        torch.autograd.grad((y[0, i] * torch.randn(WIDTH)).sum(), x, retain_graph=True)[0][0] for i in range(TOKENS)
    ]
    size = torch.stack(rows).abs().amax(-1)
    return size > 1e-13 * size.amax()


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
    pair = None if hidden.pair is None else hidden.pair[:, start:stop, start:stop]
    return hidden.each(lambda part: part[:, start:stop])._replace(angles=angles, pair=pair)


def picked(hidden: Hidden, index: Tensor) -> Hidden:
    """The rows at `index`, and of what belongs to them."""
    angles = hidden.angles
    if angles is not None:
        every = (len(hidden.x), -1, -1)
        angles = {w: (cos.expand(every)[index], sin.expand(every)[index]) for w, (cos, sin) in angles.items()}
    pair = None if hidden.pair is None else hidden.pair[index]
    memory = None if hidden.memory is None else hidden.memory.each(lambda part: part[index])
    return hidden.each(lambda part: part[index])._replace(angles=angles, pair=pair, memory=memory)


def alone(hidden: Hidden, row: int, start: int, stop: int) -> Hidden:
    """Tokens start … stop of one row by themselves: nothing is padding, and there is one segment."""
    one = hidden.each(lambda part: part[row : row + 1])
    if hidden.angles is not None:
        one = one._replace(angles={w: (c[row : row + 1], s[row : row + 1]) for w, (c, s) in hidden.angles.items()})
    if hidden.pair is not None:
        one = one._replace(pair=hidden.pair[row : row + 1])
    if hidden.memory is not None:
        memory = hidden.memory
        one = one._replace(memory=Hidden(memory.x[row : row + 1, memory.valid[row]]))
    return cut(one, start, stop)._replace(valid=None, segments=None)
