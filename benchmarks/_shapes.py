"""Our side of benchmarks/train.py: the recipe of each case, a batch of it, and one step through the trainer's own path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from sevenfold.assembly.model import Model
from sevenfold.core.types import Batch, Stream
from sevenfold.objective import Objective
from sevenfold.training.allocator import keep_freed
from sevenfold.training.compiled import compile_blocks
from sevenfold.training.float8 import float8_blocks
from sevenfold.training.load import objective_of
from sevenfold.training.recipe import Recipe, read_recipe
from sevenfold.training.step import take_step


class Case(NamedTuple):
    """What is trained: `rows` of `tokens` a step, of `ids` ids. `unit` is what is counted, `each` of them a row."""

    name: str
    rows: int
    tokens: int
    ids: int
    unit: str
    each: int
    recipe: dict[str, Any]


def ids_of(count: int, **more: Any) -> dict[str, Any]:
    """A stream of `count` ids."""
    return {"kind": "series", "tokenizer": {"kind": "series_bin", "ids": count, "octaves": False}, **more}


def picture(size: int) -> dict[str, Any]:
    """A stream of pictures of size × size in patches of 16."""
    cells = [size // 16, size // 16]
    return {"kind": "image", "tokenizer": {"kind": "patch", "patch": 16, "channels": 3, "cells": cells}}


def wide(*, bias: bool = True, **more: Any) -> dict[str, Any]:
    return {"projection": {"kind": "linear", "bias": bias}, **more}


def decoder(
    name: str, ids: int, width: int = 384, depth: int = 6, tokens: int = 256, rows: int = 16, head: int = 64
) -> Case:
    """GPT-2's shape: learned positions, layer norms, biases, GELU, one table for reading and writing."""
    trunk = {
        "inputs": ["text"],
        "width": width,
        "depth": depth,
        "mask": {"causal": True},
        "position": {"kind": "learned", "size": tokens},
        "block": wide(mixer={"kind": "attention", "heads": width // head}),
    }
    recipe = {"streams": {"text": ids_of(ids)}, "trunks": {"lm": trunk}, "objective": {"kind": "next_token"}}
    return Case(name, rows, tokens, ids, "tok/s", tokens, recipe)


def masked(width: int = 256, depth: int = 4, tokens: int = 128, rows: int = 32, ids: int = 30522) -> Case:
    """BERT-mini: norms behind, learned positions, a dense layer in the head, 15 % of the tokens asked."""
    trunk = {
        "inputs": ["text"],
        "width": width,
        "depth": depth,
        "position": {"kind": "learned", "size": tokens},
        "input_norm": True,
        "final_norm": False,
        "block": wide(mixer={"kind": "attention", "heads": width // 64}, post_norm=True),
    }
    head = {"trunk": "enc", "stream": "text", "projection": {"kind": "tied", "bias": True}, "transform": True}
    recipe = {
        "streams": {"text": ids_of(ids)},
        "trunks": {"enc": trunk},
        "heads": {"text": head},
        "objective": {"kind": "masked_token", "ratio": 0.15},
    }
    return Case("masked", rows, tokens, ids, "tok/s", tokens, recipe)


def vision(width: int, depth: int, size: int, heads: int, **more: Any) -> dict[str, Any]:
    """The trunk of a vision transformer."""
    return {
        "inputs": ["image"],
        "width": width,
        "depth": depth,
        "class_token": True,
        "position": {"kind": "learned", "size": size // 16},
        "block": wide(mixer={"kind": "attention", "heads": heads}),
        **more,
    }


def vit(name: str = "vit", width: int = 192, depth: int = 12, size: int = 224, heads: int = 3, rows: int = 16) -> Case:
    """A vision transformer that tells 1,000 classes."""
    trunk = vision(width, depth, size, heads)
    head = {"trunk": "enc", "pool": "class", "outputs": 1000, "stream": "label"}
    recipe = {
        "streams": {"image": picture(size), "label": {"kind": "label"}},
        "trunks": {"enc": trunk},
        "heads": {"label": head},
        "objective": {"kind": "supervised", "target": "label", "pool": "class"},
    }
    return Case(name, rows, (size // 16) ** 2, 1000, "img/s", 1, recipe)


def mae(width: int = 192, depth: int = 12, size: int = 224, heads: int = 3, rows: int = 16) -> Case:
    """A masked autoencoder: a quarter of the patches is read, a decoder of 4 blocks of width 128 rebuilds the rest."""
    decoder = vision(128, 4, size, 4, inputs=["enc"], class_token=False)
    recipe = {
        "streams": {"image": picture(size)},
        "trunks": {"enc": vision(width, depth, size, heads), "dec": decoder},
        "objective": {"kind": "mae", "patch_norm": True},
    }
    return Case("mae", rows, (size // 16) ** 2, 0, "img/s", 1, recipe)


def towers(width: int = 192, depth: int = 12, size: int = 224, heads: int = 3, rows: int = 16, words: int = 32) -> Case:
    """A vision and a text tower, brought together by contrast."""
    text = {
        "inputs": ["text"],
        "width": width,
        "depth": 6,
        "mask": {"causal": True},
        "position": {"kind": "learned", "size": words},
        "block": wide(mixer={"kind": "attention", "heads": heads}),
    }
    recipe = {
        "streams": {"image": picture(size), "text": ids_of(49408)},
        "trunks": {"v": vision(width, depth, size, heads), "t": text},
        "heads": {
            "v": {"trunk": "v", "outputs": 128, "pool": "class"},
            "t": {"trunk": "t", "outputs": 128, "pool": "last"},
        },
        "objective": {"kind": "infonce", "trunks": ["v", "t"], "width": 128},
    }
    return Case("towers", rows, words, 49408, "pairs/s", 1, recipe)


CASES = {
    case.name: case
    for case in (
        decoder("decoder", 256),
        decoder("decoder50k", 50304),
        masked(),
        vit(),
        mae(),
        towers(),
    )
}


def recipe_of(case: Case, precision: str, **train: Any) -> Recipe:
    data = {"data": {"kind": "digits"}, **case.recipe}
    train = {"batch": case.rows, "precision": precision, "optimizer": {"kind": "adamw", "lr": 1e-4}, **train}
    return read_recipe({**data, "train": train})


def objective(recipe: Recipe, labels: int = 1000) -> Objective:
    """The objective of a recipe, and its model, with first weights; nothing is read."""
    modalities = {name: config.build() for name, config in recipe.streams.items()}
    for modality in modalities.values():
        if not modality.tokenizer.ready:
            modality.tokenizer.fit([str(number) for number in range(labels)])
    sizes = {name: m.tokenizer.size or m.tokenizer.features or 0 for name, m in modalities.items()}
    wiring = recipe.wiring
    heads = recipe.objective.part.heads(recipe.objective, wiring, sizes)
    wiring = wiring.replace(heads={**wiring.heads, **heads})
    torch.manual_seed(recipe.seed)
    made = objective_of(recipe.objective, Model(wiring, modalities))
    made.settle()
    return made


def batch_of(case: Case, model: Model, seed: int = 0) -> Batch:
    """A batch of what means nothing."""
    generator, batch = torch.Generator().manual_seed(seed), {}
    for name, modality in model.modalities.items():
        tokenizer = modality.tokenizer
        if tokenizer.axes == 0:
            values = torch.randint(tokenizer.size or 1, (case.rows, 1), generator=generator)
            batch[name] = Stream(values, torch.zeros(case.rows, 1, 0, dtype=torch.long))
        elif tokenizer.size is not None:
            values = torch.randint(3, tokenizer.size, (case.rows, case.tokens), generator=generator)
            batch[name] = Stream(values, torch.arange(case.tokens).expand(case.rows, -1)[..., None].contiguous())
        else:
            side = modality.config.tokenizer.cells[0]
            values = torch.randn(case.rows, side * side, tokenizer.features or 1, generator=generator)
            grid = torch.cartesian_prod(torch.arange(side), torch.arange(side))
            batch[name] = Stream(values, grid.expand(case.rows, -1, -1).contiguous())
    return batch


def ours(case: Case, precision: str, device: str = "cpu", **train: Any) -> tuple[Callable[[], Any], Objective]:
    """One step of ours, through `take_step`, and its objective."""
    recipe = recipe_of(case, precision, device=device, **train)
    made = objective(recipe).to(device).train()
    config = recipe.train
    trainable = {name: p for name, p in made.named_parameters() if p.requires_grad}
    optimizer = config.optimizer.build(trainable, made.cares())
    batch = {name: stream.to(device) for name, stream in batch_of(case, made.model).items()}
    if precision == "fp8":
        float8_blocks(made.model)
    if config.compile:
        compile_blocks(made.model).__enter__()
    keep_freed(torch.device(device))
    state = {"step": 0}

    def step() -> float:
        state["step"] += 1
        loss, *_ = take_step(made, optimizer, batch, config, precision, 0, state["step"], 1.0)
        return float(loss.mean)

    return step, made
