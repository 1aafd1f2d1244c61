"""One new file is one new part: a mixer, a position, a modality and an objective in an installed package of one's own.

A package is written into a folder with the metadata that an installer would write, and processes are started that see
it. No line of ours changes: the parts are listed, pass `sevenfold check`, and train in a recipe.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MIXER = '''
"""Each token takes the mean of itself and all tokens before it (of all tokens, when not causal).

    y_i = W_o mean_{j <= i} x_j W_v              after the bag of words of Harris 1954, doi:10.1080/00437956.1954.11659520
"""

from __future__ import annotations

import torch

from sevenfold.blocks.mixing import Mixer, allowed
from sevenfold.core.types import Mask


class RunningMean(Mixer):
    class Config(Mixer.Config):
        gain: float = 1.0
        """Multiplies the mean."""

    heeds = frozenset({"window", "prefix"})
    variants = ({"gain": 2.0},)

    def __init__(self, config, width, project=None):
        super().__init__(config, width, project)
        self.value, self.out = self.project(width, width), self.project(width, width)

    def weights(self, hidden, mask=Mask(), rows=None):
        seen = allowed(hidden, mask)
        n = hidden.x.shape[1]
        seen = torch.ones(len(hidden.x), 1, n, n, device=hidden.x.device) if seen is None else seen.expand(len(hidden.x), 1, n, n)
        weights = seen.to(hidden.x.dtype) / seen.sum(-1, keepdim=True)
        return weights if rows is None else weights[:, :, rows]

    def values(self, hidden):
        return self.value(hidden.x)[:, None] * self.config.gain

    def forward(self, hidden, mask=Mask()):
        values = self.values(hidden)
        return self.out((self.weights(hidden, mask).to(values.dtype) @ values)[:, 0])

    def start(self, rows, length, like):
        return None

    def step(self, hidden, state, mask):
        n = hidden.x.shape[1]
        parts = (hidden.x, hidden.valid, hidden.segments)
        new = [torch.ones(hidden.x.shape[:2], dtype=torch.bool) if p is None else p for p in parts[:2]]
        new.append(torch.zeros(hidden.x.shape[:2], dtype=torch.long) if parts[2] is None else parts[2])
        state = new if state is None else [torch.cat(pair, 1) for pair in zip(state, new)]
        whole = hidden._replace(x=state[0], valid=state[1], segments=state[2])
        return self.forward(whole, mask)[:, -n:], state

    def flops(self, tokens, attended):
        return 4 * tokens * self.width**2 + 2 * tokens * attended * self.width

    def kept(self, tokens, attended):
        return tokens * self.width + tokens * attended

    def cached(self, tokens):
        return tokens * self.width
'''

POSITION = '''
"""Attention scores fall by a learned amount per step of distance, one for all heads.

    score(i, j) <- score(i, j) - exp(a) |p_i - p_j|                          after ALiBi, arXiv:2108.12409
"""

from __future__ import annotations

import torch
from torch import nn

from sevenfold.blocks.position import Position
from sevenfold.core.initial import Constant


class LearnedSlope(Position):
    class Config(Position.Config):
        pass

    def __init__(self, config, width, axes, heads=None):
        super().__init__(config, width, axes, heads)
        self.slope = nn.Parameter(torch.empty(()))

    def rules(self):
        return {"slope": Constant(0.0)}

    def bias(self, query, key, heads):
        distance = (query.unsqueeze(2) - key.unsqueeze(1)).abs().sum(-1).float()
        return (-self.slope.exp() * distance).unsqueeze(1).expand(-1, heads, -1, -1)
'''

MODALITY = '''
"""Moves of a chess game: a str of letters and figures becomes bytes along one axis."""

from __future__ import annotations

from sevenfold.modality import Modality


class Moves(Modality):
    class Config(Modality.Config):
        pass

    axes = ("move",)

    def check(self, raw):
        if not isinstance(raw, str) or not raw:
            raise ValueError(f"a game is a str with moves in it, not {raw!r}")
        return raw

    @classmethod
    def example(cls, seed=0):
        return [f"e4 e5 Nf{3 + seed} Nc{place}" for place in range(8)]

    def summary(self, raws):
        return {"games": len(raws)}
'''

OBJECTIVE = '''
"""Counting: the model says how many valid tokens a row has.

    L = sum_i (w . mean_j h_ij - log n_i)^2
"""

from __future__ import annotations

import torch
from torch import nn

from sevenfold.assembly.pool import pool
from sevenfold.core.initial import Constant, Normal
from sevenfold.core.types import Loss
from sevenfold.objective import Objective, rows_with, the_trunk


class Counting(Objective):
    class Config(Objective.Config):
        trunk: str | None = None
        """The trunk to count in; by default the only one."""

    def __init__(self, config, model):
        super().__init__(config, model)
        self.trunk = the_trunk(model.config, config.trunk)
        self.count = nn.Linear(model.config.trunks[self.trunk].width, 1)

    def rules(self):
        return {"count.weight": Normal(0.1, decays=True), "count.bias": Constant()}

    def forward(self, batch, drawn=None):
        name = self.model.config.trunks[self.trunk].inputs[0]
        if name not in batch:
            return self.nothing()
        stream = batch[name]
        valid = torch.ones(stream.values.shape[:2]) if stream.valid is None else stream.valid
        wanted = valid.sum(1).clamp(min=1).log()
        guess = self.count(pool(self.model(batch)[self.trunk], "mean"))[:, 0]
        rows = rows_with(stream)
        total = (guess.float() - wanted)[rows].square().sum()
        count = rows.sum()
        return Loss(total, count, {"error": (total.detach(), count)}, {"guess": guess.detach()})
'''

PARTS = {
    "mixing.mylab_mean": MIXER,
    "position.mylab_slope": POSITION,
    "modality.mylab_moves": MODALITY,
    "objective.mylab_counting": OBJECTIVE,
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with the package `mylab` in it, as an installer leaves it."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "mylab").mkdir()
    (folder / "mylab" / "__init__.py").write_text("", encoding="utf-8")
    entries = ["[sevenfold.parts]"]
    for name, text in PARTS.items():
        module = name.partition(".")[2]
        (folder / "mylab" / f"{module}.py").write_text(text.lstrip(), encoding="utf-8")
        entries.append(f"{name} = mylab.{module}")
    installed = folder / "mylab-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1.0\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    return folder


def started(lab: Path, *args: str) -> subprocess.CompletedProcess:
    """A process that sees the package, run to its end."""
    paths = [str(lab), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *args], env=environment, cwd=lab, capture_output=True, text=True, timeout=120, check=False
    )


def test_they_are_listed_and_nothing_of_them_is_imported(lab):
    script = (
        "import sys, json; from sevenfold.core.rooms import header, kinds;"
        f"names = {[name.split('.') for name in PARTS]};"
        "print(json.dumps([[kind in kinds(room), header(room, kind)] for room, kind in names]));"
        "assert 'torch' not in sys.modules and not any(name.startswith('mylab.') for name in sys.modules)"
    )
    done = started(lab, "-c", script)
    assert done.returncode == 0, done.stderr
    for (there, told), text in zip(json.loads(done.stdout), PARTS.values()):
        assert there
        assert told.splitlines()[0] in text


def test_the_verb_lists_them(lab):
    done = started(lab, "-m", "sevenfold", "list", "mixing")
    assert done.returncode == 0, done.stderr
    assert "mylab_mean" in done.stdout


def test_they_pass_the_checks_of_their_rooms(lab):
    kinds = [name.partition(".")[2] for name in PARTS]
    script = f"from sevenfold.cli import main; print([main(['check', kind]) for kind in {kinds}])"
    done = started(lab, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0]", done.stdout
    assert "mixing mylab_mean" in done.stdout


def test_they_train_in_a_recipe_and_load_again(lab):
    games = [f"e{1 + place % 8} d{1 + place % 7} Nf{1 + place % 5} O-O" + " Kh1" * (place % 6) for place in range(40)]
    (lab / "games.jsonl").write_text("\n".join(json.dumps({"game": game}) for game in games) + "\n", encoding="utf-8")
    (lab / "recipe.yaml").write_text(
        """
data:      {kind: jsonl, path: games.jsonl}
streams:
  game:    {kind: mylab_moves, field: game, pack: false}
trunks:
  enc:     {inputs: [game], width: 16, depth: 2, position: mylab_slope, block: [{mixer: {kind: mylab_mean, gain: 2}}, {}]}
objective: {kind: mylab_counting}
train:     {steps: 20, batch: 8, optimizer: {kind: adamw, lr: 1e-2}}
""",
        encoding="utf-8",
    )
    done = started(lab, "-m", "sevenfold", "train", "recipe.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (lab / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [record["loss"] for record in log if "loss" in record]
    assert len(losses) == 20 and losses[-1] < 0.7 * losses[0]
    done = started(lab, "-m", "sevenfold", "check", "run")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_the_package_its_kinds_are_unknown_in_one_line(lab, tmp_path):
    done = started(tmp_path, "-m", "sevenfold", "check", "mylab_mean")
    assert done.returncode == 2
    assert done.stderr.startswith("sevenfold: 'mylab_mean' is neither a run folder nor a part")
    assert done.stderr.count("\n") == 1
