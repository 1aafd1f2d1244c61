"""Every recipe that ships: it decodes, its full-size twin has the same shape, and the tiny one trains for real."""

from __future__ import annotations

import math
import time

import pytest

import sevenfold as sf
from sevenfold.core.notation import read
from sevenfold.training import checkpoint
from sevenfold.training.recipe import read_recipe, shipped_folder
from sevenfold.training.wiring import filled

ALL = sorted(path.stem for path in shipped_folder().glob("*.yaml"))
TINY = [name for name in ALL if name.startswith("tiny_")]
BEATS = {"tiny_vit": "accuracy", "tiny_clip": "recall@1", "tiny_audio": "accuracy", "tiny_digits": "accuracy"}
"""Terms of which more is better."""
STEPS = {
    "tiny_actions": 40, "tiny_audio": 50, "tiny_codes": 60, "tiny_codes_fsq": 60, "tiny_conditional_digits": 50,
    "tiny_digits": 60, "tiny_digits_any_to_any": 50, "tiny_dna": 60, "tiny_esm": 150, "tiny_flamingo": 40, "tiny_gpt": 50,
    "tiny_hyena_dna": 40, "tiny_llama": 50, "tiny_mamba": 30, "tiny_microscopy": 50, "tiny_molecules": 60,
    "tiny_points": 50, "tiny_series": 110, "tiny_striped_dna": 40, "tiny_structure": 110,
    "tiny_table": 60, "tiny_vilbert": 50,
}  # fmt: skip
"""After so many steps, fewer than the recipe makes, each beats the trivial already. Another recipe makes its own."""


def test_every_tiny_twin_has_a_full_one() -> None:
    assert {name.removeprefix("tiny_") for name in TINY} <= set(ALL)
    assert {"gpt", "bert", "vit", "mae", "clip", "esm", "dna", "digits_any_to_any"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_decodes_and_says_what_it_is(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.train.steps > 0
    assert (shipped_folder() / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("name", [name.removeprefix("tiny_") for name in TINY])
def test_the_twin_has_the_same_shape(name: str) -> None:
    full, tiny = (filled(read(shipped_folder() / f"{kind}.yaml")) for kind in (name, f"tiny_{name}"))
    assert list(full["trunks"]) == list(tiny["trunks"])
    assert full["objective"]["kind"] == tiny["objective"]["kind"]
    assert {s["kind"] for s in full["streams"].values()} == {s["kind"] for s in tiny["streams"].values()}


@pytest.mark.parametrize("name", TINY)
def test_tiny_recipes_train_and_beat_the_trivial(name: str, tmp_path) -> None:
    began = time.perf_counter()
    fewer = [f"train.steps={STEPS[name]}"] if name in STEPS else []
    run = sf.train(name, tmp_path / "run", overrides=fewer, say=lambda line: None, bar=False)
    print(f"{name}: {time.perf_counter() - began:.1f} s")
    steps = [record for record in run.log if "loss" in record]
    assert [record["step"] for record in steps] == list(range(1, run.recipe.train.steps + 1))
    assert len(checkpoint.listed(run.folder)) >= 1
    assert math.isfinite(run.loss)
    first = sum(record["loss"] for record in steps[:5]) / 5
    assert run.loss < first
    term = BEATS.get(name, "nats")
    for title, found in run.results["baselines"].items():
        for figure, value in found.items():
            if title.startswith("logistic"):
                continue  # a hundred small steps need not beat it; the full recipe does
            if figure == term and name in BEATS:
                assert run.results["held_out"][figure] > value, title
            elif name not in BEATS:
                assert run.results["held_out"][figure] < value, title
    for file in (
        "recipe.yaml",
        "config.json",
        "model.safetensors",
        "log.jsonl",
        "report.html",
        "README.md",
        "manifest.json",
    ):
        assert (run.folder / file).stat().st_size > 0
    page = (run.folder / "report.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    model = sf.load(run.folder)
    assert sum(p.numel() for p in model.parameters()) == run.results["parameters"]


def test_a_perfect_answer_is_known_for_generated_bases(tmp_path) -> None:
    """On a Markov chain of known entropy the model comes near it, and not below."""
    run = sf.train("tiny_dna", tmp_path / "run", overrides=["train.steps=150"], say=lambda line: None, bar=False)
    entropy = run.recipe.data.build().entropy
    assert entropy - 0.03 < run.loss < entropy + 0.12, (run.loss, entropy)
