"""The guard: what would harm the weights is left out before the update; a run goes back, passes data over, and stays exact."""

from __future__ import annotations

import math
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from sevenfold.core.errors import CheckpointError
from sevenfold.data.loader import Order, Samples
from sevenfold.training.fit import fit
from sevenfold.training.guard import ENOUGH, Diverged, Guard, GuardConfig
from sevenfold.training.step import take_step
from sevenfold.training.stop import Preempted
from tiny import log_of, made, recipe, weights_of

# The rule


def guard_after(losses, **settings):
    guard = Guard(GuardConfig(**settings))
    assert all(guard.accepts(loss, 1.0) for loss in losses)
    return guard


@pytest.mark.parametrize("usual", [2.0, -3.0, 1e-3])
def test_what_is_a_spike(usual):
    """50 times the median and no less, of the loss or of the gradient norm; a loss below 0 is taken by its size."""
    for loss, norm, taken in [
        (50 * usual, 1.0, False),
        (-50 * usual, 1.0, False),
        (49.9 * usual, 1.0, True),
        (usual, 50.0, False),
        (usual, 49.9, True),
        (math.nan, 1.0, False),
        (usual, math.inf, False),
        (math.inf, 1.0, False),
    ]:
        guard = guard_after([usual] * 20)
        assert guard.accepts(loss, norm) is taken, (loss, norm)
        assert bool(guard.why) is not taken
        assert guard_after([usual] * 20, spike=None).accepts(loss, norm) is (
            math.isfinite(loss) and math.isfinite(norm)
        )


def test_gradients_that_stay_large_while_the_loss_is_as_usual_are_usual_from_then_on():
    guard = guard_after([2.0] * 20, in_a_row=4)
    taken = [guard.accepts(2.0, 60.0) for _ in range(10)]
    assert taken == [False] * 3 + [True] * 7 and not guard.lost and guard.in_a_row == 0
    guard = guard_after([2.0] * 20, in_a_row=4)
    guard.good = 15  # a checkpoint to go back to: other data are tried, once
    assert not any(guard.accepts(2.0, 60.0) for _ in range(4)) and guard.lost
    assert guard.go_back(24, lambda step: step) == 15 and guard.passed == 9
    guard.steep = 0
    assert [guard.accepts(2.0, 60.0) for _ in range(5)] == [False] * 3 + [True] * 2 and not guard.lost
    guard = guard_after([2.0] * 20, in_a_row=4)
    assert not any(guard.accepts(200.0, 60.0) for _ in range(4)) and guard.lost, "a loss that stays is no such thing"


def test_a_step_that_is_left_out_leaves_no_trace_in_a_batch_norm():
    ready = made(
        {
            "data": {"kind": "digits", "limit": 40},
            "streams": {
                "image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 4}},
                "label": {"kind": "label"},
            },
            "trunks": {
                "enc": {"inputs": ["image"], "width": 16, "depth": 1, "position": "learned", "block": {"norm": "batch"}}
            },
            "objective": {"kind": "supervised", "target": "label"},
            "train": {"steps": 4, "batch": 8, "precision": "fp32"},
        }
    )
    objective, settings = ready.objective.train(), ready.recipe.train
    optimizer = settings.optimizer.build(dict(objective.named_parameters()), objective.cares())
    batch = ready.train.batch([(0, place) for place in range(8)])[0]
    before = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    take_step(objective, optimizer, batch, settings, "fp32", 0, 0, 1.0, lambda loss, norm: False)
    assert all(torch.equal(buffer, before[name]) for name, buffer in objective.named_buffers())
    take_step(objective, optimizer, batch, settings, "fp32", 0, 0, 1.0)
    assert not all(torch.equal(buffer, before[name]) for name, buffer in objective.named_buffers())


def test_nothing_is_usual_before_enough_steps_and_zeros_say_nothing():
    guard = Guard(GuardConfig())
    for _ in range(3 * ENOUGH):
        assert guard.accepts(0.0, 0.0)
    for _ in range(ENOUGH - 1):
        assert guard.accepts(1.0, 1.0)
    assert guard.accepts(1e6, 1e6)


def test_a_loss_that_fell_to_nothing_may_move_below_where_it_began():
    guard = guard_after([4.0] * 64 + [1e-6] * 64)
    assert guard.accepts(3.9, 1.0)
    assert not guard_after([4.0] * 64 + [1e-6] * 64).accepts(4.1, 1.0)


def test_what_is_left_out_never_enters_the_median():
    """A NaN or a spike, however often: the next of the usual size is taken, and the next spike is not."""
    guard = guard_after([1.0] * 20)
    for loss in [math.nan, 1e9] * 200:
        assert not guard.accepts(loss, 1.0)
    assert guard.accepts(1.0, 1.0) and not guard.accepts(50.0, 1.0)


# A run

SETTINGS = {"steps": 24, "save_every": 5, "evaluate_every": 24, "guard": {"in_a_row": 3}}


class Told(Samples):
    """Training items that tell which batch of the order was read last; `passing`: {batch: batch read in its place}."""

    def __init__(self, ready, passing=None):
        self.items, self.last = ready.train, -1
        order = Order(len(ready.train), 8, ready.recipe.seed, 0, 100)
        self.keys = [key for keys in order for key in keys]
        self.place = {key: place for place, key in enumerate(self.keys)}
        self.passing = passing or (lambda batch: batch)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, key):
        batch, row = divmod(self.place[key], 8)
        self.last = self.passing(batch)
        return self.items[self.keys[self.last * 8 + row]]


def run(data, folder, bad=(), wrong=math.nan, stop_at=(), where="loss", passing=None):
    """fit(), in which the batches `bad` of the order give a wrong loss or gradient. A signal stops it in the steps of `stop_at`
    (which count every step that is begun), and it is resumed. → (what fit gives, the batches that were read)."""
    read, codes = [], []
    for _ in range(len(stop_at) + 1):
        ready = made(data)
        told, forward = Told(ready, passing), ready.objective.forward
        folder.mkdir(exist_ok=True)

        def broken(*given, ready=ready, told=told, forward=forward):
            loss = forward(*given)
            if ready.objective.training:
                read.append(told.last)
                if len(read) in stop_at:
                    os.kill(os.getpid(), signal.SIGUSR1)
                if told.last in bad and where == "loss":
                    return loss._replace(total=loss.total * wrong)
                if told.last in bad:
                    loss.total.register_hook(lambda gradient: gradient * wrong)
            return loss

        ready.objective.forward = broken
        try:
            found = fit(ready.objective, told, ready.held_out, ready.recipe.train, seed=ready.recipe.seed, folder=folder,
                        resume=True, bar=False)  # fmt: skip
            assert codes == [128 + signal.SIGUSR1] * len(stop_at)
            return found, read
        except Preempted as stopped:
            codes.append(stopped.code)
    raise AssertionError(f"was stopped once more: {codes}")


def learned(folder):
    """Weights and optimizer of the newest checkpoint, and the losses of its log."""
    weights = {name: value for name, value in weights_of(folder).items() if name != "state.json"}
    return weights, [(record["step"], record["loss"]) for record in log_of(folder) if "lr" in record]


@pytest.mark.parametrize(
    ("wrong", "where"), [(math.nan, "loss"), (math.inf, "gradient"), (200.0, "loss"), (1e4, "gradient")]
)
def test_one_bad_batch_is_left_out_and_counted(wrong, where, tmp_path, capsys):
    """It leaves the weights alone, and is said; the run does not go back."""
    found, read = run(recipe("supervised", tmp_path, **SETTINGS), tmp_path / "run", {18}, wrong, where=where)
    told = capsys.readouterr().out
    assert found.skipped == 1 and read == list(range(24))
    assert [record["step"] for record in found.log if "skipped" in record] == [19]
    assert "step 19 is left out: " in told and "going back" not in told


@pytest.mark.parametrize("objective", ["supervised", "mae"])
def test_after_some_in_a_row_it_goes_back_and_passes_the_data_over(objective, tmp_path, capsys):
    """Bit for bit the run that never saw batches 10 to 14: the checkpoint is of step 10, and 12, 13, 14 are bad."""
    data = recipe(objective, tmp_path, **SETTINGS)
    found, read = run(data, tmp_path / "run", {12, 13, 14})
    assert read == [*range(15), *range(15, 29)]
    assert found.skipped == 3
    assert (
        "going back from step 15 to 10, and on with other data: the loss or a gradient is not"
        in capsys.readouterr().out
    )
    assert [r["went_back"] for r in found.log if "went_back" in r] == [
        {"from": 15, "to": 10, "why": "the loss or a gradient is not finite"}
    ]
    run(data, tmp_path / "other", passing=lambda batch: batch + 5 if batch >= 10 else batch)
    assert learned(tmp_path / "run") == learned(tmp_path / "other")


@pytest.mark.parametrize("stop_at", [(14,), (12, 14, 16, 17), (15,), (20,)])
def test_a_run_that_was_stopped_goes_back_as_one_that_was_not(stop_at, tmp_path):
    """Stopped among the bad steps, at the one after which it goes back, behind it; with one checkpoint to keep."""
    data = recipe("supervised", tmp_path, **{**SETTINGS, "keep": 1})
    bad = {12, 13, 14, 21, 22, 23}
    whole, read = run(data, tmp_path / "whole", bad)
    stopped, again = run(data, tmp_path / "stopped", bad, stop_at=stop_at)
    assert learned(tmp_path / "stopped") == learned(tmp_path / "whole")
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
    assert (tmp_path / "stopped").joinpath("checkpoints/step-00000024/state.json").read_bytes() == (
        tmp_path / "whole/checkpoints/step-00000024/state.json"
    ).read_bytes()
    assert set(again) == set(read) and stopped.skipped == whole.skipped == 6
    assert len(list((tmp_path / "stopped/checkpoints").iterdir())) == 1


def test_it_gives_up_at_last(tmp_path):
    """Whatever it reads is bad: after three times, one line that says so; the checkpoint of before is whole."""
    with pytest.raises(
        Diverged, match="after step 13 the loss or a gradient is not finite: lower .* went back 3 times"
    ) as e:
        run(recipe("supervised", tmp_path, **SETTINGS), tmp_path / "run", set(range(11, 99)))
    assert "\n" not in str(e.value)
    assert [path.name[-2:] for path in sorted((tmp_path / "run/checkpoints").iterdir())] == ["05", "10"]


def test_without_a_folder_there_is_nothing_to_go_back_to(tmp_path):
    ready = made(recipe("supervised", tmp_path, **SETTINGS))
    forward = ready.objective.forward
    ready.objective.forward = lambda *given: (loss := forward(*given))._replace(total=loss.total * math.nan)
    with pytest.raises(Diverged, match="after step 3 .*nothing was saved to go back to"):
        fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False)


def test_weights_that_are_not_finite_are_gone_back_from(tmp_path):
    """A weight becomes NaN by no gradient: found when it would be saved, and never saved."""
    ready = made(recipe("supervised", tmp_path, **SETTINGS))
    times = []

    def after_step(step, steps):
        if step == 8 and not times:
            times.append(step)
            next(ready.objective.parameters()).data.view(-1)[0] = math.nan

    ready.objective.after_step = after_step
    found = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, folder=tmp_path, bar=False)
    assert [r["went_back"]["to"] for r in found.log if "went_back" in r] == [5]
    for file in tmp_path.glob("checkpoints/*/*.safetensors"):
        assert all(torch.isfinite(value).all() for value in load_file(file).values())


@pytest.mark.parametrize("change", [
    {"in_a_row": -1}, {"returns": 1.5}, {"passed": None}, {"recent": {}}, {"recent": {"loss": [], "gradient norm": ["1"]}},
    {"first": {"loss": math.nan}}, {"first": {"x": 1.0}}, {"first": []},
])  # fmt: skip
def test_a_state_that_is_none_is_refused(change):
    state = guard_after([1.0] * 20).state()
    Guard(GuardConfig()).restore(state, "x")
    with pytest.raises(CheckpointError, match="x: guard is not the state of one"):
        Guard(GuardConfig()).restore({**state, **change}, "x")
