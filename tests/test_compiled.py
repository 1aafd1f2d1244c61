"""Where compiled blocks are kept, and what the process does with freed memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

from sevenfold.training.allocator import CHOSEN, keep_freed
from sevenfold.training.compiled import FOLDER, cache, compile_blocks
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe


def test_the_cache_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for value in (None, default_cache_dir()):
        monkeypatch.delenv(FOLDER, raising=False) if value is None else monkeypatch.setenv(FOLDER, value)
        assert cache() == tmp_path / "sevenfold" / "compiled"
    ready = prepare(read_recipe("tiny_gpt"))
    monkeypatch.setenv(FOLDER, default_cache_dir())
    with compile_blocks(ready.model):
        assert Path(cache_dir()) == tmp_path / "sevenfold" / "compiled"
    assert Path(cache_dir()) == Path(default_cache_dir()), "as it was"
    monkeypatch.setenv(FOLDER, str(tmp_path / "mine"))
    assert cache() == tmp_path / "mine"


def test_who_chose_an_allocator_keeps_it(monkeypatch):
    cuda = torch.device("cuda")
    assert not keep_freed(cuda)
    monkeypatch.setenv(CHOSEN[0], "1000000")
    assert not keep_freed(torch.device("cpu"))
