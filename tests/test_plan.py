"""What the planner says by formula against what PyTorch counts, keeps and allocates; and what it finds for a budget."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import sevenfold as sf
from sevenfold.cli import main
from sevenfold.conformance._kit import saved_numbers
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.data.loader import gather
from sevenfold.objective import _told
from sevenfold.training.estimate import bytes_kept, estimate, shape_of, state_numbers
from sevenfold.training.hardware import SHEETS, Hardware
from sevenfold.training.plan import on_meta, resized
from sevenfold.training.precision import autocast
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from sevenfold.training.step import take_step
from sevenfold.training.units import bytes_of, seconds_of

CPU = Hardware("a small CPU", "cpu", 5e10, 1e11, 64.0, 2e10, 2 * 10**9, 3e-6)
N, B = 128, 8


def peak_bytes(function):
    """The most bytes that the allocator of this CPU gave out at a time while a function ran, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        function()
    events = seen.profiler.kineto_results.events()
    live = most = 0
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        live += size
        most = max(most, live)
    return most


def alone(mixer, **trunk):
    """One mixer in a plain trunk over DNA, every row of one length."""
    causal = find("mixing", mixer).continues
    return {
        "data": {"kind": "markov", "letters": "dna", "samples": 40, "size": N},
        "streams": {"dna": {"kind": "dna", "length": N, "pack": False, "tokenizer": {"kind": "kmer", "k": 1}}},
        "trunks": {
            "lm": {"inputs": ["dna"], "width": 64, "depth": 2, "position": "none", "mask": {"causal": causal}, **trunk}
            | {"block": {"mixer": mixer, **trunk.get("block", {})}}
        },
        "objective": {"kind": "next_token" if causal else "masked_token"},
        "train": {"batch": B, "precision": "fp32"},
    }


def made(recipe):
    ready = prepare(read_recipe(recipe))
    batch = gather([ready.train[(0, index)] for index in range(ready.batch)])[0]
    return ready, batch


def measured(ready, batch, precision="fp32"):
    """(bytes kept for the backward pass, peak of a step once the optimizer has its state)."""
    objective, settings = ready.objective.train(), ready.recipe.train
    learned = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimizer = settings.optimizer.build(learned, objective.cares())
    given = [part for stream in batch.values() for part in stream if isinstance(part, torch.Tensor)]
    drawn = objective.draw(batch)
    with autocast(precision, torch.device("cpu")):
        kept = 4 * saved_numbers(
            lambda: objective(batch, drawn).total, [*objective.parameters(), *objective.buffers(), *given]
        )
    step = partial(take_step, objective, optimizer, batch, settings, precision, 0, 0, 0.01)
    step()
    held = sum(tensor.nbytes for tensor in (*objective.parameters(), *objective.buffers(), *given))
    return kept, held + sum(state.nbytes for state in optimizer.tensors().values()) + peak_bytes(step)


def plain():
    found = []
    for kind in kinds("mixing"):
        part = find("mixing", kind)
        if not (part.crosses or part.pairs or part.needs):
            found.append(kind)
    return found


@pytest.mark.parametrize("kind", plain())
def test_every_mixer_in_a_trunk(kind):
    """Kept numbers and the peak within 10 %; FLOPs forward and backward as counted. The counter takes
    the gradient of a convolution in groups for one without groups: it counts more there."""
    ready, batch = made(alone(kind))
    told = estimate(ready.objective, shape_of(batch), ready.recipe.train, "fp32")
    kept, peak = measured(ready, batch)
    assert abs(told.memory["activations"] / kept - 1) < 0.1
    assert abs(told.peak / peak - 1) < 0.1
    with FlopCounterMode(display=False) as forward, sdpa_kernel(SDPBackend.MATH):
        loss = ready.objective(batch).total
    with FlopCounterMode(display=False) as backward, sdpa_kernel(SDPBackend.MATH):
        loss.backward()
    assert told.flops[0] == forward.get_total_flops()
    if torch.ops.aten.convolution_backward in backward.get_flop_counts()["Global"]:
        assert told.flops[1] < backward.get_total_flops()
    else:
        assert abs(told.flops[1] / backward.get_total_flops() - 1) < 1e-3


RECIPES = [
    "tiny_gpt",
    "tiny_bert",
    "tiny_vit",
    "tiny_mae",
    "tiny_clip",
    "tiny_mamba",
    "tiny_codes",
    "tiny_pairformer",
    "tiny_series",
]


@pytest.mark.parametrize("name", RECIPES)
def test_memory_of_recipes(name):
    ready, batch = made(read_recipe(name, ["train.batch=8", "train.precision=fp32"]))
    told = estimate(ready.objective, shape_of(batch), ready.recipe.train, "fp32")
    kept, peak = measured(ready, batch)
    assert told.parameters == sum(p.numel() for p in ready.objective.parameters())
    assert abs(told.memory["activations"] / kept - 1) < 0.1
    assert abs(told.peak / peak - 1) < 0.1


@pytest.mark.parametrize(
    ("name", "trunk"), [("tiny_gpt", "lm"), ("tiny_vit", "enc"), ("tiny_bert", "enc"), ("tiny_mamba", "lm")]
)
def test_memory_in_bf16(name, trunk):
    ready, batch = made(read_recipe(name, ["train.batch=8", f"trunks.{trunk}.width=128"]))
    told = estimate(ready.objective, shape_of(batch), ready.recipe.train, "bf16")
    _, peak = measured(ready, batch, "bf16")
    assert abs(told.peak / peak - 1) < 0.1


@pytest.mark.parametrize("pieces", [2, 4])
def test_a_batch_in_pieces(pieces):
    ready, batch = made(
        read_recipe("tiny_gpt", ["train.batch=16", "train.precision=fp32", f"train.accumulate={pieces}"])
    )
    told = estimate(ready.objective, shape_of(batch), ready.recipe.train, "fp32")
    _, peak = measured(ready, batch)
    assert told.pieces == pieces and abs(told.peak / peak - 1) < 0.1


@pytest.mark.parametrize("residual", ["layer_scale", "hyper_connections", "drop_path"])
@pytest.mark.parametrize("norm", [{}, {"post_norm": True}, {"output_norm": True}], ids=["pre", "post", "output"])
def test_every_way_of_joining(residual, norm):
    ready, batch = made(alone("attention", block={"residual": residual, "dropout": 0.1, **norm}))
    told = estimate(ready.objective, shape_of(batch), ready.recipe.train, "fp32")
    kept, _ = measured(ready, batch)
    assert abs(told.memory["activations"] / kept - 1) < 0.1


def test_blocks_that_stand_elsewhere_and_leave_norms_out():
    """As in ModernBERT: two rotary bases, no norm before the first mixer; and a bias of some blocks alone. Ids are embedded by
    their row."""
    far, near = {"mixer": "attention"}, {"mixer": {"kind": "attention", "window": 9}, "position": "rotary"}
    blocks = [{**far, "norm": ["none", "layer"]}, near, near, {**far, "position": "relative_bias"}]
    recipe = alone("attention", depth=4, position={"kind": "rotary", "base": 500.0})
    recipe["trunks"]["lm"]["block"] = blocks
    recipe["trunks"]["lm"]["mask"] = {"causal": False}
    recipe["objective"] = {"kind": "masked_token"}
    recipe["streams"]["dna"]["projection"] = "token_dropout"
    ready, batch = made(recipe)
    told = estimate(ready.objective, shape_of(batch), ready.recipe.train, "fp32")
    kept, peak = measured(ready, batch)
    assert told.parameters == sum(p.numel() for p in ready.objective.parameters())
    assert abs(told.memory["activations"] / kept - 1) < 0.1
    assert abs(told.peak / peak - 1) < 0.1


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_attention_has_four_squares_of_weights(heads):
    mixer = find("mixing", "attention").Config(heads=heads).build(64)
    assert sum(p.numel() for p in mixer.parameters()) == 4 * 64**2


def test_what_is_frozen_is_neither_kept_nor_learned():
    recipe = read_recipe("tiny_mae", ["train.batch=8", "train.precision=fp32", "trunks.enc.frozen=true"])
    ready, batch = made(recipe)
    told = estimate(ready.objective, shape_of(batch), ready.recipe.train, "fp32")
    inside = [row for row in told.costs if row.place.startswith("enc.")]
    assert not any(row.backward or row.trained or row.kept for row in inside)
    kept, peak = measured(ready, batch)
    assert abs(told.memory["activations"] / kept - 1) < 0.1 and abs(told.peak / peak - 1) < 0.1
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        ready.objective(batch).total.backward()
    assert sum(told.flops) == counter.get_total_flops()


@pytest.mark.parametrize("kind", kinds("optimizer"))
def test_optimizers(kind):
    """Products of matrices as counted, and the numbers of its state."""
    parameters = {f"x.blocks.{i}.weight": nn.Parameter(torch.randn(24 + 8 * i, 40)) for i in range(3)}
    parameters["x.bias"] = nn.Parameter(torch.zeros(7))
    config = find("optimizer", kind).Config()
    optimizer = config.build(parameters)
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    with FlopCounterMode(display=False) as counter:
        optimizer.step(1.0)
    assert config.part.flops(parameters) == counter.get_total_flops()
    assert state_numbers(config, parameters) == sum(value.numel() for value in optimizer.tensors().values())


def test_the_cache_is_that_of_generation():
    ready, batch = made(alone("attention"))
    told = estimate(ready.objective, shape_of(batch), ready.recipe.train, "fp32")
    trunk = ready.model.trunks["lm"]
    first = batch["dna"].rows(slice(0, 1))
    _, state = trunk.step(trunk.join([trunk.embed("dna", first)]), trunk.start(1, N))
    held = sum(t.numel() for t in tree_leaves(state.blocks) if torch.is_tensor(t) and t.is_floating_point())
    assert told.cache == (held, held // N)


# What it finds


def test_a_memory_that_holds_less_gives_less(tmp_path):
    whole = sf.plan("vit", CPU)
    assert whole.traded == [] and whole.estimate.seconds > 0 and sum(row["seconds"] for row in whole.rows) > 0
    limits = [3 * 10**6, 20 * 10**6, 200 * 10**6]
    found = [sf.plan("vit", CPU, memory=limit) for limit in limits]
    weights = [plan.estimate.parameters for plan in found]
    assert weights == sorted(weights) and weights[0] < weights[-1]
    for plan, limit in zip(found, limits):
        assert plan.estimate.peak <= limit and plan.traded
        again = prepare(plan.recipe.replace(data=plan.recipe.data.replace(limit=80)))
        assert sum(p.numel() for p in again.objective.parameters()) == plan.estimate.parameters
    assert any("train.accumulate 1 -> " in line for line in found[0].traded)
    assert sf.plan("vit", CPU, memory="200MB").recipe == found[2].recipe


def test_more_time_gives_a_larger_model():
    found = [sf.plan("tiny_gpt", CPU, budget=budget) for budget in ("5m", "2h")]
    assert found[0].estimate.parameters < found[1].estimate.parameters
    for plan, seconds in zip(found, (300, 7200)):
        assert plan.seconds <= seconds
        weights = sum(row.trained for row in plan.estimate.costs if ".blocks." in row.place)
        assert plan.recipe.train.steps * plan.recipe.train.batch * 64 >= 20 * weights


def test_contrast_is_taken_in_pieces():
    """Rows are compared within a batch, and gradient caching keeps the whole batch."""
    found = sf.plan("tiny_clip", CPU, memory=2 * 10**6)
    assert found.recipe.train.accumulate > 1 and found.recipe.train.batch == 32


def test_heads_keep_their_width():
    recipe = read_recipe(alone("attention", block={"mixer": {"kind": "attention", "heads": 4, "kv_heads": 2}}))
    mixer = resized(recipe, 128, 3).trunks["lm"].blocks[0].mixer
    assert (mixer.heads, mixer.kv_heads) == (8, 4)


def test_nothing_large_is_allocated():
    ready, _ = made(alone("attention"))
    objective = on_meta(resized(ready.recipe, 4096, 8), ready.model.modalities)
    assert all(parameter.is_meta for parameter in objective.parameters())
    assert sum(parameter.numel() for parameter in objective.parameters()) > 10**9


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"budget": "soon"}, "budget"),
        ({"memory": "8 GBB"}, "8 GBB"),
        ({"memory": -1}, "memory"),
        ({"budget": "1s"}, "not enough"),
        ({"memory": "10KB"}, "not enough"),
        ({"hardware": "h10"}, "did you mean"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(what, message):
    with pytest.raises(ConfigError, match=message) as error:
        sf.plan("tiny_vit", **{"hardware": CPU, **what})
    assert "\n" not in str(error.value)


def test_units():
    assert [seconds_of(text) for text in ("90s", "30m", "2h", "1.5 h", 7)] == [90, 1800, 7200, 5400, 7]
    assert [bytes_of(text) for text in ("500MB", "8 gb", "8GiB", 9)] == [500 * 10**6, 8 * 10**9, 8 * 2**30, 9]


def test_rates_grow_with_the_size_of_products():
    sheet = SHEETS["h200"]
    assert sheet.rate(True, sheet.half) == sheet.bf16 / 2 and sheet.rate(True) == pytest.approx(sheet.bf16)
    assert CPU.precision(64) == "fp32" and CPU.precision(256) == "bf16"


def test_show_says_all_of_it(capsys):
    assert main(["show", "tiny_gpt", "--budget", "1h", "--memory", "8GB", "--hardware", "h100", "--recipe"]) == 0
    said = capsys.readouterr().out
    for part in (
        "backward",
        "kept",
        "cache",
        "peak (",
        "a step takes about",
        "per 1,000 tokens",
        "traded",
        "train.steps",
        "width:",
    ):
        assert part in said, part
    assert main(["show", "tiny_gpt", "--memory", "8 GBB"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_bytes_kept_of_a_part():
    ready, batch = made(alone("attention"))
    feed = next(
        row
        for row in estimate(ready.objective, shape_of(batch), ready.recipe.train, "fp32").costs
        if row.kind == "gelu"
    )
    assert bytes_kept(feed, False) == 2 * bytes_kept(feed, True) == 4 * N * (64 + 2 * 256)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "width"), [("tiny_gpt", 128), ("tiny_gpt", 16), ("tiny_bert", 128), ("tiny_esm", 16)])
def test_logits_in_pieces(monkeypatch, name, width, precision):
    """Where a loss is made some places at a time, the plan says what is allocated then: where logits are most of it, far less."""
    trunk = "lm" if name == "tiny_gpt" else "enc"
    changes = ["train.batch=24", f"train.precision={precision}", f"trunks.{trunk}.width={width}"]
    ready, batch = made(read_recipe(name, changes))
    whole = estimate(ready.objective, shape_of(batch), ready.recipe.train, precision)
    monkeypatch.setattr(_told, "LARGE", 1000)
    monkeypatch.setattr(_told, "ROWS", 64)
    told = estimate(ready.objective, shape_of(batch), ready.recipe.train, precision)
    _, peak = measured(ready, batch, precision)
    assert abs(told.peak / peak - 1) < 0.1
    assert told.peak < whole.peak * (0.7 if (name, width) == ("tiny_gpt", 16) else 1.0001)
