"""Where compiled blocks are kept, for how many lengths they are compiled, and what the process does with freed memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

from sevenfold.assembly.block import Block
from sevenfold.core.part import find
from sevenfold.core.types import Stream
from sevenfold.training import compiled
from sevenfold.training.allocator import CHOSEN, keep_freed
from sevenfold.training.compiled import FOLDER, bucket, bucketed, cache, compile_blocks
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


def test_buckets_hold_what_is_padded_to_them():
    found = [bucket(length) for length in range(1, 4097)]
    powers = [2**power for power in range(4, 13)]
    assert sorted(set(found)) == sorted([*powers, *(3 * power // 4 for power in powers[1:])])
    assert all(length <= held and (held == 16 or held < 1.5 * length) for length, held in enumerate(found, 1))
    assert bucket(100, 100) == bucket(97, 100) == 100 and bucket(130, 100) == 130


def ready_for(objective: str):
    return prepare(read_recipe({**find("objective", objective).example(), "train": {"precision": "fp32", "batch": 6}}))


def test_unequal_lengths_compile_a_few_times_and_not_once_each(monkeypatch):
    """Attention looks at how many tokens there are, so each length that it is given is compiled: PyTorch gives up after eight.
    Here are twenty of them, in three buckets."""
    ready, counter = ready_for("next_token"), CompileCounter()
    most = ready.model.config.streams["text"].length
    assert most == 29
    monkeypatch.setattr(Block, "compile", lambda self, **how: nn.Module.compile(self, backend=counter, **how))
    generator = torch.Generator().manual_seed(0)
    torch._dynamo.reset()
    with compile_blocks(ready.model), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for longest in range(10, most + 1):
            ids = torch.randint(3, 20, (3, longest), generator=generator)
            valid = torch.arange(longest)[None] < torch.tensor([longest, longest - 2, longest - 5])[:, None]
            coords = torch.arange(longest).repeat(3, 1)[..., None]
            ready.objective(bucketed(ready.model, {"text": Stream(ids, coords, valid)}))
    torch._dynamo.reset()
    assert counter.frame_count == 3, "16, 24 and 29"


@pytest.mark.parametrize("kind", ["next_token", "masked_token", "span_corruption", "infonce"])
def test_padding_to_buckets_leaves_the_loss_as_it_is(kind, monkeypatch):
    """In float64, what is drawn for the tokens being the same."""
    ready = ready_for(kind)
    ready.objective.double().eval()
    batch = ready.train.batch([(0, place) for place in range(6)])[0]
    batch = {name: stream.each(doubled) for name, stream in batch.items()}
    monkeypatch.setattr(compiled, "bucket", lambda length, most: length + 3)
    padded = bucketed(ready.model, batch)
    (ragged,) = [name for name, stream in batch.items() if stream.valid is not None]
    length = batch[ragged].values.shape[1]
    assert padded[ragged].values.shape[1] == length + 3 and not padded[ragged].valid[:, length:].any()
    drawn = ready.objective.draw(batch)
    more = {name: longer(chosen) if chosen.shape[1:2] == (length,) else chosen for name, chosen in drawn.items()}
    before, after = ready.objective(batch, drawn), ready.objective(padded, more)
    assert float(before.count) == float(after.count) > 0
    assert float(after.total) == pytest.approx(float(before.total), rel=1e-12)


def doubled(part: Tensor) -> Tensor:
    return part.double() if part.is_floating_point() else part


def longer(chosen: Tensor) -> Tensor:
    return torch.cat([chosen, chosen.new_zeros(len(chosen), 3, *chosen.shape[2:])], 1)


def test_what_is_as_long_as_it_may_be_is_not_padded():
    ready = ready_for("next_token")
    most = ready.model.config.streams["text"].length
    ids = torch.randint(3, 20, (3, most))
    stream = Stream(ids, torch.arange(most).expand(3, -1)[..., None])
    assert bucketed(ready.model, {"text": stream})["text"] is stream
    short = bucketed(ready.model, {"text": stream.slice(0, 17)})["text"]
    assert short.values.shape[1] == bucket(17, most) and short.valid.sum() == 3 * 17


def test_who_chose_an_allocator_keeps_it(monkeypatch):
    cuda = torch.device("cuda")
    assert not keep_freed(cuda)
    monkeypatch.setenv(CHOSEN[0], "1000000")
    assert not keep_freed(torch.device("cpu"))
