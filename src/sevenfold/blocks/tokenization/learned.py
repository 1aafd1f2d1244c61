"""Codes that a run has learned: an encoder's tokens, each the number of a code; a decoder gives the item back.

    z = q(enc(x)) in {0 … K-1}^n,   x^ = dec(z);   then pad, bos, eos, mask

van den Oord 2017 (VQ-VAE), arXiv:1711.00937; Ramesh 2021 (DALL-E), arXiv:2102.12092 sec. 2.1; Mentzer 2023 (FSQ),
arXiv:2309.15505. The run is one with the objective `autoencoder`; what is needed of it is copied into the folder of every
run that uses it. The networks are looked up by name when they are first needed: this file knows no torch.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sevenfold.blocks.tokenization import Tokenizer, check_ready
from sevenfold.blocks.tokenization._picture import pictures
from sevenfold.core import part
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.files import write_atomic
from sevenfold.core.types import Tokens

REMEMBERED = 1 << 24
"""The most ids that are remembered of items already encoded."""
ASIDE = 32
"""Ids that take as much memory as what else an item needs to be remembered."""
SPECIALS = ("pad", "bos", "eos", "mask")


class Learned(Tokenizer):
    """What the run's encoder takes → ids [n]; decodes by the run's decoder. Encoded items are remembered."""

    class Config(Tokenizer.Config):
        run: str | None = None
        """The folder of the run that learned the codes, or one where a learned tokenizer was saved. Not needed any more
        once the tokenizer is saved with its own run."""
        axes: int = Field(2, ge=0, le=8)
        """Coordinate axes of its tokens, as the run has them: 2 for pictures, 1 for series."""

    lossless = False
    idempotent = False

    def __init__(self, config: Any):
        super().__init__(config)
        self.axes = config.axes
        self.files: dict[str, bytes] = {}
        """Everything that the codec is made of."""
        self._codec: Any = None
        self._found: OrderedDict[bytes, Tokens] = OrderedDict()
        self._held = 0

    @classmethod
    def example(cls, seed: int = 0) -> Sequence[np.ndarray]:
        return [(image * 255).astype(np.uint8) for image in pictures(seed)]

    @classmethod
    def example_config(cls, config: Any, folder: Path) -> Any:
        codecs().write_example(folder)
        return config.replace(run=str(folder))

    def fit(self, raws: Iterable[Any]) -> None:
        """Take over the run; it has learned already, so nothing is learned from `raws`."""
        if self.config.run is None:
            raise ConfigError("tokenizer.run: the learned tokenizer needs the folder of an autoencoder run")
        try:
            self._adopt(codecs().pack(Path(self.config.run)))
        except CheckpointError as error:
            raise ConfigError(f"tokenizer.run: {error}") from None

    def encode(self, raw: Any) -> Tokens:
        check_ready(self)
        key = None
        if isinstance(raw, np.ndarray) and raw.dtype != object:
            about = f"{raw.dtype}{raw.shape}".encode()
            key = hashlib.blake2b(np.ascontiguousarray(raw).tobytes(), digest_size=16, key=about[:64]).digest()
            found = self._found.get(key)
            if found is not None:
                return Tokens(found.values.astype(np.int64), found.coords.copy())
        tokens = self.codec.encode(raw)
        if key is not None and len(tokens.values):
            self._found[key] = Tokens(tokens.values.astype(np.int32), tokens.coords.copy())
            self._held += len(tokens.values) + ASIDE
            while self._held > REMEMBERED:
                self._held -= len(self._found.popitem(last=False)[1].values) + ASIDE
        return tokens

    def decode(self, values: np.ndarray, coords: np.ndarray | None = None) -> Any:
        check_ready(self)
        ids, layout = np.asarray(values, np.int64), self.codec.layout()
        if coords is None:
            if layout is None or len(ids) > len(layout):
                raise ValueError(f"{len(ids)} ids without coordinates are no item of the learned tokenizer")
            coords = layout[: len(ids)]
        kept = (ids >= 0) & (ids < self.codec.size)
        return self.codec.decode(ids[kept], np.asarray(coords)[kept])

    def layout(self) -> np.ndarray | None:
        return None if self.size is None else self.codec.layout()

    def vectors(self) -> np.ndarray | None:
        if self.size is None:
            return None
        codes = self.codec.vectors()
        return np.concatenate([codes, np.zeros((len(SPECIALS), codes.shape[1]), np.float32)])

    @property
    def channels(self) -> int | None:
        """Channels of the pictures that it takes."""
        return None if self.size is None else self.codec.channels

    def save(self, folder: str | Path) -> list[str]:
        check_ready(self)
        names = super().save(folder)
        for name, content in self.files.items():
            write_atomic(Path(folder) / name, content)
        return [*names, *self.files]

    def restore(self, folder: Path) -> None:
        try:
            self._adopt(codecs().gather(folder))
        except (CheckpointError, ConfigError) as error:
            raise CheckpointError(f"{folder}: {error}") from None

    def _adopt(self, files: dict[str, bytes]) -> None:
        self.files, self._codec = files, None
        self._found, self._held = OrderedDict(), 0
        if self.codec.axes != self.config.axes:
            raise ConfigError(
                f"tokenizer.axes: is {self.config.axes}, and the run's tokens have {self.codec.axes}: set it"
            )
        self.specials = {name: self.codec.size + place for place, name in enumerate(SPECIALS)}
        self.size = self.codec.size + len(SPECIALS)

    @property
    def codec(self) -> Any:
        """The networks, made from the files when they are first needed (once in every process)."""
        if self._codec is None:
            self._codec = codecs().Codec(self.files)
        return self._codec

    def __getstate__(self) -> dict[str, Any]:
        """To a loader process go the files, not the networks nor what is remembered."""
        return {**self.__dict__, "_codec": None, "_found": OrderedDict(), "_held": 0}


def codecs() -> Any:
    """What makes codecs of runs. Looked up by name, as nothing here may know what is trained."""
    return part.find("objective", "autoencoder").codecs()
