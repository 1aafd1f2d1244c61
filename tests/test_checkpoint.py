"""Checkpoints: damage is noticed, the newest whole one is taken, a full disk harms nothing, nothing is unpickled."""

from __future__ import annotations

import itertools
import json
import re
import resource
import shutil
import struct
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import sevenfold
from sevenfold.cli import main
from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import write_manifest
from sevenfold.training import checkpoint
from sevenfold.training.fit import fit
from sevenfold.training.parallel import shards
from sevenfold.training.run import load, train
from tiny import log_of, made, recipe, weights_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with checkpoints of steps 1, 2 and 3, and what made it."""
    folder = tmp_path_factory.mktemp("trained")
    ready = made(recipe("infonce", folder, steps=3, save_every=1, keep=3))
    fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, folder=folder, bar=False)
    assert [path.name[-1] for path in checkpoint.listed(folder)] == ["3", "2", "1"]
    return folder, ready


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it to break."""
    shutil.copytree(trained[0] / "checkpoints", tmp_path / "checkpoints")
    return tmp_path


def restored(run, ready):
    """(what restore gives, what it says)."""
    said = []
    optimizer = ready.recipe.train.optimizer.build(dict(ready.objective.named_parameters()))
    return checkpoint.restore(run, ready.objective, optimizer, said.append), said


def test_every_bit_of_a_manifest_matters(run):
    path = run / "checkpoints/step-00000003/manifest.json"
    content = path.read_bytes()
    for place in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        said = []
        assert checkpoint.newest_whole(run, said.append).name == "step-00000002", flipped
        assert len(said) == 1


def test_all_damaged(trained, run):
    for folder in checkpoint.listed(run):
        (folder / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint in it is whole"):
        restored(run, trained[1])
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.newest_whole(run / "nowhere", print)


@pytest.mark.parametrize("keep", [1, 2])
def test_going_on_behind_damaged_ones_keeps_what_is_new(keep, tmp_path):
    """Damaged checkpoints of later steps do not count among those to keep."""
    data = recipe("supervised", tmp_path, steps=6, save_every=1, evaluate_every=1, keep=6)
    whole = made(data)
    fit(whole.objective, whole.train, whole.held_out, whole.recipe.train, folder=tmp_path / "run", bar=False)
    expected = weights_of(tmp_path / "run"), log_of(tmp_path / "run")
    for step in (4, 5, 6):
        (tmp_path / f"run/checkpoints/step-0000000{step}/model.safetensors").write_bytes(b"")
    again = made({**data, "train": {**data["train"], "keep": keep, "evaluate_every": 1}})
    newest = []

    def on_look(step):
        while (found := checkpoint.newest_whole(tmp_path / "run", pytest.fail).name[-1]) != str(step - 1):
            time.sleep(0.01)  # it is written while training goes on
        newest.append((step, found))

    settings = again.recipe.train
    fit(again.objective, again.train, again.held_out, settings, folder=tmp_path / "run", resume=True, on_look=on_look)
    assert newest == [(4, "3"), (5, "4")]
    assert (weights_of(tmp_path / "run"), log_of(tmp_path / "run")) == expected
    assert [path.name[-1] for path in checkpoint.listed(tmp_path / "run")] == ["6", "5"][:keep]


def test_what_an_interrupted_process_left_is_swept(trained, run):
    (run / "checkpoints/.tmp-step-00000004-1-ab").mkdir()
    (run / "checkpoints/.tmp-step-00000004-1-ab/model.safetensors").write_bytes(b"half")
    (run / ".tmp-log.jsonl-1-cd").write_bytes(b"half")
    checkpoint.sweep(run)
    assert not list(run.rglob(".tmp-*"))
    assert len(checkpoint.listed(run)) == 3


def test_a_folder_with_checkpoints_is_not_begun_again(trained, run):
    ready = trained[1]
    with pytest.raises(CheckpointError, match="already holds checkpoints"):
        fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, folder=run, bar=False)


def test_a_full_disk(tmp_path, capsys):
    """In the middle of a run: exit code 2, one line, the old checkpoint as it was; with room again, it goes on."""
    data = recipe("supervised", tmp_path, steps=4, save_every=2, evaluate_every=4)
    ready = made(data)
    (tmp_path / "recipe.json").write_text(json.dumps(data))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    smallest = 20_000
    try:
        ready.objective.after_step = lambda step, steps: (
            resource.setrlimit(resource.RLIMIT_FSIZE, (smallest, limits[1])) if step == 2 else None
        )
        with pytest.raises(CheckpointError, match="cannot be written .*make room, then resume") as caught:
            fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, folder=tmp_path / "run", bar=False)
        assert "\n" not in str(caught.value)
        left = weights_of(tmp_path / "run")
        assert len(left["model.safetensors"]) > smallest
        assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
            "step-00000000",
            "step-00000002",
        ]
        capsys.readouterr()
        assert main(["train", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "other")]) == 2
        told = capsys.readouterr().err
        assert len(told.splitlines()) == 1 and "cannot be written" in told
        assert not list((tmp_path / "other").rglob(".tmp-*"))
        assert not list((tmp_path / "other").rglob("step-*"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    again = made(data)
    fit(again.objective, again.train, again.held_out, again.recipe.train, folder=tmp_path / "run", resume=True)
    train(data, tmp_path / "other", resume=True, say=lambda line: None, bar=False)
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "other")


def test_nothing_is_unpickled():
    """The conformance kit aside, which tries what it has just pickled itself."""
    source = Path(sevenfold.__file__).parent
    for file in set(source.rglob("*.py")) - set((source / "conformance").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"\btorch\.(load|save)\(|\b(c?[pP]ickle|joblib|dill|shelve|marshal)\b\.|^\s*import pickle", text, re.M
        ), file


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 90_000_000) + b"{}",
        struct.pack("<Q", 82)
        + b'{"w":{"dtype":"F32","shape":[1000000,1000000,1000],"data_offsets":[0,4000000000000]}}',
        b"",
        b"\x80\x04K\x01.",
        struct.pack("<Q", 20_000) + b"[" * 20_000,
    ],
)
def test_bombs_are_refused_quickly(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
        checkpoint.tensors(path)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - began < 1


def forge(folder: Path, name: str, change) -> None:
    """Change a file of a checkpoint, and its manifest with it."""
    path = folder / name
    if name.endswith(".json"):
        path.write_text(change)
    else:
        state = load_file(path)
        change(state)
        save_file(state, path)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, list(manifest["files"]), step=manifest["step"])


def first(state, ending=""):
    return next(name for name in sorted(state) if name.endswith(ending) and state[name].dim())


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("model.safetensors", lambda s: s.update({first(s): torch.zeros(3)}), "has shape"),
        ("model.safetensors", lambda s: s.pop(first(s)), "lacks"),
        ("model.safetensors", lambda s: s.update(extra=torch.zeros(1)), "has 'extra', which the model does not"),
        ("objective.safetensors", lambda s: s.clear(), "lacks 'scale'"),
        ("objective.safetensors", lambda s: s.update(scale=torch.zeros(2)), "scale has shape"),
        ("optimizer.safetensors", lambda s: s.update({first(s, "exp_avg"): torch.zeros(3)}), "exp_avg has shape"),
        ("optimizer.safetensors", lambda s: s.update({"other|step": torch.zeros(())}), "'other', which this recipe"),
        *(
            ("state.json", text, "is not the state of a run")
            for text in (
                "null",
                "[]",
                "{}",
                '"step"',
                '{"step": "3"}',
                '{"step": true}',
                '{"step": -1}',
                '{"step": 3.5}',
                '{"step": 3, "bad": 4}',
                '{"step": 3, "bad": [["a"]]}',
                '{"step": 3, "skipped": null}',
            )
        ),
        ("state.json", "{", "cannot be read as JSON"),
        ("state.json", "[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_what_fits_its_manifest_but_not_the_model(trained, run, name, change, told):
    forge(run / "checkpoints/step-00000003", name, change)
    with pytest.raises(CheckpointError) as caught:
        restored(run, trained[1])
    assert told in str(caught.value)
    assert str(run / "checkpoints/step-00000003" / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_that_has_not_ended_can_be_loaded(tmp_path, monkeypatch):
    """From its newest whole checkpoint, with a word about those that are not whole."""
    data = recipe("supervised", tmp_path, steps=4, save_every=2)
    monkeypatch.setattr("sevenfold.training.run.finish", lambda *args: {})
    train(data, tmp_path / "run", say=lambda line: None, bar=False)
    newest = tmp_path / "run/checkpoints/step-00000004/model.safetensors"
    found = load(tmp_path / "run").state_dict()
    assert all(torch.equal(found[name], value) for name, value in load_file(newest).items())
    newest.unlink()
    load(tmp_path / "run")


def test_the_optimizer_state_is_taken_over_exactly(trained):
    ready = trained[1]
    parameters = dict(ready.objective.named_parameters())
    for kind in ("adamw", "muon"):
        config = type(ready.recipe.train).model_validate({"optimizer": {"kind": kind}}).optimizer
        first_one, second = config.build(parameters), config.build(parameters)
        for parameter in parameters.values():
            parameter.grad = torch.randn_like(parameter)
        first_one.step(0.0)
        state = first_one.tensors()
        second.restore(state)
        assert state.keys() == second.tensors().keys()
        assert all(torch.equal(value, second.tensors()[name]) for name, value in state.items())
        first_one.zero_grad()


def test_what_fills_a_whole():
    """Brute force: all ways to lay three rectangles into a field of 3 by 2, each number counted."""
    spans = [[(at, size) for at in range(-1, side + 1) for size in range(1, side + 1)] for side in (3, 2)]
    seen: Counter[bool] = Counter()
    for boxes in itertools.combinations_with_replacement(list(itertools.product(*spans)), 3):
        if sum(height * width for (_, height), (_, width) in boxes) != 6:
            continue
        count = Counter(
            (row, column)
            for (top, height), (left, width) in boxes
            for row in range(top, top + height)
            for column in range(left, left + width)
        )
        wanted = count == Counter(itertools.product(range(3), range(2)))
        seen[wanted] += 1
        assert shards.filled_by((3, 2), [tuple(zip(*box)) for box in boxes]) == wanted, boxes
    assert min(seen[True], seen[False]) > 5
