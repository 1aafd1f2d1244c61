"""What every adapter must do: see the contract in sevenfold.assembly.adapter."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from sevenfold.assembly.adapter import merged, need_gradients
from sevenfold.assembly.mask import MaskConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.assembly.trunk import Trunk
from sevenfold.conformance._kit import WIDTH, Skipped, compiled, expect, finite, lively, near, refusal
from sevenfold.conformance.trunk import tokens
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.objective.next_token import NextToken


def made(config: Any) -> NextToken:
    """Next-token prediction on bytes with a small causal trunk, adapted (None: not)."""
    torch.manual_seed(1)
    trunk = Trunk.Config(inputs=("text",), width=WIDTH, depth=2, class_token=True, mask=MaskConfig(causal=True))
    streams: dict[str, Any] = {"text": decode(find("modality", "text").Config, {"length": 16})}
    model = ModelConfig(streams=streams, trunks={"lm": trunk}, adapter=config)
    model = model.replace(heads=NextToken.heads(NextToken.Config(), model, {}))
    return NextToken(NextToken.Config(), Model(model, {name: stream.build() for name, stream in streams.items()}))


def logits(objective: NextToken) -> torch.Tensor:
    """What the model says of some tokens."""
    batch = {"text": tokens(objective.model)}
    return objective.model.head("text", objective.model(batch)["lm"].of("text").x)


def check_names(config: Any) -> None:
    """The model's own weights keep their names and first numbers; what is new is told by `adapted`."""
    base, adapted = made(None).model.state_dict(), made(config).model
    found = adapted.state_dict()
    expect(found.keys() - base.keys() == adapted.adapted, "`adapted` does not name what is new")
    expect(bool(adapted.adapted), "adds nothing")
    expect(base.keys() <= found.keys(), f"takes away {min(base.keys() - found.keys(), default='')}")
    expect(all(torch.equal(value, found[name]) for name, value in base.items()), "changes a weight of the model")


def check_trains(config: Any) -> None:
    """Only what is new is trained, and what `train` names."""
    model = made(config).model
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    expect(learning == model.adapted, "something else than the adapter is trained, or not all of it")
    also = made(config.replace(train=("trunks.lm.norm.*",))).model
    learning = {name for name, parameter in also.named_parameters() if parameter.requires_grad}
    expect(learning - also.adapted == {"trunks.lm.norm.weight", "trunks.lm.norm.bias"}, "`train` is not heeded")


def check_learns_in_the_first_step(config: Any) -> None:
    """One backward pass reaches every adapter; none would be an error."""
    objective = made(config)
    objective({"text": tokens(objective.model)}).total.backward()
    need_gradients(objective.model, "next_token")
    objective.zero_grad()
    expect("no gradient" in refusal(lambda: need_gradients(objective.model, "x"), ConfigError), "idleness is not said")


def check_unknown(config: Any) -> None:
    """A trunk or a parameter that is not there is an error that says what is."""
    for field, wrong, meant in (("trunks", "lmm", "lm"), ("train", "trunks.lm.nrom.*", "trunks.lm.norm")):
        message = refusal(partial(made, config.replace(**{field: (wrong,)})), ConfigError)
        expect(f"adapter.{field}" in message and meant in message, f"{field}: {message}")


def check_computes(config: Any) -> None:
    """It changes what the model says once it has learned something; finite, and the same compiled."""
    objective = lively(made(config)).eval()
    with torch.no_grad():
        found = logits(objective)
        finite(found, "the output")
        kept = {name: value.clone() for name, value in objective.model.state_dict().items()}
        for name in objective.model.adapted:
            objective.model.get_parameter(name).zero_()
        expect(not torch.equal(logits(objective), found), "makes no difference")
        objective.model.load_state_dict(kept)
        batch = {"text": tokens(objective.model)}
        trunk: Any = objective.model.trunks["lm"]
        near(compiled(lambda: trunk(batch).x)(), trunk(batch).x, "compiled")


def check_merged(config: Any) -> None:
    """Where it merges: a model without it gives the same, its weights are W + delta rounded once, and the base is untouched."""
    if not config.part.merges:
        message = refusal(lambda: merged(made(config).model), ConfigError)
        raise Skipped(f"it does not merge, and says so: {message}")
    objective = lively(made(config)).eval().double()
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    plain = merged(objective.model)
    expect(plain.adapter is None and not plain.adapted, "an adapter is left")
    batch = {"text": tokens(objective.model)}
    with torch.no_grad():
        near(plain(batch)["lm"].x, objective.model(batch)["lm"].x, "merged")
    after = objective.model.state_dict()
    expect(all(torch.equal(value, after[name]) for name, value in before.items()), "merging changed the adapted model")
