"""Autoencoding through codes, the tokenizer that it becomes, and what is said of the use of codes."""

from __future__ import annotations

import ast
import inspect
import json
import os
import pickle
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.types import Stream
from sevenfold.training.fit import fit
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from sevenfold.training.run import train
from sevenfold.training.step import take_step
from sevenfold.training.stop import Preempted
from tiny import log_of, recipe, weights_of

QUANTIZERS = ({"kind": "vq", "size": 32, "width": 4}, {"kind": "fsq", "levels": [5, 3]})


def codes(folder, quantizer=QUANTIZERS[0], **settings):
    data = recipe("mae", folder, **settings)
    return {**data, "objective": {"kind": "autoencoder", "quantizer": quantizer}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with the run of an autoencoder of pictures of 8 x 8 pixels."""
    data = find("objective", "autoencoder").example() | {"train": {"steps": 20, "batch": 16}}
    return train(data, tmp_path_factory.mktemp("codes") / "run", say=lambda line: None, bar=False).folder


def learned(run, **settings):
    tokenizer = decode(Tokenizer.Config, {"kind": "learned", "run": str(run), **settings}).build()
    tokenizer.fit([])
    return tokenizer


# Training


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=["vq", "fsq"])
def test_stopped_and_resumed_is_bitwise_the_run_that_was_not(quantizer, tmp_path):
    """The codebook, its averages and its use too; in two pieces a step, at a step that is not a look."""

    def once(folder, stop_at=None):
        ready = prepare(read_recipe(codes(tmp_path, quantizer, evaluate_every=1, accumulate=2, steps=8)))
        folder.mkdir(exist_ok=True)
        stop = lambda step: step == stop_at and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        settings = ready.recipe.train
        fit(ready.objective, ready.train, ready.held_out, settings, folder=folder, resume=True, on_look=stop, bar=False)

    once(tmp_path / "whole")
    for stop_at in (1, 5):
        with pytest.raises(Preempted):
            once(tmp_path / "stopped", stop_at)
    once(tmp_path / "stopped")
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")


def test_a_step_in_pieces_gives_the_codebook_of_the_step(tmp_path):
    found = []
    for accumulate in (1, 3):
        data = codes(tmp_path, accumulate=accumulate, steps=1)
        data["trunks"] = {name: {**trunk, "block": {}} for name, trunk in data["trunks"].items()}
        ready = prepare(read_recipe(data))
        settings = ready.recipe.train
        batch = {
            "image": Stream(
                torch.randn(9, 16, 4), torch.cartesian_prod(torch.arange(4), torch.arange(4))[None].expand(9, -1, -1)
            )
        }
        optimizer = settings.optimizer.build(dict(ready.objective.named_parameters()))
        for step in range(4):
            take_step(ready.objective.train(), optimizer, batch, settings, "fp32", 0, step, 1.0)
            ready.objective.after_step(step, ready.recipe.train.steps)
        found.append(ready.objective.quantizer)
    torch.testing.assert_close(found[0].weights, found[1].weights)
    torch.testing.assert_close(found[0].codes, found[1].codes, atol=1e-4, rtol=0)


def test_use_of_codes_is_logged_and_its_collapse_is_said_aloud(tmp_path, capsys):
    done = train(
        codes(tmp_path, {"kind": "vq", "size": 2000, "width": 4, "revive": 0.0}, steps=12), tmp_path / "run", bar=False
    )
    looks = [record for record in done.log if "held_out" in record]
    assert {"mse", "commitment", "perplexity", "dead"} <= looks[-1]["held_out"].keys()
    assert all("perplexity" in record for record in done.log if "loss" in record)
    line = "the codebook is collapsing: its 2000 codes are used as if there were "
    assert line in looks[-1]["warnings"][0]
    assert f"warning, after step 12: {line}" in capsys.readouterr().out
    page = (done.folder / "report.html").read_text()
    assert "<strong>Warning:</strong> the codebook is collapsing" in page
    assert "rebuilt from codes" in page and "<img" in page


def test_no_warning_where_codes_are_used(tmp_path, capsys):
    done = train(codes(tmp_path, {"kind": "fsq", "levels": [3]}, steps=6), tmp_path / "run", bar=False)
    assert not any(record.get("warnings") for record in done.log)
    assert "warning," not in capsys.readouterr().out
    assert "Warning" not in (done.folder / "report.html").read_text()


def test_the_bar_shows_the_perplexity(monkeypatch):
    from sevenfold.training.log import Bar

    bar = Bar(10, True, ("perplexity",))
    bar.step({"loss": 1.0, "perplexity": 12.34, "tokens_per_s": 5.0})
    told = bar.progress.tasks[0].fields["told"]
    bar.close()
    assert told == "loss 1.0000 · perplexity 12.3 · 5 tokens/s"
    bar.step({"loss": 1.0, "perplexity": 0.042, "tokens_per_s": 5.0})
    told = bar.progress.tasks[0].fields["told"]
    assert told == "loss 1.0000 · perplexity 0.04 · 5 tokens/s"


def test_the_decoder_sees_the_codes_alone(run):
    """Two pictures with the same codes are rebuilt the same, and the loss is that of a picture made of ids."""
    from sevenfold.training.load import load_objective

    objective = load_objective(run)
    raws = list(learned(run).example(0))[:4]
    stream = objective.model.tokenize(raws)["image"]
    ids = objective.ids(stream)
    straight = objective.rebuilt(objective.quantized(stream).x, stream.coords, None)
    torch.testing.assert_close(objective.values(ids, stream.coords), straight.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trunks": {"enc": {"inputs": ["image"]}}}, "needs a second trunk that reads the first alone"),
        ({"trunks": {"enc": {"inputs": ["image"]}, "dec": {"inputs": ["enc", "image"]}}}, "reads the first alone"),
        (
            {"trunks": {"a": {"inputs": ["image"]}, "b": {"inputs": ["a"], "cross_attends": "a"}}},
            "remove trunks.b.cross",
        ),
        ({"streams": {"image": {"kind": "image", "tokenizer": "quantized_patch"}}}, "choose a tokenizer of vectors"),
    ],
)
def test_wiring_that_cannot_serve(change, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        prepare(read_recipe({**codes(tmp_path), **change}))


# The tokenizer


def test_ids_are_those_of_the_objective_and_decode_to_what_it_rebuilds(run):
    from sevenfold.training.load import load_objective

    objective, tokenizer = load_objective(run), learned(run)
    assert (tokenizer.size, tokenizer.axes, tokenizer.channels) == (36, 2, 1)
    for raw in list(tokenizer.example(3))[:3]:
        stream = objective.model.tokenize([raw])["image"]
        tokens = tokenizer.encode(raw)
        assert tokens.values.tolist() == objective.ids(stream)[0].tolist()
        assert np.array_equal(tokens.values, tokenizer.encode(raw).values)  # remembered
        with torch.no_grad():
            guess = objective.values(objective.ids(stream), stream.coords)[0].numpy()
        wanted = objective.model.modalities["image"].raw(guess, stream.coords[0].numpy())
        np.testing.assert_allclose(tokenizer.decode(tokens.values, tokens.coords), wanted, atol=1e-5)


def test_it_is_whole_without_the_run_that_it_came_from(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    tokenizer = learned(tmp_path / "run")
    names = tokenizer.save(tmp_path / "own")
    shutil.rmtree(tmp_path / "run")
    other = decode(Tokenizer.Config, {"kind": "learned", "run": str(tmp_path / "run")}).build()
    other.restore(tmp_path / "own")
    raw = tokenizer.example(0)[0]
    assert np.array_equal(other.encode(raw).values, tokenizer.encode(raw).values)
    assert {"codec.json", "codec.safetensors"} <= set(names)
    assert np.array_equal(learned(tmp_path / "own").encode(raw).values, tokenizer.encode(raw).values)
    assert np.array_equal(pickle.loads(pickle.dumps(other)).encode(raw).values, tokenizer.encode(raw).values)


def test_what_is_remembered_is_given_out_as_a_copy(run):
    tokenizer = learned(run)
    raw = tokenizer.example(0)[0]
    tokenizer.encode(raw).values[:] = 99
    tokenizer.encode(raw).coords[:] = 99
    again = tokenizer.encode(raw)
    assert again.values.max() < 32 and again.coords.max() == 3
    fresh, first = learned(run), tokenizer.example(0)[1]
    fresh.encode(first).coords[:] = 99
    assert fresh.encode(first).coords.max() == 3


def test_what_is_remembered_is_bounded(run, monkeypatch):
    from sevenfold.blocks.tokenization import learned as room

    monkeypatch.setattr(room, "REMEMBERED", 3 * (16 + room.ASIDE))
    tokenizer = learned(run)
    for raw in tokenizer.example(0)[:6]:
        tokenizer.encode(raw)
    assert len(tokenizer._found) == 3
    assert tokenizer._held == sum(len(found.values) + room.ASIDE for found in tokenizer._found.values())


def test_vectors_are_the_codebook(run):
    tokenizer = learned(run)
    vectors = tokenizer.vectors()
    assert vectors.shape == (36, 4)
    assert not vectors[32:].any() and vectors[:32].any(1).all()


def test_this_file_knows_no_torch():
    tree = ast.parse(Path(inspect.getfile(find("tokenization", "learned"))).read_text())
    named = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    named += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "numpy" in named and not any(name.startswith("torch") for name in named)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("none", "needs the folder of an autoencoder run"),
        ("missing", "there is no such run folder"),
        ("other", "was trained with mae, which makes no codes"),
        ("axes", "tokenizer.axes: is 1, and the run's tokens have 2"),
        ("damaged", "has changed since it was written"),
    ],
)
def test_runs_that_cannot_serve_are_refused_in_one_line(what, told, run, tmp_path):
    settings = {"run": str(tmp_path / "run")}
    if what == "none":
        settings = {}
    elif what == "other":
        train(recipe("mae", tmp_path, steps=1), tmp_path / "run", say=lambda line: None, bar=False)
    elif what in ("axes", "damaged"):
        shutil.copytree(run, tmp_path / "run")
    if what == "axes":
        settings["axes"] = 1
    if what == "damaged":
        path = tmp_path / "run/objective.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\0" if path.read_bytes()[-1] else path.read_bytes()[:-1] + b"\1")
    tokenizer = decode(Tokenizer.Config, {"kind": "learned", **settings}).build()
    with pytest.raises(ConfigError, match=told) as caught:
        tokenizer.fit([])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("harm", ["weights", "facts", "names", "gone"])
def test_damaged_files_are_refused_in_one_line(harm, run, tmp_path):
    tokenizer = learned(run)
    tokenizer.save(tmp_path)
    weights, facts = tmp_path / "codec.safetensors", tmp_path / "codec.json"
    if harm == "weights":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(bytes(content))
    elif harm == "facts":
        facts.write_text('{"sha256": 3}')
    elif harm == "names":
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "sha256": {"../codec": "0"}}))
    else:
        weights.unlink()
    other = decode(Tokenizer.Config, {"kind": "learned"}).build()
    with pytest.raises(CheckpointError) as caught:
        other.restore(tmp_path)
    assert "\n" not in str(caught.value)
    assert not other.ready
