"""Whole models packed for reading only: near the original, refused where the original is needed, and what it costs."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from drawing import speaker
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.packing import pack, perplexity
from sevenfold.blocks.projection.packing import Packing
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.part import decode, find
from sevenfold.core.rooms import kinds
from sevenfold.core.types import Stream
from tiny import made, recipe

KINDS = kinds("packing")
OFF = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.03, "int8_dynamic": 0.05, "int4": 0.25}
"""How far logits may be from those of the original, as a share of their size (the norm of all)."""


def language_model(head="tied", bias=True, width=96) -> Model:
    """A causal model of bytes with lively weights."""
    torch.manual_seed(4)
    block = {"projection": {"kind": "linear", "bias": bias}, "nonlinearity": "swiglu", "norm": "rms"}
    trunk = {"inputs": ["text"], "width": width, "depth": 2, "block": block, "mask": {"causal": True}}
    streams = {"text": {"kind": "text", "length": 24}}
    heads = {"text": {"trunk": "lm", "stream": "text", "projection": head}}
    config = decode(ModelConfig, {"streams": streams, "trunks": {"lm": trunk}, "heads": heads})
    model = Model(config, {name: modality.build() for name, modality in config.streams.items()})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.4 if "embeds" in name else parameter.shape[-1] ** -0.5)
    return model.eval()


def ids(rows=2, tokens=20):
    return torch.randint(256, (rows, tokens), generator=torch.Generator().manual_seed(1))


def test_every_kind_is_told_of():
    assert OFF.keys() <= set(KINDS)


@pytest.mark.parametrize("kind", OFF)
@pytest.mark.parametrize(("head", "bias", "width"), [("tied", True, 96), ("linear", False, 40)])
def test_a_packed_model_is_near_the_original(kind, head, bias, width):
    model = language_model(head, bias, width)
    with torch.no_grad():
        wanted = language_model(head, bias, width).double().logits(ids())
        assert model.packed is None
        assert pack(model, kind) is model
        found = model.logits(ids()).double()
    assert model.packed == kind
    wrong = float((found - wanted).norm() / wanted.norm())
    assert (1e-9 if kind == "float32" else 1e-4) < wrong < OFF[kind]
    left = {name for name, _ in model.named_parameters() if "norm" not in name}
    assert left == {"trunks.lm.embeds.text.weight"}
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", OFF)
def test_it_steps_as_it_goes(kind):
    """Token by token a packed model gives what it gives at once, to the rounding of its products; rows are by themselves."""
    model = pack(language_model(), kind)
    trunk, given = model.trunks["lm"], Stream(ids(), torch.arange(20)[None, :, None].expand(2, -1, -1))
    with torch.no_grad():
        whole = trunk({"text": given}).x
        state, found = trunk.start(2, 20), []
        for place in range(20):
            hidden, state = trunk.step(trunk.embed("text", given.slice(place, place + 1)), state)
            found.append(hidden.x)
        alone = trunk({"text": given.rows(slice(1, 2))}).x
    near = 1e-4 if kind == "float32" else 0.02
    assert float((torch.cat(found, 1) - whole).norm() / whole.norm()) < near
    assert float((alone - whole[1:]).norm() / whole[1:].norm()) < near


@pytest.mark.parametrize("kind", OFF)
def test_where_torch_has_no_kernel(kind, monkeypatch):
    """On other devices and versions the same entries are used."""
    rooms = "sevenfold.blocks.projection.packing"
    for name in ("int8", "int8_dynamic", "int4", "_onednn"):
        monkeypatch.setattr(importlib.import_module(f"{rooms}.{name}"), "has", lambda *_: False)
    part, weight, bias = find("packing", kind), torch.randn(70, 90), torch.randn(70)
    plain = part.Config().build(weight, bias)
    monkeypatch.undo()
    fast, x = part.Config().build(weight, bias), torch.randn(5, 90)
    assert torch.allclose(plain(x), fast(x), rtol=0, atol=4 * (part.rounds + 1e-6) * float(fast(x).abs().max()))
    assert torch.allclose(plain(torch.eye(90)), fast(torch.eye(90)), rtol=0, atol=2 * part.rounds * 5)


@pytest.mark.parametrize("width", [32, 40, 70, 96])
def test_eight_bits_of_any_width(width):
    """The kernel by itself reads past rows whose width is no multiple of 32."""
    weight, x = torch.randn(48, width), torch.randn(4, width)
    packed = find("packing", "int8").Config().build(weight)
    assert float((packed(x) - x @ weight.T).norm() / (x @ weight.T).norm()) < 0.02


def test_fewer_bytes():
    def total(model):
        return sum(module.bytes for module in model.modules() if isinstance(module, Packing))

    sizes = {kind: total(pack(language_model(width=256), kind)) for kind in OFF}
    assert sizes["bfloat16"] * 2 == sizes["float32"]
    assert sizes["int8"] < 0.26 * sizes["float32"]
    assert sizes["int4"] < 0.145 * sizes["float32"]


def test_heads_by_themselves():
    model = pack(language_model(), "int4", heads="bfloat16")
    assert model.packed == "int4" and model.heads["text"].projection.kind == "bfloat16"
    assert model.trunks["lm"].blocks[0].mixer.qkv.kind == "int4"


@pytest.mark.parametrize("kind", OFF)
def test_what_a_packed_model_refuses(kind, tmp_path):
    model = language_model().quantize(kind)
    for action in (model.train, model.state_dict, lambda: save_file(model.state_dict(), tmp_path / "x.safetensors")):
        with pytest.raises(ConfigError, match=f"packed \\({kind}\\).*load it again"):
            action()
    with pytest.raises(ConfigError, match="packed already"):
        model.quantize("int8")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"packing.*did you mean 'int8'"):
        language_model().quantize("int88")


def test_a_run_of_a_packed_model_does_not_begin(tmp_path):
    ready = made(recipe("next_token", tmp_path))
    ready.model.quantize("bfloat16")
    with pytest.raises(ConfigError, match="load it again to train it"):
        ready.objective.train()


@pytest.mark.parametrize("kind", OFF)
def test_a_packed_model_draws(kind):
    """It draws what it drew before where that was clear, and what its own logits say."""
    model = language_model()
    before = model.generate("ab", temperature=0, length=8)
    model.quantize(kind)
    drawn = model.generate("ab", temperature=0, length=8)
    assert len(drawn[0].encode(errors="replace")) >= 3
    if kind == "float32":
        assert drawn == before
    assert model.embed(["some words"]).shape == (1, 96)


def test_perplexity_by_hand():
    model, text = language_model(), "The quick brown fox jumps over the lazy dog, and then it sleeps."
    values = model.modalities["text"].tokenizer.encode(text).values
    total = count = 0
    with torch.no_grad():
        for start in range(0, len(values), 24):
            part = torch.as_tensor(values[start : start + 24])[None]
            shares = model.double().logits(part)[0].log_softmax(-1)
            total -= sum(float(shares[i, part[0, i + 1]]) for i in range(part.shape[1] - 1))
            count += part.shape[1] - 1
    model = model.float()
    assert perplexity(model, text) == pytest.approx(np.exp(total / count), rel=1e-5)
    assert perplexity(model, values) == pytest.approx(perplexity(model, text))
    assert perplexity(model, values, window=7) != pytest.approx(perplexity(model, text))
    near = {kind: abs(np.log(perplexity(pack(language_model(), kind), text) / np.exp(total / count))) for kind in OFF}
    assert near["float32"] < 1e-4 and near["bfloat16"] < 0.02 and near["int8"] < 0.03 and 0.001 < near["int4"] < 0.5


@pytest.mark.parametrize("given", ["a", np.array([], np.int64), np.zeros((2, 4), np.int64)])
def test_perplexity_of_too_little(given):
    with pytest.raises(DataError, match="two ids in a row"):
        perplexity(language_model(), given)


def test_perplexity_goes_as_far_as_positions_reach():
    model = speaker(position={"kind": "learned", "size": 12})
    text = "a text that is longer than that"
    assert perplexity(model, text) == perplexity(model, text, window=12) != perplexity(model, text, window=11)
