"""Compiling the blocks of a model: one by one, so that equal blocks are compiled once, and kept for the next start.

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

from sevenfold.assembly.model import Model

FOLDER = "TORCHINDUCTOR_CACHE_DIR"
OWN = os.path.join(tempfile.gettempdir(), "torchinductor_")
"""How PyTorch's own choice begins, which it writes there itself."""


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
        with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):  # how many tokens an expert gets
            yield
    finally:
        if before is None:
            os.environ.pop(FOLDER, None)
        else:
            os.environ[FOLDER] = before
