"""Caches: how the keys and values of earlier tokens are kept while a sequence is continued.

The contract of this room. A mixer that keeps keys and values (`Mixer.caches`) has one from `start` on (`cache_of`), and hands
it each step's keys and values, side by side; it gets back all that its queries may look at. A cache forgets only what the mask's window
hides anyway. A part says how many slots it has (`slots`), which slot a place goes to, and in what form a vector is kept
(`encode`, `decode`); padding, segments and coordinates of the tokens, where there are any, are kept beside by the same
rule. Chosen at use, never in a recipe: `Trunk.start(…, cache="quantised")`.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sevenfold.core import part
from sevenfold.core.types import Hidden, Mask


class Kept(NamedTuple):
    """What a cache has kept: the encoded `vectors`, each tensor [b 2kv slots …], keys before values, and of the tokens
    [b slots …] `coords`, `valid` and `segments`, None where no step had any; of `used` tokens so far, at most `length`."""

    cache: Cache
    length: int
    used: int = 0
    vectors: tuple[Tensor, ...] | None = None
    coords: Tensor | None = None
    valid: Tensor | None = None
    segments: Tensor | None = None


class Read(NamedTuple):
    """What the queries of a step may look at, m tokens: k, v [b kv m d_h]; coords, valid, segments [b m …] or None."""

    k: Tensor
    v: Tensor
    coords: Tensor | None
    valid: Tensor | None
    segments: Tensor | None


class Cache(part.Part):
    """Straight by default: the slot of a token is its place, and vectors are kept as they are. `window` is the mask's."""

    room = "cache"

    class Config(part.Config):
        pass

    error: ClassVar[float] = 0.0
    """By how much a number that is read may differ from what was given, as a share of the largest of its vector."""

    def __init__(self, config: Any, window: int | None = None):
        self.config, self.window = config, window

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), self.window))

    def start(self, length: int) -> Kept:
        """Nothing kept yet, of at most `length` tokens. Memory is taken in the first step, in its dtype."""
        return Kept(self, length)

    def slots(self, length: int) -> int:
        """For how many tokens there is room."""
        return length

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Vectors [b 2kv k d_h] in the form in which they are kept, each tensor [b 2kv k …]."""
        return (x,)

    def decode(self, kept: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
        """Vectors [b 2kv m d_h] again."""
        return kept[0] if kept[0].dtype == dtype else kept[0].to(dtype)

    def places(self, old: int, new: int, device: Any) -> Tensor:
        """[m] the place of each token that is read in the step from `old` to `new`."""
        return torch.arange(new, device=device)

    def put(self, whole: Tensor, part: Tensor, old: int, new: int, dim: int) -> Tensor:
        """Write the tokens from `old` to `new` into `whole`, and give those that the step reads; tokens along `dim`."""
        whole.narrow(dim, old, new - old).copy_(part)
        return whole.narrow(dim, 0, new)

    def add(self, kept: Kept, both: Tensor, hidden: Hidden) -> tuple[Read, Kept]:
        """The next tokens' keys and values side by side, [b 2kv k d_h]; `kept` is used up."""
        old, new = kept.used, kept.used + both.shape[2]
        if new > kept.length:
            raise ValueError(f"the cache holds {kept.length} tokens, and {new} were given")
        slots, rows, coded = self.slots(kept.length), len(both), self.encode(both)
        vectors = kept.vectors
        if vectors is None:
            vectors = tuple(c.new_zeros(*c.shape[:2], slots, *c.shape[3:]) for c in coded)
        shown = tuple([self.put(one, c, old, new, 2) for one, c in zip(vectors, coded)])
        k, v = self.decode(shown, both.dtype).chunk(2, 1)

        def marks(whole: Tensor | None, here: Tensor | None, blank: int) -> tuple[Tensor | None, Tensor | None]:
            if whole is None:
                if here is None:
                    return None, None
                whole = here.new_full((rows, slots, *here.shape[2:]), blank)
            shape = (rows, new - old, *whole.shape[2:])
            told = whole.new_full(shape, blank) if here is None else here.to(whole.dtype).expand(shape)
            return self.put(whole, told, old, new, 1), whole

        read_coords, coords = marks(kept.coords, hidden.coords if hidden.bias is not None else None, 0)
        read_valid, valid = marks(kept.valid, hidden.valid, True)
        read_segments, segments = marks(kept.segments, hidden.segments, 0)
        read = Read(k, v, read_coords, read_valid, read_segments)
        return read, Kept(self, kept.length, new, vectors, coords, valid, segments)

    def rewind(self, kept: Kept, count: int) -> Kept | None:
        """As before the last `count` tokens, or None where what was there is forgotten; `kept` is used up."""
        if count > kept.used:
            raise ValueError(f"the cache has {kept.used} tokens, and {count} are to be taken back")
        return kept._replace(used=kept.used - count)

    def seen(self, read: Read, kept: Kept, hidden: Hidden, mask: Mask) -> Tensor | None:
        """Which of what was read the step's queries may look at, [b or 1, 1, k, m] bool; None: all. A token sees itself."""
        new, count = kept.used, hidden.x.shape[1]
        m, device = read.k.shape[2], hidden.x.device
        plain = read.valid is None and read.segments is None
        if count == 1 and (mask.window is None or m <= mask.window):
            if plain:
                return None
            near = torch.ones(1, 1, m, dtype=torch.bool, device=device)
        else:
            place = self.places(new - count, new, device)
            asks = place[-count:] if count > 1 else torch.full_like(place[:1], new - 1)
            distance = asks[:, None] - place
            near = (distance >= 0)[None]
            if mask.window is not None:
                near = near & (distance < mask.window)
            if mask.prefix is not None:
                head = mask.prefix[:, None, None]
                near = near | ((asks[:, None] < head) & (place < head))
            if plain:
                return near[:, None]
        if read.valid is not None:
            near = near & read.valid[:, None]
        if read.segments is not None and hidden.segments is None:
            near = near & (read.segments == 0)[:, None]
        elif read.segments is not None and hidden.segments is not None:
            near = near & (hidden.segments[:, :, None] == read.segments[:, None])
        if count > 1:
            near = near | (distance == 0)[None]
        elif hidden.valid is not None:
            near = near | (self.places(new - 1, new, device) == new - 1)
        return near[:, None]


def cache_of(cache: Cache.Config | str | None, window: int | None, length: int) -> Cache:
    """A cache for at most `length` tokens under a mask with this window: `sliding` where that is shorter, else `full`."""
    if cache is None:
        cache = "sliding" if window is not None and window < length else "full"
    config: Cache.Config = part.decode(Cache.Config, cache, "cache")
    return config.build(window)
