"""What the loop tells (log, TensorBoard, bar), and in which numbers it computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sevenfold.training import precision
from sevenfold.training.fit import fit
from tiny import OBJECTIVES, made, recipe

PLAIN = {"mixer": {"kind": "attention"}}


def quietly(ready, **settings):
    changed = ready.recipe.train.replace(**settings)
    return fit(ready.objective, ready.train, ready.held_out, changed, seed=ready.recipe.seed, bar=False)


def test_the_log(tmp_path, capsys):
    ready = made(recipe("supervised", tmp_path, steps=5, evaluate_every=2))
    fitted = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, folder=tmp_path)
    steps = [record for record in fitted.log if "held_out" not in record]
    assert [record["step"] for record in steps] == [1, 2, 3, 4, 5]
    wanted = {"step", "loss", "nats", "accuracy", "lr", "grad_norm", "tokens_per_s", "mfu", "wait_s"}
    assert all(record.keys() == wanted for record in steps)
    schedule = ready.recipe.train.schedule.build()
    assert [record["lr"] for record in steps] == [1e-3 * schedule.factor(step, 5) for step in range(5)]
    assert all(record["tokens_per_s"] > 0 and 0 < record["mfu"] < 10 for record in steps)
    assert [(r["step"], "final" in r) for r in fitted.log if "held_out" in r] == [(2, False), (4, False), (5, True)]
    told = capsys.readouterr()
    assert told.err == ""
    assert len(told.out.splitlines()) == 3 and "\x1b" not in told.out and "\r" not in told.out


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resume in (False, True):
        ready = made(recipe("supervised", tmp_path, steps=4, evaluate_every=2, save_every=2, keep=9))
        fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, folder=tmp_path, resume=resume, bar=False)
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        assert {"train/loss", "train/lr", "train/grad_norm", "held_out/loss"} <= set(events.Tags()["scalars"])
        assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
        (tmp_path / "checkpoints/step-00000004/model.safetensors").unlink()


def test_a_bar_is_shown_on_request(tmp_path, capsys):
    ready = made(recipe("supervised", tmp_path, steps=2))
    fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=True)
    told = capsys.readouterr()
    assert "tokens/s" in told.err and told.out == ""


# Numbers


def test_precision(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    for flags, expected in (
        (set(), "fp32"),
        ({"avx512_bf16"}, "bf16"),
        ({"amx_bf16", "sse"}, "bf16"),
        ({"sse"}, "fp32"),
    ):
        monkeypatch.setattr(precision, "flags", lambda flags=flags: frozenset(flags))
        assert precision.resolve("auto", cpu) == expected
        assert precision.resolve("fp32", cpu) == "fp32" and precision.resolve("bf16", cpu) == "bf16"


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bf16_is_near_and_keeps_the_weights_in_float32(objective, tmp_path):
    losses = []
    for numbers in ("fp32", "bf16"):
        ready = made(recipe(objective, tmp_path, block=PLAIN, steps=3, precision=numbers))
        losses.append([record["loss"] for record in quietly(ready).log if "loss" in record])
        assert {p.dtype for p in ready.objective.parameters()} == {torch.float32}
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.03)
    assert losses[0] != losses[1]


def test_compiled_blocks_give_the_same(tmp_path):
    """One block, and held-out batches of the training batches' size: compiling takes its time."""
    losses = []
    for compiled in (False, True):
        data = recipe("supervised", tmp_path, block={"nonlinearity": None}, steps=3, batch=4, compile=compiled)
        data["trunks"]["enc"]["depth"] = 1
        ready = made(data)
        ready.held_out.indices = ready.held_out.indices[:4]
        fitted = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False)
        losses.append([record["loss"] for record in fitted.log if "loss" in record] + [fitted.held_out["loss"]])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
