"""The faults of `sevenfold check --faults`, each in a short version; and that each of them can miss."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import random
import time

import pytest

from sevenfold.cli import main
from sevenfold.conformance import fault
from sevenfold.conformance.fault import _payloads, bad_samples, damaged, diverging, hostile, killed, mutated, resumed
from sevenfold.conformance.fault._kit import Tally, small
from sevenfold.conformance.fault._payloads._written import evil
from sevenfold.conformance.fault._watched import watched
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.training import checkpoint, guard

pytestmark = pytest.mark.xdist_group("aside")
SHORT = {"damaged": 60, "diverging": 2, "bad_samples": 100, "hostile": hostile.TRIES, "mutated": 15, "ordered": 2,
         "full_disk": 6, "resumed": 2, "signalled": 3}  # fmt: skip


@pytest.mark.parametrize("name", SHORT)
def test_no_target_is_missed(name):
    rows = list(fault.outcomes(name, SHORT[name]))
    assert rows and all(row.ok for row in rows), [row for row in rows if not row.ok]
    assert all(row.tried > 0 for row in rows)


def test_kill_and_its_peer(tmp_path):
    """Ours loses none; the peer, which is tried in the same way, is not asserted: it loses what chance says."""
    ours, peer = killed.tried(tmp_path, 6, width=64)
    assert ours.ok and ours.tried == 6, ours
    assert not peer.gates and peer.tried == 6


def test_every_fault_has_a_docstring_and_a_number():
    assert set(fault.names()) == {*SHORT, "killed"}
    for name in fault.names():
        module = importlib.import_module(f"sevenfold.conformance.fault.{name}")
        assert module.__doc__ and module.TRIES >= 1


# A fault that cannot miss would prove nothing


def test_damage_that_is_not_noticed_is_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "verify_manifest", lambda path: {"step": int(path.name[5:])})
    ours, _ = damaged.tried(tmp_path, 6)
    assert ours.missed == 6 and not ours.ok and "was not noticed" in ours.told


def test_steps_that_are_not_left_out_are_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(guard.Guard, "accepts", lambda *args: True)
    data = small(steps=30, guard={"in_a_row": 3})
    assert "0 steps were left out" in diverging._once(tmp_path / "run", data, 20, 200.0, "loss", "spike")


def test_an_order_that_is_another_is_missed():
    wanted = list(range(10))
    found = [(n, None) for n in wanted if n != 3] + [(-1, DataError("x"))]
    found[-1] = (-1, type("E", (), {"where": "x.jsonl:4"})())
    assert bad_samples._wrong(found, wanted, {3}, lambda n: f"x.jsonl:{n + 1}") == ""
    assert "another order" in bad_samples._wrong(found[1:], wanted, {3}, lambda n: f"x.jsonl:{n + 1}")
    assert "is not named" in bad_samples._wrong(found, wanted, {3}, lambda n: f"x.jsonl:{n + 9}")
    assert "0 are counted" in bad_samples._wrong(found[:-1], wanted, {3}, lambda n: f"x.jsonl:{n + 1}")


def test_another_run_is_missed(monkeypatch, tmp_path):
    """A resumed run whose objective remembers something that is in no checkpoint."""
    ready = resumed.small_one(resumed.shipped_folder() / "tiny_digits.yaml", tmp_path / "data")
    forward, calls = ready.objective.forward, []

    def other(*given):
        calls.append(1)
        loss = forward(*given)
        return loss._replace(total=loss.total * (1 + 0.01 * len(calls)))

    ready.objective.forward = other
    assert any(wrong for _, wrong in resumed.compared(ready, tmp_path / "runs"))


def attempts(folder):
    """What must be seen: a crash, a hang, a traceback, much memory; and what is fine."""

    def attempt(number):
        if number == 0:
            os._exit(3)
        if number == 1:
            time.sleep(60)
        if number == 2:
            raise KeyError("x")
        if number == 3:
            raise DataError("a line\nand another")
        if number == 4:
            end = time.process_time() + 0.4
            while time.process_time() < end:
                pass
        if number == 5:
            raise DataError(f"{folder}: is refused")

    return attempt


def test_what_is_watched_is_seen(monkeypatch, tmp_path):
    monkeypatch.setattr("sevenfold.conformance.fault._watched.PATIENCE", 4.0)
    met = list(watched(attempts, (tmp_path,), 7, 0.3))
    assert [one.number for one in met] == list(range(7))
    for one, wrong in zip(met, ("died", "hangs", "KeyError", "several lines", "takes 0.", "", "")):
        assert wrong in one.wrong and bool(one.wrong) == bool(wrong), one
    assert met[5].said == f"{tmp_path}: is refused"


def unpickles(folder, name):
    """A reader that does what none of ours does."""
    _payloads.PAYLOADS[name] = lambda inside, mark: lambda: pickle.loads(evil(mark))
    return hostile.harmful(folder, name)


def writes(folder, name):
    _payloads.PAYLOADS[name] = lambda inside, mark: lambda: (inside.parent / "outside").write_text("x")
    return hostile.harmful(folder, name)


@pytest.mark.parametrize(("maker", "told"), [(unpickles, "os.system"), (writes, "outside")])
def test_harm_is_seen(maker, told, tmp_path):
    (met,) = watched(maker, (tmp_path, "control"), 1, 2.0)
    assert met.wrong.startswith("Harmed") and told in met.wrong


def test_mutations_differ_and_begin_from_what_is_read(tmp_path):
    attempt = mutated.data(tmp_path, "jsonl")
    assert callable(attempt)
    content = b'{"text": "some words", "count": 12}\n' * 20
    found = {mutated.mutated(content, random.Random(seed)) for seed in range(200)}
    assert len(found) > 150


def test_errors_that_name_nothing_are_missed():
    def vague():
        raise DataError("something is wrong")

    with pytest.raises(mutated.Unnamed):
        mutated.named(vague, "/a/file", "field")


def test_a_tally():
    tally = Tally()
    assert not tally.outcome("what", "target").ok
    tally.note("")
    assert tally.outcome("what", "target").ok
    tally.note("is wrong")
    row = tally.outcome("what", "target")
    assert (row.tried, row.missed, row.ok) == (2, 1, False) and "first: is wrong" in row.told


# The command


def test_the_command(capsys, monkeypatch):
    assert main(["check", "--faults", "--only", "ordered", "--tries", "1", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["fault"] == "ordered" and row["tried"] == 1 and row["ok"] is True
    monkeypatch.setattr(
        "sevenfold.conformance.fault.outcomes", lambda *args: [fault.Outcome("what", 3, 1, "none", "first: x")]
    )
    assert main(["check", "--faults", "--only", "ordered"]) == 1
    told = capsys.readouterr().out
    assert "MISS" in told and "1 targets are missed" in told
    monkeypatch.undo()
    assert main(["check", "--faults", "--only", "kiled"]) == 2
    assert "did you mean 'killed'" in capsys.readouterr().err
    assert main(["check"]) == 2
    with pytest.raises(ConfigError):
        list(fault.outcomes("kiled"))
