"""What a training step asks the host for: once, whether it may be taken. So a device never runs dry, and steps can be captured as a graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sevenfold.core.types import Stream
from sevenfold.objective import _told
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from sevenfold.training.step import take_step

ASKS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "equal.default",
    "repeat_interleave.Tensor",
    "bincount",
)


class Asked(TorchDispatchMode):
    """The operations whose result, or its size, the host must wait for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.")
        places = args[1] if name.startswith(("index.Tensor", "index_put")) else ()
        by_mask = any(place is not None and place.dtype in (torch.bool, torch.uint8) for place in places)
        if name.startswith(ASKS) or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def a_step(large=False, **settings):
    """A step of a small decoder on rows without padding, the second one; what it asks for."""
    recipe = read_recipe(
        {
            "data": {"kind": "digits", "limit": 40},
            "streams": {"text": {"kind": "text", "field": "caption", "tokenizer": {"kind": "bpe", "size": 300}}},
            "trunks": {"lm": {"inputs": ["text"], "width": 32, "depth": 2, "mask": {"causal": True}}},
            "objective": {"kind": "next_token"},
            "train": {"batch": 4, **settings},
        }
    )
    ready = prepare(recipe)
    objective, config = ready.objective.train(), ready.recipe.train
    optimizer = config.optimizer.build(dict(objective.named_parameters()), objective.cares())
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 200, (4, 16), generator=generator)
    batch = {"text": Stream(ids, torch.arange(16).expand(4, -1)[..., None].contiguous())}
    asked = Asked()
    with asked:
        _, norm, ok = take_step(objective, optimizer, batch, config, config.precision, 0, 1, 1.0)
    assert ok and norm > 0
    return asked.found


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "settings", [{"precision": "bf16"}, {"precision": "fp8"}, {"precision": "fp32", "accumulate": 2}]
)
def test_it_asks_once(large, settings, monkeypatch):
    """The loss, the count and the norm are read together (`tolist`, which is no operation); nothing else is, logits in pieces or not,
    where the device is another one than the host."""
    monkeypatch.setattr(_told, "waits", lambda x: True)
    monkeypatch.setattr(_told, "LARGE", 1 if large else 1 << 30)
    read, kept = [], Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: read.append(tuple(self.shape)) or kept(self))
    assert a_step(**settings) == []
    assert read == [(3,)]


def test_what_asks_is_seen(monkeypatch):
    """On a CPU, where nothing is waited for, the places that have a target are looked for."""
    monkeypatch.setattr(_told, "LARGE", 1)
    assert "nonzero.default" in a_step(precision="fp32")
