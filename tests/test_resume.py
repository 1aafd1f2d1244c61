"""A run that is stopped or killed and then resumed gives the losses and weights, bit for bit, of one that was not."""

from __future__ import annotations

import os
import signal

import pytest
import yaml

from sevenfold.training.fit import fit
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from sevenfold.training.run import train
from sevenfold.training.stop import Preempted
from tiny import OBJECTIVES, log_of, made, python, recipe, weights_of


def run(data, folder, stop_at=None, resume=False):
    """fit() as train() calls it; `stop_at`: a SIGTERM arrives during that step."""
    ready = prepare(read_recipe(data))

    def on_look(step):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    folder.mkdir(exist_ok=True)
    return fit(
        ready.objective,
        ready.train,
        ready.held_out,
        ready.recipe.train,
        seed=ready.recipe.seed,
        folder=folder,
        resume=resume,
        bad=ready.bad,
        on_look=on_look,
        bar=False,
    )


CASES = [(objective, "adamw", workers) for objective in OBJECTIVES for workers in (0, 2)]
CASES += [(objective, "muon", 0) for objective in OBJECTIVES] + [("mae", "muon", 2)]


@pytest.mark.parametrize(("objective", "optimizer", "workers"), CASES)
def test_stopped_twice_is_bitwise_the_run_that_was_not(objective, optimizer, workers, tmp_path):
    """Stopped in mid-epoch, then at an epoch's end (batches of 8 of some 32 items)."""
    data = recipe(objective, tmp_path, optimizer={"kind": optimizer}, workers=workers, evaluate_every=1)
    whole = run(data, tmp_path / "whole")
    per_epoch = -(-len(made(data).train) // 8)
    for stop_at in (2, per_epoch):
        with pytest.raises(Preempted, match=f"SIGTERM after step {stop_at} of 10, saved; continue with: sevenfold tra"):
            run(data, tmp_path / "stopped", stop_at, resume=True)
    resumed = run(data, tmp_path / "stopped", resume=True)
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")
    assert resumed.held_out == whole.held_out


def test_workers_change_nothing(tmp_path):
    logs = []
    for workers in (0, 1, 2):
        run(recipe("mae", tmp_path, steps=6, workers=workers), tmp_path / str(workers))
        logs.append((log_of(tmp_path / str(workers)), weights_of(tmp_path / str(workers))))
    assert logs[0] == logs[1] == logs[2]


def test_stopped_at_the_last_step_and_before_the_first_save(tmp_path):
    data = recipe("supervised", tmp_path, steps=3, evaluate_every=1)
    whole = run(data, tmp_path / "whole")
    ready = prepare(read_recipe(data))

    def fit_once(after_step):
        ready.objective.after_step = after_step
        return fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, folder=tmp_path / "a", resume=True)

    def die(step, steps):
        raise RuntimeError("killed")

    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError, match="killed"):
        fit_once(die)
    ready = prepare(read_recipe(data))
    with pytest.raises(Preempted, match="after step 3 of 3"):
        fit_once(lambda step, steps: step == 2 and os.kill(os.getpid(), signal.SIGTERM))
    ready = prepare(read_recipe(data))
    assert fit_once(lambda step, steps: None).held_out == whole.held_out
    assert log_of(tmp_path / "a") == log_of(tmp_path / "whole")
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "whole")


def test_a_run_that_has_ended_is_left_as_it_is(tmp_path):
    said = []
    data = recipe("supervised", tmp_path, steps=2)
    ended = train(data, tmp_path / "run", say=said.append, bar=False)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "run").iterdir()}
    again = train(data, tmp_path / "run", resume=True, say=said.append, bar=False)
    assert said[-1].endswith("this run has ended, and is whole")
    assert again.results == ended.results
    assert before == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "run").iterdir()}
    model = (tmp_path / "run/model.safetensors").read_bytes()
    (tmp_path / "run/model.safetensors").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    train(tmp_path / "run", resume=True, say=said.append, bar=False)
    assert any(line.startswith("ending the run again: ") for line in said)
    assert (tmp_path / "run/model.safetensors").read_bytes() == model
    assert log_of(tmp_path / "run")[-1]["final"]
    assert sum("final" in record for record in log_of(tmp_path / "run")) == 1


FORKS = """
import contextlib, json, os, random, signal, sys, time
from pathlib import Path
import sklearn.datasets, torch, torch.utils.tensorboard, yaml
import sevenfold.cli.train, sevenfold.training.run
from sevenfold.cli import main
torch.set_num_threads(1)

def begin(args, told, group=False):
    pid = os.fork()
    if pid:
        return pid
    if group:
        os.setpgid(0, 0)
    out = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = main(["train", *args])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def lines(folder):
    try:
        return (Path(folder) / "log.jsonl").read_text().count("grad_norm")
    except OSError:
        return 0

def await_lines(folder, wanted):
    end = time.monotonic() + 30
    while lines(folder) < wanted and time.monotonic() < end:
        time.sleep(0.002)

def ended(pid):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return "did not end"
"""


def write(path, data):
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def finish_and_compare(data, tmp_path, folder):
    """Resume in this process, and compare with a run that was not stopped."""
    train(folder, resume=True, say=lambda line: None, bar=False)
    run({**data, "train": {**data["train"], "save_every": 1000, "workers": 0}}, tmp_path / "whole")
    assert log_of(folder) == log_of(tmp_path / "whole")
    assert weights_of(folder) == weights_of(tmp_path / "whole")
    assert not list(folder.rglob(".tmp-*"))


def test_signals_end_a_run_in_good_order(tmp_path):
    """SIGTERM, SIGINT, and SIGTERM to the whole process group with loader processes, each at a random moment."""
    data = recipe("supervised", tmp_path, steps=60, evaluate_every=30, save_every=25, workers=2)
    code = (
        FORKS
        + """
recipe, folder, told = sys.argv[1:]
found = []
for number, group in ((signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGINT, True)):
    before = lines(folder)
    pid = begin([recipe, "--out", folder, "--resume"], told, group)
    await_lines(folder, before + random.randint(2, 8))
    (os.killpg if group else os.kill)(pid, number)
    found.append((ended(pid), Path(told).read_text().splitlines()[-1], lines(folder)))
print(json.dumps(found))
"""
    )
    folder = tmp_path / "run"
    found = python(code, write(tmp_path / "recipe.yaml", data), folder, tmp_path / "told")
    for (exit_code, line, step), name in zip(found, ("SIGTERM", "SIGINT", "SIGTERM", "SIGINT")):
        assert exit_code == 128 + getattr(signal, name), line
        assert line == (
            f"sevenfold: stopped by {name} after step {step} of 60, saved; "
            f"continue with: sevenfold train {folder} --resume"
        )
    finish_and_compare(data, tmp_path, folder)


def test_a_second_signal_acts_at_once(tmp_path):
    code = (
        FORKS
        + """
from sevenfold.training.stop import stopping
found = []
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have it ignored
for number in (signal.SIGTERM, signal.SIGINT):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(KeyboardInterrupt):
            with stopping() as stop:
                os.write(write, b"x")
                time.sleep(60)
        os._exit(7)
    os.read(read, 1)
    os.kill(pid, number)
    time.sleep(0.2)
    first = os.waitpid(pid, os.WNOHANG)[0]
    os.kill(pid, number)
    began = time.monotonic()
    found.append((first, ended(pid), time.monotonic() - began))
print(json.dumps(found))
"""
    )
    (none, terminated, seconds), (nobody, interrupted, wait) = python(code)
    assert none == nobody == 0
    assert terminated == -signal.SIGTERM
    assert interrupted == 7
    assert max(seconds, wait) < 5
