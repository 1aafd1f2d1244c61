"""Runs that begin from other models (`start`) and from published architectures (`family`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaForCausalLM

import sevenfold as sf
from exchanged import gpt2, reloaded
from sevenfold.cli import main
from sevenfold.core.errors import ConfigError
from sevenfold.training.pretrain import planned
from sevenfold.training.recipe import read_recipe
from tiny import text_file

TRAIN = {"steps": 3, "batch": 2, "precision": "fp32", "save_every": 1, "evaluate_every": 3}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    gpt2(folder / "gpt2")
    text_file(folder, 3000)
    return folder


def going_on(home: Path, **more) -> dict:
    data = {"kind": "text", "path": str(home / "words.txt")}
    return {"start": str(home / "gpt2"), "data": data, "objective": "next_token", "train": TRAIN} | more


def quiet(recipe, out, **more) -> tuple[sf.Run, list[str]]:
    said: list[str] = []
    return sf.train(recipe, out=out, say=said.append, bar=False, **more), said


def test_a_recipe_is_filled_from_what_it_begins_from(home):
    recipe = read_recipe(going_on(home, trunks={"lm": {"frozen": True}}, streams={"text": {"length": 16}}))
    assert recipe.trunks["lm"].width == 32 and recipe.trunks["lm"].frozen
    assert recipe.streams["text"].length == 16 and recipe.streams["text"].tokenizer.kind == "published"
    assert read_recipe(going_on(home), ["trunks.lm.dropout=0.5"]).trunks["lm"].dropout == 0.5


def test_it_begins_with_the_weights_and_tokenizer(home, tmp_path):
    run, said = quiet(going_on(home), tmp_path / "run")
    assert any("begins from" in line and "28 tensors" in line for line in said)
    start = sf.load_published(home / "gpt2")
    away = [float((value - start.state_dict()[name]).abs().max()) for name, value in run.model.state_dict().items()]
    assert 0 < max(away) < 0.02, "three small steps"
    assert run.model.tokenize(["a wall"])["text"].values.tolist() == start.tokenize(["a wall"])["text"].values.tolist()
    assert "from the weights of" in (tmp_path / "run" / "README.md").read_text()
    assert sf.load(tmp_path / "run").published["config"]["model_type"] == "gpt2"


def test_it_resumes_bit_for_bit_without_what_it_began_from(home, tmp_path):
    shutil.copytree(home / "gpt2", tmp_path / "start")
    recipe = going_on(home, start=str(tmp_path / "start"))
    whole, _ = quiet(recipe, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("manifest.json", "model.safetensors", "results.json"):
        (tmp_path / "cut" / name).unlink()
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000003")
    shutil.rmtree(tmp_path / "start")
    again, _ = quiet(tmp_path / "cut", None, resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert again.model.published == whole.model.published


def test_continuing_is_one_command(home, tmp_path, capsys):
    out, back = str(tmp_path / "run"), str(tmp_path / "back")
    assert (
        main(["pretrain", str(home / "words.txt"), "--from", str(home / "gpt2"), "--minutes", "0.02", "--out", out])
        == 0
    )
    assert "begins from" in capsys.readouterr().out
    assert main(["convert", out, back]) == 0
    assert "28 published tensors are 28 of ours" in capsys.readouterr().out
    run = sf.load(out)
    theirs = reloaded(GPT2LMHeadModel, Path(back))
    ids = torch.arange(20)[None]
    assert torch.allclose(run.logits(ids), theirs(ids).logits, atol=1e-5, rtol=0)
    assert main(["evaluate", back, str(home / "words.txt")]) == 0
    assert "token frequencies" in capsys.readouterr().out
    assert main(["generate", back, "a wall", "--length", "3"]) == 0
    assert main(["embed", back, str(home / "words.txt"), "-o", str(tmp_path / "x.npy")]) == 0


def test_a_run_can_be_begun_from_as_well(home, tmp_path):
    first, _ = quiet(going_on(home), tmp_path / "first")
    made = planned(home / "words.txt", 0.02, start=tmp_path / "first")
    assert made.recipe.objective.kind == "next_token" and made.recipe.start == str(tmp_path / "first")
    second, said = quiet(going_on(home, start=str(tmp_path / "first")), tmp_path / "second")
    assert any("begins from" in line for line in said)
    sf.publish(second.model, tmp_path / "back")
    reloaded(GPT2LMHeadModel, tmp_path / "back")


def test_new_trunks_are_new_and_heads_that_go_are_said(home, tmp_path):
    two = {"two": {"inputs": ["lm"], "width": 8, "depth": 1, "mask": {"causal": True}}}
    _, said = quiet(going_on(home, trunks=two, objective={"kind": "next_token", "trunk": "lm"}), tmp_path / "run")
    assert any("new: trunks.two" in line for line in said)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trunks": {"lm": {"width": 64}}}, r"start: .* has shape \["),
        ({"trunks": {"lm": {"depth": 3}}}, "has no 'trunks.lm.blocks.2"),
        ({"trunks": {"lm": {"depth": 1}}}, "no place for"),
        ({"streams": {"text": {"tokenizer": {"kind": "bytes"}}}}, r"start: trunks.lm.embeds.text.weight has shape"),
        ({"start": "nowhere/at-all"}, "is no folder here"),
        ({"family": {"kind": "gpt2"}}, "start: it has a family already|start and family: give one"),
        ({"start": 3}, "the name of a folder"),
    ],
)
def test_what_does_not_fit(home, tmp_path, monkeypatch, changes, told):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(sf.SevenfoldError, match=told) as caught:
        quiet(going_on(home, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value)


# From scratch


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ({"kind": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, GPT2LMHeadModel),
        (
            {"kind": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 48},
            LlamaForCausalLM,
        ),
    ],
)  # fmt: skip
def test_a_family_from_scratch_to_the_published_layout(home, tmp_path, family, kind):
    recipe = going_on(home, family=family, streams={"text": {"tokenizer": {"kind": "bpe", "size": 300}, "length": 32}})
    del recipe["start"]
    run, _ = quiet(recipe, tmp_path / "run")
    sf.convert(tmp_path / "run", tmp_path / "back", say=lambda _: None)
    theirs = reloaded(kind, tmp_path / "back")
    ids = torch.arange(20)[None]
    assert torch.allclose(run.model.logits(ids), theirs(ids).logits, atol=1e-5, rtol=0)
    assert theirs.config.vocab_size == run.model.modalities["text"].tokenizer.size
    again = sf.load_published(tmp_path / "back")
    for text in ("a green bottle", "the wall <eos>"):
        assert (
            again.modalities["text"].tokenizer.encode(text).values
            == run.model.modalities["text"].tokenizer.encode(text).values
        ).all()


def test_a_family_says_what_it_needs(home, tmp_path):
    recipe = going_on(home, family={"kind": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64})
    del recipe["start"]
    with pytest.raises(ConfigError, match="streams.text.tokenizer: "):
        quiet(recipe, tmp_path / "run")
    recipe["family"]["n_embed"] = 3
    with pytest.raises(ConfigError, match=r"family.n_embed: unknown field 'n_embed'; did you mean 'n_embd'"):
        quiet(recipe, tmp_path / "run")


def test_a_model_that_is_wired_otherwise_is_not_published_as_its_family(home, tmp_path):
    recipe = going_on(home, trunks={"lm": {"mask": {"window": 8}}})
    run, _ = quiet(recipe, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"trunks.lm.mask.window: differs from what the published family has there"):
        sf.publish(run.model, tmp_path / "back")
