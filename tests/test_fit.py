"""The loop: accumulation is exact, what is not finite changes nothing, looking changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sevenfold.core.types import Stream
from sevenfold.data.loader import gather
from sevenfold.training.fit import fit
from sevenfold.training.guard import Diverged
from sevenfold.training.look import evaluate
from sevenfold.training.recipe import TrainConfig
from sevenfold.training.run import train
from sevenfold.training.step import take_step
from tiny import OBJECTIVES, any_to_any, log_of, made, recipe, weights_of

PLAIN = {"mixer": {"kind": "attention"}}


def quietly(ready, **settings):
    changed = ready.recipe.train.replace(**settings)
    return fit(ready.objective, ready.train, ready.held_out, changed, seed=ready.recipe.seed, bar=False)


def state(objective):
    return {name: value.clone() for name, value in objective.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Accumulation


def uneven(batch, draw):
    """A batch whose rows are cut at random lengths, in float64."""
    found = {}
    for name, stream in batch.items():
        n = stream.values.shape[1]
        lengths = torch.as_tensor(draw.integers(max(1, n // 3), n + 1, len(stream.values)))
        lengths[0] = n
        valid = torch.arange(n)[None] < lengths[:, None]
        valid = valid if stream.valid is None else valid & stream.valid
        values = stream.values if stream.discrete else stream.values.double()
        found[name] = Stream(values, stream.coords, valid if n > 1 else None, stream.segments)
    return found


def exact_case(kind, folder):
    """(a recipe made real in float64, batches of 8 rows of unequal lengths)."""
    data = any_to_any(PLAIN) if kind == "any_to_any" else recipe(kind, folder, block=PLAIN)
    if kind in ("masked_token", "next_token"):
        data["streams"]["text"] = {"kind": "text", "pack": False, "field": "caption"}
        data["data"] = {"kind": "digits", "limit": 40}
    torch.manual_seed(0)
    ready = made(data)
    ready.objective.double().train()
    draw = np.random.default_rng(0)
    keys = [[(0, place) for place in range(start, start + 8)] for start in (0, 8, 16)]
    return ready, [uneven(gather([ready.train_items[key] for key in some])[0], draw) for some in keys]


@pytest.mark.parametrize("kind", ["next_token", "any_to_any", "masked_token", "mae", "supervised", "infonce"])
def test_pieces_of_a_batch_are_the_batch(kind, tmp_path):
    """Losses and weights after three steps, for 1, 2, 3 (uneven), 5 and 8 pieces, to rounding in float64."""
    found = []
    for pieces in (1, 2, 3, 5, 8):
        ready, batches = exact_case(kind, tmp_path)
        settings = ready.recipe.train.replace(accumulate=pieces)
        optimizer = settings.optimizer.build(dict(ready.objective.named_parameters()))
        steps = [
            take_step(ready.objective, optimizer, batch, settings, "fp32", 0, number, 1.0)
            for number, batch in enumerate(batches)
        ]
        told = [(float(loss.total), float(loss.count), norm) for loss, norm, _ in steps]
        found.append((told, state(ready.objective)))
    for told, weights in found[1:]:
        np.testing.assert_allclose(told, found[0][0], rtol=1e-12)
        for name, value in weights.items():
            torch.testing.assert_close(value, found[0][1][name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["next_token", "masked_token", "mae", "supervised", "infonce"])
def test_pieces_of_a_run_are_the_run(kind, tmp_path):
    """In float32, through fit itself."""
    found = []
    for pieces in (1, 2, 3):
        ready = made(recipe(kind, tmp_path, block=PLAIN, steps=4, accumulate=pieces))
        losses = [record["loss"] for record in quietly(ready).log if "loss" in record]
        found.append((losses, state(ready.objective)))
    for losses, weights in found[1:]:
        np.testing.assert_allclose(losses, found[0][0], rtol=2e-6)
        assert max(float((weights[name] - value).abs().max()) for name, value in found[0][1].items()) < 1e-4


def test_contrast_says_that_it_does_not_decompose_and_is_cached(tmp_path):
    kinds = {kind: made(recipe(kind, tmp_path)).objective for kind in OBJECTIVES}
    assert {kind: part.decomposable for kind, part in kinds.items()} == {kind: kind != "infonce" for kind in kinds}
    assert {kind: part.cached for kind, part in kinds.items()} == {kind: kind == "infonce" for kind in kinds}


def test_more_pieces_than_rows(tmp_path):
    ready = made(recipe("supervised", tmp_path, block=PLAIN, steps=2, batch=4, accumulate=4))
    assert len(quietly(ready).log) == 4


def test_chance_differs_from_step_to_step_and_piece_to_piece(tmp_path):
    """The same rows twice in a batch, and the same batch at two steps, meet different dropout and different masks."""
    ready = made(recipe("masked_token", tmp_path, accumulate=2))
    batch = gather([ready.train[0, 0]] * 8)[0]
    masks, losses = [], []
    ready.objective.train()
    draw, forward = ready.objective.draw, ready.objective.forward
    ready.objective.draw = lambda whole: (
        masks.append(draw(whole)) or {name: choice[:1].expand_as(choice) for name, choice in masks[0].items()}
    )
    ready.objective.forward = lambda *given: losses.append(forward(*given)) or losses[-1]
    optimizer = ready.recipe.train.optimizer.build(dict(ready.objective.named_parameters()))
    optimizer.step = lambda factor: None
    for step in (0, 1, 1):
        take_step(ready.objective, optimizer, batch, ready.recipe.train, "fp32", 0, step, 1.0)
    first, second, again = (mask["chosen"] for mask in masks)
    assert not torch.equal(first, second) and torch.equal(second, again)
    assert len({tuple(row.tolist()) for row in first}) == 8
    totals = [float(loss.total.detach()) / float(loss.count) for loss in losses]
    assert len(set(totals[:4])) == 4 and totals[2:4] == totals[4:]


# Gradients


def test_gradients_are_clipped_and_their_norm_is_logged(tmp_path):
    ready = made(recipe("mae", tmp_path, block=PLAIN, clip=0.01))
    batch = gather([ready.train[0, place] for place in range(8)])[0]
    config, seen = ready.recipe.train, {}
    optimizer = config.optimizer.build(dict(ready.objective.named_parameters()))
    optimizer.step = lambda factor: seen.update({n: p.grad.clone() for n, p in ready.objective.named_parameters()})
    _, norm, ok = take_step(ready.objective, optimizer, batch, config, "fp32", 0, 0, 1.0)
    torch.manual_seed(0)
    clipped = math.sqrt(sum(float(g.double().square().sum()) for g in seen.values()))
    assert ok and norm > 0.1
    assert clipped == pytest.approx(0.01, rel=1e-4)
    assert all(parameter.grad is None for parameter in ready.objective.parameters())


@pytest.mark.parametrize("broken", ["loss", "gradient"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_is_skipped_and_counted(tmp_path, broken, wrong):
    """The weights and the optimizer are as if that step had not been."""
    ready = made(recipe("supervised", tmp_path, steps=4, evaluate_every=1))
    forward, calls, weights = ready.objective.forward, [], []

    def sometimes(*args):
        loss = forward(*args)
        if not ready.objective.training:
            return loss
        calls.append(1)
        if len(calls) != 2:
            return loss
        if broken == "loss":
            return loss._replace(total=loss.total * wrong)
        loss.total.register_hook(lambda gradient: gradient * wrong)
        return loss

    ready.objective.forward = sometimes
    fitted = fit(
        ready.objective,
        ready.train,
        ready.held_out,
        ready.recipe.train,
        folder=tmp_path,
        on_look=lambda step: weights.append(state(ready.objective)),
        bar=False,
    )
    assert fitted.skipped == 1
    assert equal(weights[0], weights[1]) and not equal(weights[1], weights[2])
    steps = [record for record in fitted.log if "held_out" not in record]
    assert ["skipped" in record for record in steps] == [False, True, False, False]
    assert all(math.isfinite(record["loss"]) for record in log_of(tmp_path) if record.get("loss") is not None)
    assert '"skipped": 1' in (tmp_path / "checkpoints/step-00000004/state.json").read_text()
    assert all(torch.isfinite(value).all() for value in ready.objective.state_dict().values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    data = recipe("supervised", tmp_path, steps=4, save_every=1, optimizer={"kind": "adamw", "lr": 3e38})
    ready = made(data)
    with pytest.raises(Diverged, match="the weights are not finite: lower train.optimizer.lr"):
        fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, folder=tmp_path, bar=False)
    assert (tmp_path / "checkpoints/step-00000000").is_dir()
    for file in (tmp_path / "checkpoints").glob("*/model.safetensors"):
        assert all(torch.isfinite(value).all() for value in load_file(file).values())


# Schedules and optimizers


@pytest.mark.parametrize("kind", ["cosine", "constant_decay"])
@pytest.mark.parametrize("warmup", [0, 10, 0.1])
def test_schedules(kind, warmup):
    config = TrainConfig.model_validate({"schedule": {"kind": kind, "warmup": warmup, "floor": 0.1}})
    schedule = config.schedule.build()
    factors = [schedule.factor(step, 100) for step in range(100)]
    rise = 10 if warmup else 0
    for step, factor in enumerate(factors):
        progress = (step - rise) / (100 - rise)
        if step < rise:
            expected = (step + 1) / (rise + 1)
        elif kind == "cosine":
            expected = 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2
        else:
            expected = 0.1 + 0.9 * min(1, (1 - progress) / 0.2)
        assert factor == pytest.approx(expected, abs=1e-12)
    assert min(factors) > 0 and max(factors) <= 1


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_parameter_has_one_place_in_the_optimizer(kind, objective, tmp_path):
    ready = made(recipe(objective, tmp_path, optimizer={"kind": kind}))
    parameters = dict(ready.objective.named_parameters())
    optimizer = ready.recipe.train.optimizer.build(parameters)
    names = {id(parameter): name for name, parameter in parameters.items()}
    groups = [(part, group) for part in optimizer.parts for group in part.param_groups]
    placed = [names[id(p)] for _, group in groups for p in group["params"]]
    assert sorted(placed) == sorted(parameters)
    for part, group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            matrix = parameter.dim() == 2 and name.endswith("weight")
            assert (group["weight_decay"] > 0) == matrix, name
            assert isinstance(part, torch.optim.Muon) == (kind == "muon" and matrix and ".blocks." in name), name


# Looking


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_looking_changes_nothing(objective, tmp_path, monkeypatch):
    """Held-out losses and exhibits at every second step, or none: the same weights and losses, bit for bit."""
    monkeypatch.setattr("sevenfold.training.run.finish", lambda *args: {})
    for every in (2, 6):
        data = recipe(objective, tmp_path, steps=6, evaluate_every=every, save_every=6)
        train(data, tmp_path / str(every), say=lambda line: None, bar=False)
    assert weights_of(tmp_path / "2") == weights_of(tmp_path / "6")
    steps = [[r for r in log_of(tmp_path / every) if "held_out" not in r] for every in ("2", "6")]
    assert steps[0] == steps[1]
    assert [r["step"] for r in log_of(tmp_path / "2") if "held_out" in r] == [2, 4, 6]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_evaluation_is_deterministic_and_leaves_the_mode_alone(objective, tmp_path):
    ready = made(recipe(objective, tmp_path))
    ready.objective.train()
    before = state(ready.objective)
    first = evaluate(ready.objective, ready.held_out, ready.recipe.train)
    torch.manual_seed(5)
    assert evaluate(ready.objective, ready.held_out, ready.recipe.train) == first
    assert ready.objective.training and equal(before, state(ready.objective))
    assert all(parameter.grad is None for parameter in ready.objective.parameters())
    few = evaluate(ready.objective, ready.held_out, ready.recipe.train.replace(batch=1), batches=1)
    assert few != first
