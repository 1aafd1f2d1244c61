"""The kit catches what it is there to catch: parts with one fault each, and the check that must find it."""

from __future__ import annotations

import shutil

import pytest
import torch

from sevenfold import conformance
from sevenfold.blocks.mixing.attention import Attention
from sevenfold.blocks.mixing.conv import Conv
from sevenfold.blocks.mixing.cross import Cross
from sevenfold.blocks.mixing.min_gru import MinGRU
from sevenfold.blocks.nonlinearity.gelu import GELU
from sevenfold.blocks.normalization.layer import Layer
from sevenfold.blocks.position.alibi import Alibi
from sevenfold.blocks.position.learned import Learned
from sevenfold.blocks.position.rotary import Rotary
from sevenfold.blocks.residual.drop_path import DropPath
from sevenfold.blocks.tokenization.bytes import Bytes
from sevenfold.conformance._kit import Failed, Skipped
from sevenfold.core.types import Loss, Mask
from sevenfold.objective.next_token import NextToken
from sevenfold.training.optimizer.adamw import AdamW
from sevenfold.training.run import train
from sevenfold.training.schedule.cosine import Cosine


class SeesAhead(Attention):
    def forward(self, hidden, mask=Mask()):  # noqa: B008
        return super().forward(hidden, mask._replace(causal=False))


class WindowTooWide(Attention):
    def forward(self, hidden, mask=Mask()):  # noqa: B008
        return super().forward(hidden, mask._replace(window=mask.window and mask.window + 1))


class PaddingLeaks(Conv):
    def forward(self, hidden, mask=Mask()):  # noqa: B008
        return super().forward(hidden._replace(valid=None), mask)


class BatchLeaks(Conv):
    def forward(self, hidden, mask=Mask()):  # noqa: B008
        return super().forward(hidden, mask) + hidden.x.mean() * 1e-6


class SegmentsLeak(MinGRU):
    def forward(self, hidden, mask=Mask()):  # noqa: B008
        return super().forward(hidden._replace(segments=None), mask)


class Forgets(MinGRU):
    def step(self, hidden, state, mask):
        return super().step(hidden, self.start(len(hidden.x), 0, hidden.x), mask)


class StepsUnturned(Attention):
    def step(self, hidden, state, mask):
        return super().step(hidden._replace(angles=None), state, mask)


class StateOfOneOnly(Conv):
    def step(self, hidden, state, mask):
        y, (past, ids) = super().step(hidden, state, mask)
        return y, (past * 0.999, ids)


class WeightsOfOthers(Attention):
    def weights(self, hidden, mask=Mask(), rows=None):  # noqa: B008
        return super().weights(hidden._replace(angles=None, bias=None), mask, rows)


class DeadParameter(Attention):
    def __init__(self, config, width, project=None):
        super().__init__(config, width, project)
        self.unused = torch.nn.Parameter(torch.zeros(3))


class BreaksTheGraph(Attention):
    def forward(self, hidden, mask=Mask()):  # noqa: B008
        torch._dynamo.graph_break()
        return super().forward(hidden, mask)


class MiscountsFlops(Attention):
    def flops(self, tokens, attended):
        return super().flops(tokens, attended) // 2


class Dices(Attention):
    def forward(self, hidden, mask=Mask()):  # noqa: B008
        return super().forward(hidden, mask) + torch.randn_like(hidden.x) * 1e-9


class ReadsPaddedMemory(Cross):
    def forward(self, hidden, mask=Mask()):  # noqa: B008
        return super().forward(hidden._replace(memory=hidden.memory._replace(valid=None)), mask)


class SumsInHalf(MinGRU):
    def forward(self, hidden, mask=Mask()):  # noqa: B008
        y = super().forward(hidden, mask)
        return (
            (y + 100).to(torch.get_autocast_dtype("cpu")).to(y.dtype) - 100 if torch.is_autocast_enabled("cpu") else y
        )


class AnglesInFloat32(Rotary):
    def angles(self, coords, width):
        steps = torch.arange(width // 2) / (width // 2)
        angle = coords.float() * self.config.base**-steps
        return angle.cos(), angle.sin()


class Shrinks(Rotary):
    def angles(self, coords, width):
        cos, sin = super().angles(coords, width)
        return cos * 0.99, sin


class Absolute(Alibi):
    def bias(self, query, key, heads):
        return super().bias(query, key, heads) + key.sum(-1)[:, None, None] * 0.1


class Clamps(Learned):
    def embed(self, coords):
        return super().embed(coords.clamp(0, self.config.size - 1))


class NoEpsilon(Layer):
    def forward(self, x, condition=None):
        return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True) * self.weight + self.bias


class MixesTokens(GELU):
    def forward(self, x):
        return super().forward(x + x.mean(1, keepdim=True))


class Linear(GELU):
    def activate(self, x):
        return x


class DropsWithoutScale(DropPath):
    def forward(self, x, branch, condition=None):
        y = super().forward(x, branch)
        return x + (y - x) * 0.9 if self.training else y


class IdsTooLarge(Bytes):
    def encode(self, raw):
        tokens = super().encode(raw)
        return tokens._replace(values=tokens.values + self.size)


class LosesState(AdamW):
    def restore(self, tensors, where="optimizer"):
        super().restore({name: value * 0 if name.endswith("exp_avg") else value for name, value in tensors.items()})


class Overshoots(Cosine):
    def shape(self, progress):
        return 1.2 * super().shape(progress)


class Undescribed(Attention):
    class Config(Attention.Config):
        mystery: int = 3


FAULTS = [
    (SeesAhead, "causality"),
    (WindowTooWide, "masks"),
    (PaddingLeaks, "padding"),
    (BatchLeaks, "padding"),
    (SegmentsLeak, "segments"),
    (Forgets, "step"),
    (Forgets, "state"),
    (StepsUnturned, "step"),
    (StateOfOneOnly, "step"),
    (WeightsOfOthers, "weights"),
    (DeadParameter, "gradients"),
    (BreaksTheGraph, "compiles"),
    (MiscountsFlops, "flops"),
    (Dices, "repeatable"),
    (ReadsPaddedMemory, "padding"),
    (ReadsPaddedMemory, "nothing_but_padding"),
    (SumsInHalf, "bf16"),
    (AnglesInFloat32, "rotation"),
    (Shrinks, "rotation"),
    (Absolute, "bias"),
    (Clamps, "far_away"),
    (NoEpsilon, "shape"),
    (MixesTokens, "token_by_token"),
    (Linear, "not_linear"),
    (DropsWithoutScale, "expectation"),
    (IdsTooLarge, "tokens"),
    (LosesState, "state"),
    (Overshoots, "range"),
    (Undescribed, "fields_described"),
]


@pytest.mark.parametrize(("part", "name"), FAULTS, ids=[f"{part.__name__}-{name}" for part, name in FAULTS])
def test_a_fault_is_found(part, name):
    torch.manual_seed(0)
    with pytest.raises((Failed, torch._dynamo.exc.Unsupported)):
        conformance.checks_for(part.room)[name](part.Config())


class Averages(NextToken):
    """Forgets that it should give a sum."""

    def forward(self, batch, drawn=None):
        loss = super().forward(batch, drawn)
        return Loss(loss.mean, torch.ones(()), {}, {})


class CountsPadding(NextToken):
    def forward(self, batch, drawn=None):
        return super().forward({name: stream._replace(valid=None) for name, stream in batch.items()}, drawn)


class NotNumbers(NextToken):
    def forward(self, batch, drawn=None):
        loss = super().forward(batch, drawn)
        return loss._replace(total=loss.total / loss.count)


@pytest.mark.parametrize(
    ("part", "name"),
    [(Averages, "accumulation"), (CountsPadding, "padding"), (CountsPadding, "nothing"), (NotNumbers, "nothing")],
)
def test_a_fault_of_an_objective_is_found(part, name, monkeypatch):
    from sevenfold.conformance import objective

    built = objective.made(NextToken.Config())
    monkeypatch.setattr(objective, "made", lambda config: (part(NextToken.Config(), built[0].model), built[1]))
    with pytest.raises(Failed):
        conformance.checks_for("objective")[name](NextToken.Config())


def test_results_tell_what_was_skipped_and_what_failed(monkeypatch):
    by_name = {result.name: result for result in conformance.run("mixing", "min_gru")}
    assert list(by_name) == list(conformance.checks_for("mixing"))
    assert all(result.ok for result in by_name.values())
    assert by_name["weights"].skipped_why == "has no weights"
    assert not by_name["causality"].skipped_why
    assert not conformance.check("mixing", "nothing_like_it", "shape").ok

    def crash(config):
        raise KeyError("a word")

    def skip(config):
        raise Skipped("not today")

    monkeypatch.setattr(conformance, "checks_for", lambda room: {"crash": crash, "skip": skip})
    assert conformance.check("mixing", "conv", "crash") == ("crash", False, "KeyError: 'a word'", "")
    assert conformance.check("mixing", "conv", "skip") == ("skip", True, "", "not today")


def test_the_seed_outside_is_left_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    conformance.check("residual", "drop_path", "expectation")
    assert torch.equal(torch.rand(3), wanted)


def test_a_run_folder(tmp_path, capsys):
    from sevenfold.cli import main

    recipe = NextToken.example() | {"train": {"steps": 2, "batch": 4}}
    run = train(recipe, tmp_path / "run", say=lambda _: None, bar=False).folder
    assert main(["check", str(run)]) == 0
    assert "✗" not in capsys.readouterr().out
    shutil.copytree(run, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(["check", str(tmp_path / "broken")]) == 1
    told = capsys.readouterr().out
    assert "✗ whole" in told and "model.safetensors" in told


def test_the_verb(capsys):
    from sevenfold.cli import main

    assert main(["check", "cosine"]) == 0
    assert "schedule cosine" in capsys.readouterr().out
    assert main(["check", "linear", "--room", "projection"]) == 0
    assert capsys.readouterr().out.count("✓ header") == 1
    assert main(["check", "cosin"]) == 2
    assert "did you mean 'cosine'?" in capsys.readouterr().err
    assert main(["check", "cosine", "--room", "mixing"]) == 2
    assert main(["check", "cosine", "--room", "kitchen"]) == 2


def test_the_verb_fails_when_a_check_fails(capsys, monkeypatch):
    from sevenfold.cli import main

    broken = conformance.Result("shape", False, "gives [1] for [2]")
    monkeypatch.setattr(conformance, "run", lambda room, kind: [broken])
    assert main(["check", "cosine"]) == 1
    assert "✗ shape" in capsys.readouterr().out
