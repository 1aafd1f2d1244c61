"""Blocks computed again in the backward pass: the same gradients, bit for bit, and the memory that the planner says."""

from __future__ import annotations

import pytest
import torch

from sevenfold.core.errors import ConfigError
from sevenfold.training.estimate import estimate, shape_of
from sevenfold.training.fit import fit
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from sevenfold.training.recomputed import recompute_blocks
from test_plan import alone, made, measured, plain


def gradients(objective, batch, seed=1):
    torch.manual_seed(seed)
    loss = objective(batch)
    loss.total.backward()
    found = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    objective.zero_grad()
    return {"loss": loss.total.detach(), **found}


@pytest.mark.parametrize("kind", plain())
def test_every_mixer_gives_the_same_gradients(kind):
    recipe = alone(kind)
    ready, batch = made(read_recipe(recipe, ["trunks.lm.block.dropout=0.2"]))
    calls = []
    ready.objective.train()
    ready.model.trunks["lm"].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    plainly = gradients(ready.objective, batch)
    recompute_blocks(ready.model)
    again = gradients(ready.objective, batch)
    assert len(calls) == 3  # once, and once and again
    assert plainly.keys() == again.keys()
    assert all(torch.equal(plainly[name], again[name]) for name in plainly)
    assert not torch.equal(plainly["loss"], gradients(ready.objective, batch, seed=2)["loss"])  # there is dropout


@pytest.mark.parametrize("name", ["tiny_gpt", "tiny_mae", "tiny_mamba"])
def test_the_planner_knows(name):
    trunk = {"tiny_mae": "enc"}.get(name, "lm")
    given = read_recipe(name, ["train.batch=8", "train.precision=fp32", f"trunks.{trunk}.depth=4"])
    ready, batch = made(given)
    shape, settings = shape_of(batch), ready.recipe.train
    before = estimate(ready.objective, shape, settings, "fp32")
    told = estimate(ready.objective, shape, settings.replace(recompute=True), "fp32")
    recompute_blocks(ready.model)
    _, peak = measured(ready, batch)
    assert abs(told.peak / peak - 1) < 0.1
    assert told.memory["activations"] < 0.6 * before.memory["activations"] and told.flops[1] > before.flops[1]


def test_a_norm_that_counts_is_refused():
    ready, _ = made(read_recipe("tiny_gpt", ["trunks.lm.block.norm.kind=batch"]))
    with pytest.raises(ConfigError, match="train.recompute"):
        recompute_blocks(ready.model)


def test_a_run_is_the_same_run(tmp_path):
    weights = []
    for again in ("false", "true"):
        given = read_recipe(alone("attention"), ["train.steps=2", f"train.recompute={again}"])
        ready = prepare(given)
        fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, seed=3, bar=False)
        assert ready.model.trunks["lm"].recompute is (again == "true")
        weights.append(ready.objective.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
