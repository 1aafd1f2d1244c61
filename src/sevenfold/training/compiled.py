"""Compiling the blocks of a model: one by one, so that equal blocks are compiled once, and kept for the next start.

What is compiled lies in the user's cache folder, by the hash of its code and settings (PyTorch's own caches of graphs and kernels),
unless TORCHINDUCTOR_CACHE_DIR says another place.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

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


def compile_blocks(model: Model) -> AbstractContextManager[Any]:
    """Compile every block; the context holds while they are used."""
    os.environ[FOLDER] = str(cache())
    for trunk in model.trunks.values():
        for block in trunk.blocks:
            block.compile(fullgraph=True)
    return torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)  # how many tokens an expert gets
