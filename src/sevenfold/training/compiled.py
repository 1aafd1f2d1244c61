"""Compiling the blocks of a model: one by one, so that equal blocks are compiled once, and kept for the next start.

Code is compiled for lengths, so rows of unequal length are padded to few of them: 16, 24, 32, 48, 64, 96 … (powers of two and the
half-way between), and the longest that a stream may be.

What is compiled lies in the user's cache folder, by the hash of its code and settings (PyTorch's own caches of graphs and kernels),
unless TORCHINDUCTOR_CACHE_DIR says another place.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sevenfold.assembly.model import Model
from sevenfold.core.types import Batch, Stream

FOLDER = "TORCHINDUCTOR_CACHE_DIR"
OWN = os.path.join(tempfile.gettempdir(), "torchinductor_")
"""How PyTorch's own choice begins, which it writes there itself."""
MOST = 256
"""As often a kind of block is compiled at most; PyTorch's own 8 are fewer than there are buckets."""
SHORT = 16
"""The shortest bucket."""


def cache() -> Path:
    """Where compiled code is kept."""
    chosen = os.environ.get(FOLDER)
    if chosen and not chosen.startswith(OWN):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sevenfold" / "compiled"


@contextmanager
def compile_blocks(model: Model) -> Iterator[None]:
    """Compile every block; within the context they are used."""
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(cache())
    for trunk in model.trunks.values():
        for block in trunk.blocks:
            block.compile(fullgraph=True)
    try:
        # how many tokens an expert gets is seen through; each bucket of each stream compiles every kind of block once
        with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True, recompile_limit=MOST):
            yield
    finally:
        if before is None:
            os.environ.pop(FOLDER, None)
        else:
            os.environ[FOLDER] = before


def bucket(length: int, most: int | None = None) -> int:
    """The least bucket that holds so many tokens; none is longer than `most`, where tokens are not more than that."""
    power = SHORT
    while power < length:
        power *= 2
    found = power // 4 * 3 if power > SHORT and power // 4 * 3 >= length else power
    return max(min(found, most or found), length)


def bucketed(model: Model, batch: Batch) -> Batch:
    """The batch with streams of unequal lengths padded to their buckets. Padding is nothing to a model."""
    most = {name: config.length for name, config in model.config.streams.items()}
    return {name: _padded(stream, most.get(name)) for name, stream in batch.items()}


def _padded(stream: Stream, most: int | None) -> Stream:
    """One stream. Of one whose rows are all as long as they may be, or have no limit and are equally long, nothing is changed."""
    rows, length = stream.values.shape[:2]
    more = bucket(length, most) - length
    if not more or (stream.valid is None and most is None):
        return stream
    valid = torch.ones(rows, length, dtype=torch.bool, device=stream.values.device)
    stream = stream._replace(valid=valid if stream.valid is None else stream.valid)

    def longer(part: Tensor) -> Tensor:
        return F.pad(part, (*(0, 0) * (part.dim() - 2), 0, more))

    return stream.each(longer)
