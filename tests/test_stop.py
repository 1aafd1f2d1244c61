"""Signals: what does not end in time is left, with the last checkpoint as it was; loader processes end with the trainer."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch

from sevenfold.training.fit import fit
from sevenfold.training.stop import Preempted, stopping
from tiny import log_of, made, python, recipe, weights_of


def soon(number, seconds=0.2):
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_step_that_does_not_end_is_left(number, tmp_path, monkeypatch):
    """The exit code and the message say so; resumed, the run is bit for bit one that was not stopped."""
    monkeypatch.setattr("sevenfold.training.stop.stopping.__wrapped__.__defaults__", (str, 0.3))
    data = recipe("supervised", tmp_path, steps=6, save_every=2)
    ready = made(data)
    forward, calls = ready.objective.forward, []

    def slow(*given):
        calls.extend([1] * ready.objective.training)
        if len(calls) == 4:
            soon(number)
            time.sleep(60)
        return forward(*given)

    ready.objective.forward = slow
    began = time.monotonic()
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGALRM)]
    with pytest.raises(
        Preempted, match="in step 4, which did not end in time; saved is step 2; continue with"
    ) as caught:
        fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, folder=tmp_path / "run", bar=False)
    assert caught.value.code == 128 + number and time.monotonic() - began < 5
    assert handlers == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGALRM)]
    for folder, resume in (("run", True), ("whole", False)):
        again = made(data)
        fit(again.objective, again.train, again.held_out, again.recipe.train, folder=tmp_path / folder, resume=resume)
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")


def test_what_ends_in_time_is_not_left():
    with stopping(grace=0.3) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop == [signal.SIGTERM]
    time.sleep(0.5)


def test_compilation_can_be_left():
    """Of torch.compile itself, whose own handling of errors does not swallow it."""

    def slow_backend(graph, inputs):
        soon(signal.SIGTERM, 0.05)
        time.sleep(60)

    with pytest.raises(Preempted, match="stopped by SIGTERM here"), stopping(lambda: "here", 0.3):
        torch.compile(lambda x: x + 1, backend=slow_backend)(torch.zeros(2))
    torch._dynamo.reset()


def test_loader_processes_that_hang_end_with_the_trainer():
    code = """
import json, os, signal, sys, time, threading
from torch.utils.data import Dataset
from sevenfold.data.loader import Order, load
from sevenfold.core.types import Tokens
import numpy as np
class Slow(Dataset):
    def __len__(self): return 40
    def __getitem__(self, key):
        if key[1] % 5 == 0: time.sleep(600)
        return {"a": Tokens(np.zeros(2, np.int64), np.zeros((2, 1)))}
pid = os.fork()
if not pid:
    from sevenfold.training.stop import stopping, Preempted
    os.setpgid(0, 0)
    try:
        with stopping(lambda: "", 0.2):
            threading.Timer(0.5, os.killpg, (os.getpgrp(), signal.SIGTERM)).start()
            list(load(Slow(), Order(40, 8, 0, 0, 5), 1))
    except Preempted:
        sys.exit(143)
    os._exit(1)
began = time.monotonic()
while time.monotonic() - began < 25:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done: break
    time.sleep(0.1)
else:
    os.killpg(pid, signal.SIGKILL)
left = None
try:
    os.killpg(pid, 0); left = True
except ProcessLookupError:
    left = False
print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - began, left]))
"""
    code, seconds, left = python(code)
    assert code == 143 and seconds < 20 and not left
