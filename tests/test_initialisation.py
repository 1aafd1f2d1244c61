"""First weights: every parameter has a rule, schemes rescale by place, and muP does what its paper says across widths."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sevenfold.assembly.initialisation.mup import factors
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Constant, Normal, Ruled, cares, ruled
from sevenfold.objective.supervised import Supervised
from sevenfold.training.fit import fit
from sevenfold.training.step import take_step
from tiny import made, recipe

WIDTHS = (32, 64, 128, 256)
MUP = {"kind": "mup", "base_width": 32}
PLAIN = {"dropout": 0.0, "mixer": {"kind": "attention", "heads": 4}, "nonlinearity": {"kind": "gelu"}}


def at_width(folder, width: int, init: dict, objective: str = "next_token", **train):
    """A model of this width with everything random off, ready to train."""
    data = recipe(objective, folder, PLAIN, **train)
    for trunk in data["trunks"].values():
        trunk["width"] = width
    return made({**data, "init": init})


# Rules
class Lonely(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2)


def test_a_parameter_without_a_rule_is_an_error(monkeypatch, tmp_path):
    """Also where it is made outside of the rooms: in a trunk, a head, an objective."""
    before = Supervised.__init__

    def with_more(self, config, model):
        before(self, config, model)
        self.lonely = Lonely()

    data = recipe("supervised", tmp_path)
    made(data)
    monkeypatch.setattr(Supervised, "__init__", with_more)
    with pytest.raises(ConfigError, match=r"Supervised: the parameter 'lonely.inner.\w+' has no rule"):
        made(data)


@pytest.mark.parametrize("name", ["Trunk", "Head", "Block"])
def test_assembly_parameters_need_rules(monkeypatch, tmp_path, name):
    from sevenfold.assembly import block, head, trunk

    cls = {"Trunk": trunk.Trunk, "Head": head.Head, "Block": block.Block}[name]
    before = cls.__init__

    def with_more(self, *args):
        before(self, *args)
        self.lonely = nn.Parameter(torch.zeros(2))

    monkeypatch.setattr(cls, "__init__", with_more)
    with pytest.raises(ConfigError, match=f"{name}: the parameter 'lonely' has no rule"):
        made(recipe("next_token", tmp_path))


def test_every_parameter_is_found_once(tmp_path):
    for objective in ("mae", "infonce", "next_token"):
        whole = made(recipe(objective, tmp_path)).objective
        names = [name for name, *_ in ruled(whole)]
        assert sorted(names) == sorted(dict(whole.named_parameters()))
        own = {name for name in names if not name.startswith("model.")}
        assert own == {"mae": {"mask_token"}, "infonce": {"scale"}, "next_token": set()}[objective]


def test_rules_say_what_decays():
    class Both(Ruled):
        def __init__(self):
            super().__init__()
            self.map, self.gain = nn.Parameter(torch.empty(3, 2)), nn.Parameter(torch.empty(3, 2))

        def rules(self):
            return {"map": Normal(0.1, decays=True), "gain": Constant(1.0)}

    found = cares(Both(), {"map": 0.5})
    assert found["map"] == (True, 0.5) and found["gain"] == (False, 1.0)


# Standard
def test_standard_scales_branches_by_depth(tmp_path):
    data = recipe("next_token", tmp_path)
    data["trunks"]["lm"] |= {"width": 64, "depth": 8}
    model = made(data).model
    for block in model.trunks["lm"].blocks:
        assert float(block.mixer.qkv.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert float(block.mixer.out.weight.detach().std()) == pytest.approx(0.02 / 16**0.5, rel=0.08)
        assert float(block.feed.out.weight.detach().std()) == pytest.approx(0.02 / 16**0.5, rel=0.05)
    assert model.rates == {}


# muP, Yang 2022, arXiv:2203.03466 table 3
def test_factors_are_the_table():
    def of(rule, now, base, **more):
        return factors(rule, torch.empty(now), rule, torch.empty(base), **more)

    matrix, table = Normal(0.02, decays=True), Normal(0.02)
    assert of(matrix, (256, 128), (64, 32)) == (0.5, 0.25)  # hidden: 1/sqrt(r), 1/r
    assert of(matrix, (10, 128), (10, 32)) == (0.25, 0.25)  # output: 1/r, 1/r
    assert of(matrix, (128, 10), (32, 10)) == (1.0, 1.0)  # input
    assert of(matrix, (10, 128), (10, 32), reads_ids=True) == (1.0, 1.0)  # embedding
    assert of(table, (4, 128), (4, 32)) == (1.0, 1.0)  # class tokens, positions
    assert of(Constant(1.0), (128,), (32,)) == (1.0, 1.0)  # gains, biases
    assert of(Constant(0.0, decays=True), (256, 128), (64, 32)) == (1.0, 0.25)


def test_at_the_base_width_it_is_standard(tmp_path):
    data = recipe("next_token", tmp_path)
    first, second = made(data).model, made({**data, "init": {"kind": "mup", "base_width": 16}}).model
    assert second.rates == {}
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@torch.no_grad()
def moved(ready, steps: int, lr: float) -> dict[str, float]:
    """How much blocks and logits move in a few steps of Adam: root mean square of the change on one batch."""
    objective = ready.objective
    settings = ready.recipe.train
    optimizer = settings.optimizer.replace(lr=lr, weight_decay=0.0).build(
        dict(objective.named_parameters()), objective.cares()
    )
    batch = _batch(ready)

    def look():
        trunk, seen = objective.model.trunks["lm"], {}
        hooks = [
            block.register_forward_hook(lambda _, __, out, at=at: seen.update({f"block {at}": out.x.clone()}))
            for at, block in enumerate(trunk.blocks)
        ]
        x = trunk(batch).x
        for hook in hooks:
            hook.remove()
        return {**seen, "logits": objective.model.head("text", x)}

    before = look()
    for step in range(steps):
        with torch.enable_grad():
            take_step(objective, optimizer, batch, settings, "fp32", 0, step, 1.0)
    after = look()
    return {name: float((after[name] - before[name]).square().mean().sqrt()) for name in before}


def _batch(ready):
    from sevenfold.data.loader import gather

    return gather([ready.train[(0, index)] for index in range(8)])[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_coordinates_stay_across_widths(tmp_path, optimizer):
    """The coordinate check: under muP activations move as much at width 256 as at 32; under the standard scheme more."""
    grown = {}
    for kind, init in (("mup", MUP), ("standard", {"kind": "standard"})):
        found = []
        for width in (WIDTHS[0], WIDTHS[-1]):
            ready = at_width(tmp_path, width, init, optimizer={"kind": optimizer})
            found.append(moved(ready, 4, 0.01))
        grown[kind] = {name: found[1][name] / found[0][name] for name in found[0]}
    for name, ratio in grown["mup"].items():
        assert 0.4 < ratio < 1.8, (name, ratio)
    assert grown["standard"]["logits"] > 2 * grown["mup"]["logits"], grown


def test_scores_and_tied_logits_are_tempered(tmp_path):
    """Heads of width 32 against 8 at the base: scores go by 1/d_h; tied logits by 1/d."""
    ready = at_width(tmp_path, 128, MUP)
    trunk = ready.model.trunks["lm"]
    mixer = trunk.blocks[0].mixer
    assert mixer.score_scale == pytest.approx(0.5) and ready.model.heads["text"].scale == 0.25
    hidden = trunk.embed("text", _batch(ready)["text"])._replace(valid=None, segments=None)
    q, k, _ = mixer._heads(hidden)
    wanted = (q @ k.transpose(-1, -2) * 32**-0.5 / 2).softmax(-1)
    torch.testing.assert_close(mixer.weights(hidden), wanted, atol=1e-6, rtol=0)
    y = mixer.out((wanted @ mixer.values(hidden)).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixer(hidden), y, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("position", "rates"),
    [("time", {"up": 1.0, "up_bias": 1.0, "down": 0.25}), ("coordinate_mlp", {"up": 1.0, "down": 1.0})],
)
def test_networks_of_positions_are_inputs(tmp_path, position, rates):
    """What reads features of a fixed number learns at the rate of inputs; width to width, at that of hidden matrices."""
    data = recipe("next_token", tmp_path, PLAIN)
    data["trunks"]["lm"] |= {"width": 128, "position": position}
    found = made({**data, "init": MUP}).model.rates
    assert {name: found.get(f"trunks.lm.position.{name}", 1.0) for name in rates} == rates


def test_decay_times_rate_stays(tmp_path):
    ready = at_width(tmp_path, 128, MUP)
    objective = ready.objective
    optimizer = ready.recipe.train.optimizer.build(dict(objective.named_parameters()), objective.cares())
    lr, decay = optimizer.config.lr, optimizer.config.weight_decay
    groups = optimizer.parts[0].param_groups
    assert {round(group["lr"] / lr, 6) for group in groups} == {1.0, 0.25}
    for group in groups:
        assert math.isclose(group["lr"] * group["weight_decay"], lr * decay) or group["weight_decay"] == 0


@pytest.mark.parametrize("init", [{"kind": "standard"}, {"kind": "mup", "base_width": 8}])
def test_resume_is_exact(tmp_path, init):
    """Stopped in the middle or not: the same weights, bit for bit."""
    data = {**recipe("next_token", tmp_path, steps=6, save_every=3), "init": init}
    finals = []
    for name, stops in (("whole", [6]), ("halves", [3, 6])):
        for _ in stops:
            ready = made(data)
            folder = tmp_path / name
            if len(stops) == 2 and not folder.exists():
                half = copy.deepcopy(ready.recipe.train)
                fit(ready.objective, ready.train, ready.held_out, half, seed=1, folder=folder, bar=False)
                newest = max((folder / "checkpoints").glob("step-*"))
                for file in newest.iterdir():
                    file.unlink()
                newest.rmdir()
                continue
            fit(
                ready.objective,
                ready.train,
                ready.held_out,
                ready.recipe.train,
                seed=1,
                folder=folder,
                resume=True,
                bar=False,
            )
        finals.append({name: value.clone() for name, value in ready.objective.state_dict().items()})
    for name, value in finals[0].items():
        assert torch.equal(value, finals[1][name]), name


def test_refusals(tmp_path):
    data = recipe("next_token", tmp_path, PLAIN)
    with pytest.raises(ConfigError, match=r"init.base_width: this model cannot be built at width 30: .*4 heads"):
        made({**data, "init": {"kind": "mup", "base_width": 30}})
    with pytest.raises(ConfigError, match="init: no initialisation is called 'mupp'; did you mean 'mup'"):
        made({**data, "init": "mupp"})
