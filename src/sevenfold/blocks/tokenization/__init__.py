"""Tokenization  tau : X -> Z. Raw items in, ids or vectors with coordinates out, and back.

The contract of this room. A tokenizer is a plain object without torch: it works on numpy arrays, one raw item at a
time, so it can run in loader workers. Ids are 0 … size-1, special tokens included.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.files import write_atomic
from sevenfold.core.types import Tokens


class Tokenizer(part.Part):
    """A tokenizer of one kind.

    Discrete ones set `size` (how many ids there are), continuous ones `features` (the length of a token's vector);
    the other is None. Both may be None until `fit` has seen data, if the tokenizer learns them.
    """

    room = "tokenization"

    class Config(part.Config):
        pass

    axes: int = 1
    """Columns of `coords`: 1 for sequences, 2 for pictures, 0 for single facts."""
    framed: ClassVar[bool] = False
    """Whether its tokens have frames (see sevenfold.core.types.Hidden)."""
    coords_tell: ClassVar[bool] = False
    """Whether coordinates say what a token is (which gene, how strong), and not only where among the others it stands:
    two tokens are then the same only where their coordinates are, and coordinates count as content."""
    binary: ClassVar[bool] = False
    """Whether its vectors are of 0 and 1, each number the answer to a question of its own."""
    lossless: ClassVar[bool] = True
    """Whether decode(encode(raw)) == raw for every raw item written in its own alphabet, as `example` gives them."""
    idempotent: bool = True
    """Whether a decoded item makes the same tokens again. Not so where decoding guesses (the phases of a sound, pixels from codes)."""

    sentinels: Sequence[int] = ()
    """Ids that stand for a hidden span each, in the order in which they are used: no raw item is made into them."""

    def __init__(self, config: Any):
        self.config = config
        self.size: int | None = None
        self.features: int | None = None
        self.specials: dict[str, int] = {}
        """Names (of pad, unk, bos, eos, mask and place, those it has) → ids. `place` is the placeholder of what is spliced in."""

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[Any]:
        """At least 8 small raw items that it takes, different for each seed, for tests and for trying things out."""
        raise NotImplementedError

    @classmethod
    def example_config(cls, config: Any, folder: Path) -> Any:
        """The config with what it needs before it can be fitted (the folder of a run, say), made in an empty folder."""
        return config

    def around(self) -> tuple[list[int], list[int]]:
        """The ids that stand before and behind a whole item, where a stream has `ends`: its begin and its end token."""
        before, behind = ([self.specials[name]] if name in self.specials else [] for name in ("bos", "eos"))
        return before, behind

    def spelled(self) -> int | None:
        """So many ids, the first ones, stand for something; the others only fill up a table. None: all do."""
        return None

    @property
    def spells(self) -> bool:
        """Whether it takes raw items at all, and not only ids: a model may have come without the files of its tokenizer."""
        return True

    @property
    def ready(self) -> bool:
        """Whether it can encode: it has nothing to learn, or has learned it."""
        return self.size is not None or self.features is not None

    def fit(self, raws: Iterable[Any]) -> None:
        """Learn from training items (merges, a codebook, an alphabet). Nothing to learn: nothing happens.

        Must be deterministic: the same items in the same order give the same tokenizer.
        """

    def encode(self, raw: Any) -> Tokens:
        """Ids [n] int64 or vectors [n p] float32, and coordinates [n axes]; no special tokens are added.

        Raises ValueError, one line, for an item that cannot be encoded.
        """
        raise NotImplementedError

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> Any:
        """The raw item back from ids or vectors (special tokens are dropped), exactly or nearly (`lossless`)."""
        raise NotImplementedError

    def spans(self, raw: Any) -> np.ndarray | None:
        """Which part of the raw item each token of `encode(raw)` stands for: [n 2], begin and end, counted in characters
        (text), letters (DNA, protein), samples (series); None where tokens are no pieces of a line."""
        return None

    def layout(self) -> np.ndarray | None:
        """Coordinates [n axes] of a whole item's tokens in their order, where all items have the same (pictures of one
        size); None where length is free."""
        return None

    def reach(self) -> int | None:
        """One more than the largest coordinate that it gives, where that does not depend on the item; else None."""
        grid = self.layout()
        return int(grid.max()) + 1 if grid is not None and grid.size else None

    def vectors(self) -> np.ndarray | None:
        """What each id stands for, [size p] (a codebook; zeros for special tokens), where ids stand for vectors.
        Embedding tables start from it, so that ids of like meaning start alike."""
        return None

    def piece(self, id: int) -> str:
        """How one id is shown to a person."""
        return next((f"<{name}>" for name, special in self.specials.items() if special == id), str(id))

    def save(self, folder: str | Path) -> list[str]:
        """Write its files (Hugging Face names where that layout exists) into a folder; returns their names.

        The base writes `tokenizer_config.json` with the config. A tokenizer that learns overrides this, calls super,
        writes what it learned, and reads that in `restore`.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self.published(), "sevenfold": part.encode(self.config)}, indent=1, ensure_ascii=False)
        write_atomic(folder / "tokenizer_config.json", text + "\n")
        return ["tokenizer_config.json"]

    def published(self) -> dict[str, Any]:
        """What Hugging Face's loaders want to find in `tokenizer_config.json`, for layouts that they know."""
        return {}

    def read_published(self, folder: Path) -> bool | None:
        """Read the tokenizer files of a published folder. Returns whether they put tokens around an item; None: there are
        none that it reads. CheckpointError as in `restore`."""
        return None

    def write_published(self, folder: Path) -> list[str]:
        """Write its files as a published folder has them; returns their names."""
        return []

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote besides the config. CheckpointError if a file is not what it should be."""


def check_ready(tokenizer: Tokenizer) -> None:
    """A clear error when an unfitted tokenizer is asked to encode."""
    if not tokenizer.ready:
        raise ConfigError(f"the {tokenizer.kind} tokenizer has not seen data yet: call fit(raws) first")


def line(n: int) -> np.ndarray:
    """Coordinates 0 … n-1 of a sequence, [n 1]."""
    return np.arange(n, dtype=np.int64)[:, None]


def need_text(raw: Any, tokenizer: Tokenizer) -> str:
    """The raw item if it is a str; otherwise ValueError, one line."""
    if not isinstance(raw, str):
        raise ValueError(f"the {tokenizer.kind} tokenizer takes text, not {type(raw).__name__}")
    return raw


def letters(raw: str) -> np.ndarray:
    """One byte per character of a str, [n] uint8; characters outside ASCII become `?`."""
    return np.frombuffer(raw.encode("ascii", "replace"), dtype=np.uint8)


def table(alphabet: str, ids: Iterable[int], otherwise: int) -> np.ndarray:
    """A look-up table [256] from a letter's byte to its id, lower case like upper case."""
    found = np.full(256, otherwise, dtype=np.int64)
    for letter, id in zip(alphabet, ids, strict=True):
        found[[ord(letter), ord(letter.lower())]] = id
    return found
