"""The main job on a person's own file: recognise, plan, train."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import sevenfold as sf
from sevenfold.cli import main
from sevenfold.core import notation
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source.digits import Digits
from sevenfold.training.pretrain import planned as plan
from sevenfold.training.recipe import read_recipe

WORDS = [
    "the",
    "model",
    "reads",
    "what",
    "it",
    "is",
    "given",
    "and",
    "says",
    "what",
    "comes",
    "next",
    "after",
    "a",
    "while",
    "of",
    "training",
    "on",
    "text",
]


@pytest.fixture
def files(tmp_path):
    """One small real file or folder of each kind."""
    draw = numpy_generator("pretrain tests")
    text = tmp_path / "speech.txt"
    text.write_text("".join(" ".join(draw.choice(WORDS, 9)) + ".\n" for _ in range(600)))
    dna = tmp_path / "genome.fasta"
    dna.write_text("".join(f">r{i}\n{''.join(draw.choice(list('ACGT'), 300))}\n" for i in range(60)))
    protein = tmp_path / "proteins.faa"
    protein.write_text("".join(f">p{i}\n{''.join(draw.choice(list('LAGVSERTIDPKQNFYMHWC'), 80))}\n" for i in range(60)))
    table = tmp_path / "rows.csv"
    table.write_text(
        "text,label\n" + "".join(f"{' '.join(draw.choice(WORDS, 12))},{'ab'[i % 2]}\n" for i in range(200))
    )
    digits, plain, said = Digits(Digits.Config(limit=60)), tmp_path / "pictures", tmp_path / "captioned"
    for folder in (plain, said):
        folder.mkdir()
        for i in range(60):
            sample = digits[i]
            Image.fromarray(sample["image"][:, :, 0]).resize((16, 16)).save(folder / f"{i}.png")
            if folder is said:
                (folder / f"{i}.txt").write_text(sample["caption"])
    np.save(tmp_path / "images.npy", np.stack([digits[i]["image"][:, :, 0] for i in range(60)]))
    return tmp_path


EXPECTED = {
    "speech.txt": "next_token",
    "genome.fasta": "next_token",
    "proteins.faa": "masked_token",
    "rows.csv": "next_token",
    "pictures": "mae",
    "captioned": "infonce",
    "images.npy": "mae",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_kind_of_data_gets_a_plan_that_trains(files, name, tmp_path) -> None:
    made = plan(files / name, minutes=0.02)
    assert made.recipe.objective.kind == EXPECTED[name]
    assert any("held out" in line for line in made.found)
    assert any("steps of" in line for line in made.reasons)
    short = made.recipe.replace(train=made.recipe.train.replace(steps=2))
    run = sf.train(short, tmp_path / "run", say=lambda line: None, bar=False)
    assert np.isfinite(run.loss)


def test_pretrain_is_a_recipe_and_nothing_else(files, tmp_path, capsys) -> None:
    assert main(["pretrain", str(files / "speech.txt"), "--minutes", "0.02", "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    for word in ("duplicates", "unknown", "come back exactly", "width", "steps of"):
        assert word in told
    recipe = read_recipe(tmp_path / "run")
    assert recipe.data.path == str(files / "speech.txt")
    assert sf.load(tmp_path / "run").generate("the model", length=5, temperature=0)[0].startswith("the model")


def test_a_dry_run_prints_a_recipe_that_decodes(files, capsys) -> None:
    assert main(["pretrain", str(files / "rows.csv"), "--minutes", "0.02", "--dry-run"]) == 0
    assert read_recipe(notation.parse(capsys.readouterr().out)).objective.kind == "next_token"


def test_bad_input_is_told(tmp_path, capsys) -> None:
    few = tmp_path / "few.csv"
    few.write_text("text\nhello there\n")
    with pytest.raises(DataError, match="too few"):
        plan(few)
    with pytest.raises(ConfigError, match="minutes"):
        plan(few, minutes=-1)
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("a\n" + "".join(f"{i}.5\n" for i in range(50)))
    assert main(["pretrain", str(numbers)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
