"""Bad items of every modality, through the command line: exit code 2 and one line that names the place."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from sevenfold.cli import main
from sevenfold.core.part import find

DRAW = np.random.default_rng(0)

SHAPES = {
    "cells": ("cells", "gene_rank", "{kind: masked_token}", "learned"),
    "structure": ("structure", "backbone", "{kind: masked_token}", "learned"),
    "stains": ("microscopy", "{kind: intensity, patch: 4}", "{kind: masked_token}", "{kind: learned, size: 8}"),
    "points": ("points", "point_group", "{kind: infonce}", "sinusoidal"),
    "series": ("series", "{kind: series_bin, ids: 64}", "{kind: next_token}", "rotary"),
    "audio": ("audio", "mu_law", "{kind: next_token}", "rotary"),
    "row": ("table", "row", "{kind: masked_token}", "learned"),
    "actions": ("actions", "action_bin", "{kind: masked_token}", "sinusoidal"),
    "protein": ("protein", "residue", "{kind: masked_token}", "rotary"),
    "text": ("text", "characters", "{kind: masked_token}", "rotary"),
}


def recipe(name: str, data: str) -> str:
    """A small recipe of one stream that reads `data`."""
    kind, tokenizer, objective, position = SHAPES[name]
    if objective == "{kind: infonce}":
        trunks = "{enc: {inputs: [points], width: 16, depth: 1, position: sinusoidal}, dec: {inputs: [enc], width: 16, depth: 1, position: sinusoidal}}"
        objective = "{kind: mae}"
    else:
        mask = ", mask: {causal: true}" if "next" in objective else ""
        trunks = f"{{enc: {{inputs: [{name}], width: 16, depth: 1, position: {position}{mask}}}}}"
    return f"""
data: {{{data}}}
streams: {{{name}: {{kind: {kind}, tokenizer: {tokenizer}, length: 128}}}}
trunks: {trunks}
objective: {objective}
train: {{steps: 2, batch: 4}}
"""


def cells(path: Path, counts: np.ndarray, prefix: str = "G") -> None:
    import anndata

    made = anndata.AnnData(counts.astype(np.float32))
    made.var_names = [f"{prefix}{place}" for place in range(counts.shape[1])]
    made.write_h5ad(path)


def sound(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.astype("<i2").tobytes())


def good(name: str, folder: Path) -> str:
    """Data that can be read, in a folder; returns what the recipe says of it."""
    folder.mkdir()
    if name == "cells":
        cells(folder / "x.h5ad", DRAW.poisson(2.0, (30, 12)))
        return "kind: h5ad, path: good/x.h5ad"
    if name == "structure":
        find("source", "structures").example(folder)
        return "kind: structures, path: good, held_out: 0.2"
    if name == "stains":
        np.savez(folder / "x.npz", stains=DRAW.integers(0, 900, (24, 16, 16, 5)).astype(np.uint16))
        return "kind: arrays, path: good/x.npz"
    if name == "points":
        find("source", "points").example(folder)
        return "kind: points, path: good"
    if name == "series":
        return f"kind: series, path: {find('source', 'series').example(folder).path}, length: 16, columns: [high]"
    if name == "audio":
        for count in range(12):
            sound(folder / f"{count}.wav", 9000 * np.sin(np.arange(400) * (0.1 + 0.02 * count)))
        return "kind: audio, path: good"
    if name == "row":
        return f"kind: rows, path: {find('source', 'rows').example(folder).path}"
    if name == "actions":
        return f"kind: rollouts, path: {find('source', 'rollouts').example(folder).path}"
    if name == "protein":
        lines = (f">p{n}\n{''.join(DRAW.choice(list('ACDEFGHIKLMNPQRSTVWY'), 30))}\n" for n in range(20))
        (folder / "x.fasta").write_text("".join(lines))
        return "kind: fasta, path: good/x.fasta"
    (folder / "x.txt").write_text("the cat sat on the mat\n" * 60)
    return "kind: text, path: good/x.txt"


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """Runs a command that must be refused; returns its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*args) -> str:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        said = capsys.readouterr().err
        assert code == 2, said
        assert len(said.splitlines()) == 1 and said.startswith("sevenfold: ") and "Traceback" not in said, said
        return said

    return run


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    """Trains a stream of that name on good data, for two steps."""
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> None:
        (tmp_path / "r.yaml").write_text(recipe(name, good(name, tmp_path / "good")))
        assert main(["train", "r.yaml", "--out", "run"]) == 0, capsys.readouterr().err

    return run


# Data that cannot be trained on


def negative_counts(at: Path) -> str:
    cells(at / "x.h5ad", np.where(DRAW.random((30, 12)) < 0.1, -2.5, 3.0))
    return "kind: h5ad, path: x.h5ad"


def counts_that_are_no_numbers(at: Path) -> str:
    cells(at / "x.h5ad", np.where(DRAW.random((30, 12)) < 0.3, np.nan, 3.0))
    return "kind: h5ad, path: x.h5ad"


def only_alpha_carbons(at: Path) -> str:
    find("source", "structures").example(at)
    for file in at.glob("*.pdb"):
        file.write_text("".join(line for line in file.read_text().splitlines(True) if line[13:15] not in ("N ", "C ")))
    return "kind: structures, path: ."


def empty_clouds(at: Path) -> str:
    (at / "x").mkdir()
    for count in range(12):
        (at / "x" / f"{count}.xyz").write_text("\n")
    return "kind: points, path: x"


def clouds_with_nan(at: Path) -> str:
    clouds = DRAW.normal(size=(12, 20, 3))
    clouds[:, 3, 1] = np.nan
    np.save(at / "x.npy", clouds)
    return "kind: arrays, path: x.npy"


def series_without_a_number(at: Path) -> str:
    (at / "x.csv").write_text("date,load\n" + "".join(f"2020-01-{day:02},NaN\n" for day in range(1, 31)))
    return "kind: series, path: x.csv"


def series_with_infinity(at: Path) -> str:
    rows = DRAW.normal(size=(40, 32))
    rows[:, 4] = np.inf
    np.save(at / "x.npy", rows)
    return "kind: arrays, path: x.npy, fields: {data: series}"


def sounds_without_samples(at: Path) -> str:
    (at / "x").mkdir()
    for count in range(4):
        sound(at / "x" / f"{count}.wav", np.zeros(0))
    return "kind: audio, path: x"


def sound_of_an_absurd_rate(at: Path) -> str:
    (at / "x").mkdir()
    sound(at / "x" / "0.wav", np.zeros(400))
    head = bytearray((at / "x" / "0.wav").read_bytes())
    head[24:28] = (43_516_029).to_bytes(4, "little")
    (at / "x" / "0.wav").write_bytes(head)
    return "kind: audio, path: x"


def actions_with_infinity(at: Path) -> str:
    np.savez(at / "x.npz", acts=np.full((40, 2), np.inf), obs=np.zeros((40, 1)), indices=np.arange(4, 40, 4))
    return "kind: rollouts, path: x.npz"


def steps_without_an_action(at: Path) -> str:
    (at / "x.jsonl").write_text('{"episode": 0, "act": 1}\n' * 9)
    return "kind: rollouts, path: x.jsonl"


def pictures_of_one_channel_axis_too_few(at: Path) -> str:
    np.save(at / "x.npy", np.zeros((20, 16, 16), np.uint16))
    return "kind: arrays, path: x.npy, fields: {data: microscopy}"


def letters_that_are_no_residue(at: Path) -> str:
    (at / "x.fasta").write_text("".join(f">p{n}\nMKTAYIAKQR1SFVKSHFSR\n" for n in range(20)))
    return "kind: fasta, path: x.fasta, alphabet: protein"


BAD = {
    negative_counts: ("cells", ["x.h5ad", "negative numbers"]),
    counts_that_are_no_numbers: ("cells", ["x.h5ad", "nan"]),
    only_alpha_carbons: ("structure", ["no residue has all of N, CA and C"]),
    empty_clouds: ("points", ["0.xyz", "empty"]),
    clouds_with_nan: ("points", ["x.npy", "not finite"]),
    series_without_a_number: ("series", ["x.csv", "no column of numbers"]),
    series_with_infinity: ("series", ["x.npy", "finite"]),
    sounds_without_samples: ("audio", ["0.wav", "no samples"]),
    sound_of_an_absurd_rate: ("audio", ["0.wav", "43,516,029 samples a second"]),
    actions_with_infinity: ("actions", ["x.npz", "infinite"]),
    steps_without_an_action: ("actions", ["x.jsonl:1", "no 'action'", "act"]),
    pictures_of_one_channel_axis_too_few: ("stains", ["x.npy", "cannot be read as 'microscopy'"]),
    letters_that_are_no_residue: ("protein", ["x.fasta", "'1'"]),
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.__name__)
def test_bad_data(case, tmp_path, told):
    name, words = BAD[case]
    (tmp_path / "r.yaml").write_text(recipe(name, case(tmp_path)))
    said = told("train", "r.yaml", "--out", "run")
    assert all(word in said for word in words), said


# What a trained model has never seen


def test_genes_never_seen(trained, told, tmp_path):
    trained("cells")
    cells(tmp_path / "y.h5ad", np.ones((8, 5)), "ENSG")
    assert "none of the 5 genes of the cell, such as 'ENSG0'" in told("embed", "run", "y.h5ad", "-o", "y.npy")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 16, 16, 6), "has 6 channels, but"),
        ((8, 64, 64, 5), "outside the learned table of 8 rows"),
        ((8, 14, 16, 5), "14 by 16"),
    ],
)
def test_pictures_of_another_shape(trained, told, tmp_path, shape, words):
    """Other channels, more patches than the table of positions has, and patches that do not fit."""
    trained("stains")
    np.savez(tmp_path / "y.npz", stains=np.ones(shape, np.uint16))
    assert words in told("embed", "run", "y.npz", "-o", "y.npy")


def test_a_residue_that_is_none(trained, told):
    trained("protein")
    assert "'1'" in told("embed", "run", "--text", "MKT1", "-o", "y.npy")


def test_rows_of_another_table(trained, told, tmp_path):
    trained("row")
    (tmp_path / "y.csv").write_text("knid,tall\n" + "".join(f"{'ab'[n % 2]},{n}\n" for n in range(20)))
    assert "none of the columns kind, height, age" in told("embed", "run", "y.csv", "-o", "y.npy")


def test_actions_never_seen(trained, told, tmp_path):
    trained("actions")
    np.savez(tmp_path / "y.npz", acts=np.full(20, 7), obs=np.zeros((20, 2)), rews=np.ones(20), indices=[5, 10])
    assert "action 7 of column 0 was not in the training data; known: 0, 1, 2" in told(
        "embed", "run", "y.npz", "-o", "y.npy"
    )


@pytest.mark.parametrize(("name", "kind"), [("row", "unknown category"), ("text", "unknown characters")])
def test_what_is_unknown_but_may_be(trained, tmp_path, name, kind):
    """An unknown category or character has a token of its own: it is read, not refused."""
    trained(name)
    (tmp_path / "y.csv").write_text("kind,height,age\n" + "".join(f"{'xy'[n % 2]},{n}.5,{n}\n" for n in range(20)))
    args = ["y.csv"] if name == "row" else ["--text", "жщ"]
    assert main(["embed", "run", *args, "-o", "y.npy"]) == 0
    assert np.isfinite(np.load(tmp_path / "y.npy")).all()


def test_a_missing_number_of_a_series_is_no_error(trained, tmp_path):
    trained("series")
    days = "".join(f"2020-{n // 28 + 1:02}-{n % 28 + 1:02},{n if n % 7 else 'NaN'}\n" for n in range(64))
    (tmp_path / "y.csv").write_text(f"date,high\n{days}")
    assert main(["embed", "run", "y.csv", "-o", "y.npy"]) == 0
    assert np.isfinite(np.load(tmp_path / "y.npy")).all()
