"""Adapters in a model: the start bit for bit, gradients, merging within rounding, published layouts, generation with prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

import sevenfold as sf
from exchanged import gpt2
from sevenfold.adaptation.peft import save_peft
from sevenfold.assembly.adapter import merged
from sevenfold.assembly.adapter.lora import LoRA, lows
from sevenfold.assembly.adapter.prompt import Prompt
from sevenfold.assembly.model import Model
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode
from sevenfold.core.types import Stream
from sevenfold.training.recipe import read_recipe
from tiny import recipe, text_file

TWINS = {
    "bert": lambda: BertForMaskedLM(
        BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=300)
    ),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
            vocab_size=300, tie_word_embeddings=False,
        )
    ),
    "gpt2": lambda: gpt2(),
}  # fmt: skip


def adapted(base: Model, adapter, lively: bool = False) -> Model:
    """A model with an adapter, the rest its own."""
    torch.manual_seed(0)
    model = Model(base.config.replace(adapter=adapter), base.modalities)
    model.load_state_dict({**model.state_dict(), **base.state_dict()})
    model.published, model.luggage = base.published, base.luggage
    if lively:
        with torch.no_grad():
            for name in sorted(model.adapted):
                model.get_parameter(name).normal_(0, 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    text_file(folder)
    gpt2(folder / "gpt2")
    return folder


@pytest.fixture(scope="module")
def base(home) -> Model:
    return sf.load_published(home / "gpt2")


IDS = torch.arange(4, 44).reshape(4, 10)


@torch.no_grad()
def test_at_the_start_every_number_is_what_it_was(base):
    assert torch.equal(adapted(base, LoRA.Config(dropout=0.5)).logits(IDS), base.logits(IDS))
    assert torch.equal(adapted(base, Prompt.Config(tokens=0)).logits(IDS), base.logits(IDS))


def test_a_waits_a_step_and_b_does_not(base):
    model = adapted(base, LoRA.Config(rank=2)).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
    for step in range(2):
        optimizer.zero_grad()
        model.logits(IDS).logsumexp(-1).sum().backward()
        for low in lows(model).values():
            assert bool(low.A.grad.any()) == (step == 1) and low.B.grad.any()
        optimizer.step()
    before = base.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in before)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 2**-21), (torch.float64, 2**-49)])
@torch.no_grad()
def test_merging_is_wrong_by_no_more_than_rounding(base, dtype, within):
    model = adapted(base, LoRA.Config(rank=3, alpha=5.0, rslora=True), lively=True).to(dtype)
    state, plain = model.state_dict(), merged(model)
    assert plain.adapter is None and plain.logits(IDS).dtype == dtype
    for name, low in lows(model).items():
        a, b, w = (value.double() for value in (low.A, low.B, state[f"{name}.weight"]))
        wanted = w + 5.0 / 3**0.5 * (b @ a)
        assert torch.equal(plain.state_dict()[f"{name}.weight"], wanted.to(dtype))  # rounded once
    found, wanted = plain.logits(IDS), model.logits(IDS)
    assert (found - wanted).abs().max() <= within * 8 * wanted.abs().max()
    assert all(
        torch.equal(value, model.state_dict()[name]) for name, value in state.items()
    )  # unmerging is having kept it
    assert (model.logits(IDS) - base.to(dtype).logits(IDS)).abs().max() > 0.05
    base.to(torch.float32)


@pytest.mark.parametrize("kind", TWINS)
@torch.no_grad()
def test_the_layout_of_peft_put_on_by_hand_is_our_model(kind, tmp_path):
    theirs = TWINS[kind]().eval()
    theirs.save_pretrained(tmp_path / "base")
    model = adapted(sf.load_published(tmp_path / "base"), LoRA.Config(rank=4, alpha=6.0), lively=True)
    save_peft(model, tmp_path / "peft")
    settings = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    tensors = load_file(tmp_path / "peft/adapter_model.safetensors")
    modules = dict(theirs.named_modules())
    assert len(settings["target_modules"]) == len(tensors) // 2 and settings["peft_type"] == "LORA"
    for name in settings["target_modules"]:
        a, b = (tensors.pop(f"base_model.model.{name}.lora_{letter}.weight") for letter in "AB")
        delta = settings["lora_alpha"] / settings["r"] * b @ a
        modules[name].weight += delta.T if settings["fan_in_fan_out"] else delta
    assert not tensors
    wanted = theirs(IDS).logits
    assert torch.allclose(model.logits(IDS), wanted, atol=2e-6)
    sf.publish(model, tmp_path / "merged")
    again = type(theirs).from_pretrained(tmp_path / "merged").eval()
    assert torch.allclose(again(IDS).logits, wanted, atol=2e-6)


def test_what_peft_has_no_place_for_is_refused(base, tmp_path):
    with pytest.raises(ConfigError, match="no low-rank adapter"):
        save_peft(base, tmp_path)
    model = adapted(base, LoRA.Config(rank=2))
    model.published = {}
    with pytest.raises(ConfigError, match="no published family"):
        save_peft(model, tmp_path)
    with pytest.raises(ConfigError, match="cannot be merged"):
        sf.publish(adapted(base, Prompt.Config(tokens=2)), tmp_path / "out")


@torch.no_grad()
def test_a_packed_model_has_its_adapter_in_its_weights(base):
    model = adapted(base, LoRA.Config(rank=2), lively=True)
    wanted = model.logits(IDS)
    assert torch.allclose(model.quantize("float32").logits(IDS), wanted, atol=1e-5)


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("class_token", [False, True])
@torch.no_grad()
def test_prompts_move_no_place_and_leave_no_trace(index, class_token):
    trunk = {
        "inputs": ["text"], "width": 32, "depth": 2, "index": index, "mask": {"causal": True}, "class_token": class_token,
        "position": {"kind": "learned", "size": 64},
    }  # fmt: skip
    data = {
        "data": "digits",
        "streams": {"text": {"kind": "text", "field": "caption", "length": 40}},
        "trunks": {"lm": trunk},
    }
    config = read_recipe({**data, "objective": "next_token"}).wiring
    heads = {"text": {"trunk": "lm", "stream": "text"}}
    config = decode(type(config), {**{k: getattr(config, k) for k in ("streams", "trunks")}, "heads": heads})
    torch.manual_seed(0)
    plain = Model(config, {"text": config.streams["text"].build()}).eval()
    model = adapted(plain, Prompt.Config(tokens=3), lively=True)
    batch = model.tokenize(["a handwritten five", "two"])
    for name, hidden in model(batch).items():
        other = plain(batch)[name]
        assert hidden.x.shape == other.x.shape and hidden.spans == other.spans
        assert not torch.allclose(hidden.x, other.x, atol=1e-3)
    trunk = model.trunks["lm"]
    placed = trunk._finish(trunk.join([trunk.embed("text", batch["text"])]))
    lone = plain.trunks["lm"]._finish(plain.trunks["lm"].join([plain.trunks["lm"].embed("text", batch["text"])]))
    assert torch.equal(placed.coords[:, 3:], lone.coords) and not placed.coords[:, :3].any()
    one = model(model.tokenize(["two"]))["lm"].x
    assert torch.allclose(model(batch)["lm"].x[1:, : one.shape[1]], one, atol=1e-5)  # padding
    # a few tokens and then one by one give what a whole pass gives
    ids = torch.as_tensor(model.modalities["text"].tokenizer.encode("the digit").values)[None]
    coords = torch.arange(ids.shape[1])[None, :, None]
    whole = model({"text": Stream(ids, coords)})["lm"].of("text").x
    state, found = trunk.start(1, 32), []
    for start, stop in ((0, 3), *((place, place + 1) for place in range(3, ids.shape[1]))):
        piece = trunk.embed("text", Stream(ids[:, start:stop], coords[:, start:stop]))
        hidden, state = trunk.step(trunk.join([piece], extras=not start), state)
        found.append(hidden.x[:, start - stop :])
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-5)


def test_an_adapted_run_is_trained_resumed_and_loaded(home, tmp_path):
    made = {
        **recipe("next_token", home, steps=4, batch=4, precision="fp32", save_every=2),
        "adapter": {"kind": "lora", "rank": 2},
    }
    run = sf.train(made, tmp_path / "a", say=lambda _: None, bar=False)
    first = load_file(tmp_path / "a/checkpoints/step-00000002/model.safetensors")
    last = load_file(tmp_path / "a/model.safetensors")
    for name, value in last.items():
        assert torch.equal(value, first[name]) != (name in run.model.adapted), name
    state = load_file(tmp_path / "a/checkpoints/step-00000004/optimizer.safetensors")
    assert {
        name.split("|")[0].removeprefix("model.") for name in state
    } == run.model.adapted  # frozen: not in the optimizer
    again = sf.load(tmp_path / "a")
    assert again.config.adapter.rank == 2 and again.adapted == run.model.adapted
    # going on from it with another adapter merges the first
    said: list[str] = []
    more = {"start": str(tmp_path / "a"), "data": made["data"], "objective": "next_token", "adapter": "prompt"}
    following = sf.train({**more, "train": {"steps": 1, "batch": 4}}, tmp_path / "b", say=said.append, bar=False)
    assert any("its lora merged" in line and "numbers of prompt" in line for line in said)
    name = "trunks.lm.blocks.0.mixer.qkv.weight"
    assert torch.equal(following.model.state_dict()[name], merged(again).state_dict()[name])


def test_what_never_learns_and_what_is_not_there_is_said(home, tmp_path):
    made = recipe("mae", home, steps=2, batch=4)
    blocks = {"objective": {"kind": "supervised", "trunk": "enc"}, "streams": {**made["streams"], "label": "label"}}
    with pytest.raises(
        ConfigError, match=r"adapter: trunks\.dec\.blocks\.0\.mixer\.qkv gets no gradient from supervised"
    ):
        sf.train({**made, **blocks, "adapter": "lora"}, tmp_path / "idle", say=lambda _: None, bar=False)
    for adapter, told in (
        ({"kind": "lora", "targets": ["qvk"]}, "adapter.targets: no projection is called 'qvk'; did you mean 'qkv'"),
        ({"kind": "lora", "trunks": ["encc"]}, "adapter.trunks: there is no 'encc'; did you mean 'enc'"),
        ({"kind": "lora", "rnak": 3}, "adapter.rnak: unknown field 'rnak'; did you mean 'rank'"),
        ({"kind": "loar"}, "no adapter is called 'loar'; did you mean 'lora'"),
    ):
        with pytest.raises(ConfigError, match=told.replace(".", r"\.").replace("?", r"\?")):
            sf.train({**made, "adapter": adapter}, tmp_path / "wrong", say=lambda _: None, bar=False)
