"""What each of several processes does in test_parallel.py: python -m torch.distributed.run --nproc-per-node 2 tests/ranks.py OUT FOLDER [CASE …]"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import sevenfold as sf
from sevenfold.assembly.trunk import Trunk
from sevenfold.cli import main as main_of
from sevenfold.conformance.objective import _ready
from sevenfold.core import ranks
from sevenfold.core.errors import BadSample
from sevenfold.core.part import decode, find
from sevenfold.core.ranks import Mesh, own
from sevenfold.core.rooms import kinds
from sevenfold.core.types import Stream
from sevenfold.data.bad import BadSamples
from sevenfold.data.loader import Order, Samples, gather
from sevenfold.training import checkpoint
from sevenfold.training.estimate import estimate, shape_of
from sevenfold.training.fit import fit
from sevenfold.training.hardware import Hardware
from sevenfold.training.log import Log
from sevenfold.training.look import evaluate
from sevenfold.training.parallel import Parallel, _mesh, joined
from sevenfold.training.parallel.gradients import Gradients, whole, whole_state
from sevenfold.training.parallel.layout import layouts
from sevenfold.training.parallel.rows import over_ranks
from sevenfold.training.parallel.sharding import shard
from sevenfold.training.parallel.tensor import cut, placement
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import Recipe, TrainConfig
from sevenfold.training.step import take_step
from sevenfold.training.stop import Preempted

ROWS, STEPS = 8, 3
SETTINGS = TrainConfig.model_validate(
    {"steps": 10, "batch": ROWS, "precision": "fp32", "optimizer": {"kind": "adamw", "eps": 1e-3}}
)
Found = dict[str, Any]
BLOCKS: dict[str, dict[str, Any]] = {
    "grouped": {
        "mixer": {"kind": "attention", "heads": 4, "kv_heads": 2, "query_key_norm": True},
        "nonlinearity": "swiglu",
        "norm": "rms",
    },
    "biased": {
        "mixer": {"kind": "attention", "heads": 4},
        "nonlinearity": "xielu",
        "projection": {"kind": "linear", "bias": True},
    },
    "dropped": {"mixer": {"kind": "attention", "heads": 4}, "dropout": 0.2},
    "mixed": {"mixer": "min_gru", "nonlinearity": "gelu", "projection": {"kind": "linear", "bias": True}},
}


@cache
def ready_of(kind: str) -> Ready:
    """The example of an objective, ready to train; of `kind+block` with such blocks. Copied before anything is changed."""
    kind, _, block = kind.partition("+")
    if not block:
        return _ready(kind)
    recipe = find("objective", kind).example()
    for trunk in recipe["trunks"].values():
        trunk["block"] = BLOCKS[block] | (
            {"cross": {"kind": "cross", "heads": 4}} if trunk.get("cross_attends") else {}
        )
        if block == "biased" and trunk["inputs"] == ["text"]:
            trunk["position"] = "relative_bias"
    return prepare(decode(Recipe, recipe, "example"))


def learned(
    kind: str,
    rows: slice,
    sharded: bool = False,
    accumulate: int = 1,
    lacks: str = "",
    settings: TrainConfig = SETTINGS,
) -> Found:
    """Parameters, buffers and losses after some steps in float64 on some rows of the same batches."""
    ready = ready_of(kind)
    objective = copy.deepcopy(ready.objective).double().train()
    if not ranks.tensor().alone:
        cut(objective, ranks.tensor())
    if sharded:
        shard(objective, ranks.mesh())
    trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimizer = settings.optimizer.build(trainable, objective.cares(), placement(objective).cut)
    gradients, losses = Gradients(objective, ranks.mesh()), []
    settings = settings.replace(accumulate=accumulate)
    for step in range(STEPS):
        items = [ready.train[0, (step * ROWS + place) % len(ready.train)] for place in range(ROWS)[rows]]
        for place, item in zip(range(ROWS)[rows], items):
            if place >= ROWS // 2 and len(item) > 1:
                item.pop(lacks, None)  # the last process has none of it
        batch, _, _ = gather(items)
        batch = {n: s.each(lambda x: x.double() if x.is_floating_point() else x) for n, s in batch.items()}
        loss, norm, ok = take_step(objective, optimizer, batch, settings, "fp32", 0, step, 1.0, gradients=gradients)
        objective.after_step(step, 10)
        losses.append({**over_ranks(loss, 0, 0)[0], "norm": norm, "ok": float(ok)})
    gradients.close()
    return {"state": whole_state(objective), "losses": losses, "cut": len(placement(objective).cut)}


def apart(found: Found, wanted: Found) -> dict[str, float]:
    """How far apart, relative to the larger of 1 and what is wanted."""
    worst = 0.0
    for name, value in wanted["state"].items():
        other = found["state"][name]
        assert other.shape == value.shape, name
        if value.numel():
            scale = max(1.0, float(value.double().abs().max()))
            worst = max(worst, float((other.double() - value.double()).abs().max()) / scale)
    loss = max(abs(a["loss"] - b["loss"]) for a, b in zip(found["losses"], wanted["losses"]))
    norm = max(abs(a["norm"] - b["norm"]) for a, b in zip(found["losses"], wanted["losses"]))
    return {"state": worst, "loss": loss, "norm": norm}


def mine() -> slice:
    others = ranks.data()
    return slice(others.rank * ROWS // others.size, (others.rank + 1) * ROWS // others.size)


@cache
def alone(kind: str) -> Found:
    """What one process learns, which several cases compare with."""
    with ranks.within(Mesh()):
        return learned(kind, slice(0, ROWS))


def objectives(kind: str) -> Found:
    """The figures of several processes beside those of one."""
    return apart(learned(kind, mine()), alone(kind))


def lacking(kind: str) -> Found:
    """The same where the rows of the last process lack a stream."""
    kind, _, stream = kind.partition("-")
    found = learned(kind, mine(), lacks=stream)
    with ranks.within(Mesh()):
        return apart(found, learned(kind, slice(0, ROWS), lacks=stream))


def in_pieces(kind: str) -> Found:
    """The same with `accumulate`."""
    return apart(learned(kind, mine(), accumulate=2), alone(kind))


def spread(kind: str) -> Found:
    """The same with the tokens of each row spread, and of shares besides."""
    with ranks.within(_mesh(Parallel(sequence=ranks.mesh().every.size), torch.device("cpu"))):
        both = [learned(kind, slice(0, ROWS), sharded) for sharded in (False, True)]
    wanted = alone(kind)
    return {f"{name}{place}": error for place, found in enumerate(both) for name, error in apart(found, wanted).items()}


def heads(kind: str) -> Found:
    """The same with heads and channels shared by two, and of shares, batches in pieces and spread tokens besides."""
    wanted, size = alone(kind), ranks.mesh().every.size
    errors = {}
    for sequence in (1, 2) if size > 2 and kind.partition("+")[2] in ("grouped", "biased") else (1,):
        among = size if "dropped" in kind else 2
        with ranks.within(_mesh(Parallel(tensor=among, sequence=sequence), torch.device("cpu"))):
            for sharded in (False,) if "dropped" in kind else (False, True):
                found = learned(kind, mine(), sharded, accumulate=1 + sharded)
                errors |= {f"{name}{sequence}{sharded}": error for name, error in apart(found, wanted).items()}
    return {"cut": found["cut"], "errors": errors}


def both(kind: str) -> Found:
    """The same with heads shared by two, and what each of them has in shares among the others."""
    with ranks.within(_mesh(Parallel(tensor=2), torch.device("cpu"))):
        found = learned(kind, mine(), sharded=True)
    return apart(found, alone(kind))


def turned(kind: str) -> Found:
    """The same with Muon, with heads shared, with weights in shares, and both."""
    settings = SETTINGS.replace(optimizer={"kind": "muon"})
    with ranks.within(Mesh()):
        wanted = learned(kind, slice(0, ROWS), settings=settings)
    errors = {}
    for how, (tensor, sharded) in LAYOUTS.items():
        with ranks.within(_mesh(Parallel(tensor=tensor), torch.device("cpu"))):
            found = learned(kind, mine(), sharded, settings=settings)
            errors |= {f"{name}, {how}": error for name, error in apart(found, wanted).items()}
    return errors


def places(kind: str) -> Found:
    """A trunk whose tokens are spread, beside one: windows, packed rows, padding, an odd number of tokens."""
    config = Trunk.Config.model_validate(
        {
            "inputs": ["text"],
            "width": 32,
            "depth": 2,
            "position": kind,
            "mask": {"causal": kind != "relative_bias", "window": 5},
        }
    )
    torch.manual_seed(0)
    trunk = Trunk(config, {"text": find("modality", "text").Config().build()}, {}).double()
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(4, 200, (3, 13), generator=draw)
    coords = torch.arange(13)[None, :, None].expand(3, -1, -1)
    segments = (torch.arange(13) > 6).long().expand(3, -1)
    valid = torch.arange(13)[None] < torch.tensor([13, 9, 11])[:, None]
    stream = Stream(values, coords, valid, segments)
    with ranks.within(Mesh()):
        wanted = trunk({"text": stream}).x
    with ranks.within(_mesh(Parallel(sequence=ranks.mesh().every.size), torch.device("cpu"))):
        found = trunk({"text": stream}).x
    return {"x": float((found - wanted)[valid].abs().max().detach()), "size": float(wanted.detach().abs().max())}


def shares(kind: str) -> Found:
    """The same with weights in shares."""
    return apart(learned(kind, mine(), sharded=True), alone(kind))


class Holed(Samples):
    """Samples of which some cannot be read."""

    def __init__(self, inner: Samples, holes: set[int]):
        self.inner, self.holes = inner, holes

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, key: Any) -> Any:
        return BadSample(f"item {key[1]}", "is a hole") if key[1] in self.holes else self.inner[key]


def fitted(
    holes: set[int],
    workers: int = 0,
    broken: tuple[int, int] = (-1, -1),
    steps: int = 8,
    unseen: set[int] = set(),  # noqa: B006
    kind: str = "next_token",
) -> Found:
    """What a fit leaves, of samples of which some cannot be read, `unseen` of those held out; the loss of rank broken[0] is NaN in
    step broken[1]."""
    ready = copy.deepcopy(ready_of(kind))
    objective, rank = ready.objective.double(), ranks.data().rank
    inner, calls = objective.forward, [0]

    def forward(batch: Any, drawn: Any = None) -> Any:
        loss = inner({n: s.each(lambda x: x.double() if x.is_floating_point() else x) for n, s in batch.items()}, drawn)
        calls[0] += objective.training
        return loss._replace(total=loss.total * (math.nan if (rank, calls[0]) == broken else 1))

    objective.forward = forward
    bad = BadSamples(1.0)
    settings = SETTINGS.replace(steps=steps, workers=workers)
    made = fit(objective, Holed(ready.train, holes), Holed(ready.held_out, unseen), settings, bad=bad, bar=False)
    state = {name: x.tolist() for name, x in whole_state(objective).items() if x.dim() == 1}
    return {
        "state": state,
        "bad": bad.listed,
        "skipped": made.skipped,
        "held_out": made.held_out,
        "steps": len(made.log),
    }


def holes(kind: str) -> Found:
    """Samples that cannot be read, a whole rank's among them, by workers: beside what one process makes of them."""
    # the first batch of four, of which rank 0 has nothing left
    order = list(Order(len(_ready("next_token").train), ROWS, 0, 0, 1))[0]
    gaps = {place for _, place in order[: ROWS // 2]} | {order[-1][1]}
    found = fitted(gaps, int(kind))
    with ranks.within(Mesh()):
        wanted = fitted(gaps)
    return {"found": found, "wanted": wanted}


def torn(kind: str) -> Found:
    """Samples that only one of two with the same rows can read: one of a batch, all of one, another one on each, held-out ones."""
    example = "next_token+grouped"
    steps = [[place for _, place in keys] for keys in Order(len(ready_of(example).train), ROWS, 0, 0, 3)]
    gaps = [{steps[2][0]}, {steps[0][3], *steps[1], steps[2][1]}]
    with ranks.within(_mesh(Parallel().replace(**{kind: 2}), torch.device("cpu"))) as mesh:
        last = mesh.every.rank == 1
        found = fitted(gaps[last], steps=3, unseen={0, 1} if last else set(), kind=example)
    with ranks.within(Mesh()):
        wanted = fitted(gaps[0], steps=3, kind=example)
    return {"found": found, "wanted": wanted, "holes": sorted({0, 1}.union(*gaps))}


def unseen(kind: str) -> Found:
    """Held-out batches of which some process can read nothing, the first one or all of its own, with weights in shards."""
    ready = ready_of("next_token")
    held_out = Holed(ready.held_out, {"first": {0, 1}, "own": {0, 1, 4, 5}, "all": set(range(6))}[kind])
    settings = SETTINGS.replace(batch=2)
    objective = copy.deepcopy(ready.objective).double()
    with ranks.within(Mesh()):
        wanted = evaluate(objective, held_out, settings, batches=3)
    shard(objective, ranks.mesh())
    bad = BadSamples(1.0)
    found = evaluate(objective, held_out, settings, batches=3, bad=bad)
    return {"found": found, "wanted": wanted, "bad": [where for where, _ in bad.listed]}


def nan(kind: str) -> Found:
    """A loss that is NaN on the last rank only."""
    found = fitted(set(), broken=(ranks.data().size - 1, 3))
    return {"all": ranks.data().gather_objects(found)}


def elastic(kind: str) -> Found:
    """Runs that are stopped by a signal to one process, and go on."""
    folder, recipe = Path(sys.argv[2]), json.loads(Path(sys.argv[2], "recipe.json").read_text())
    more = {"rows": [], "shares": ["parallel.shard=true"], "heads": ["parallel.tensor=2"]}[kind]
    whole_run = sf.train(recipe, folder / f"{kind}_whole", overrides=more, say=quiet, bar=False)

    write = Log.write

    def stop(log: Log, record: Any) -> None:
        write(log, record)
        if "held_out" in record and ranks.mesh().every.first:
            os.kill(os.getpid(), signal.SIGTERM)

    Log.write = stop
    try:
        sf.train(recipe, folder / f"{kind}_again", overrides=more, say=quiet, bar=False)
    except Preempted as error:
        code = error.code
    Log.write = write
    if ranks.mesh().every.first:  # the others wait for it when they go on
        shutil.copytree(folder / f"{kind}_again", folder / f"{kind}_stopped")
    again = sf.train(folder / f"{kind}_again", overrides=more, resume=True, say=quiet, bar=False)
    other = sf.train(folder / f"{kind}_alone", overrides=more, resume=True, say=quiet, bar=False)
    weights = [run.model.state_dict() for run in (whole_run, again)]
    return {
        "code": code,
        "bitwise": all(torch.equal(a, b) for a, b in zip(*(state.values() for state in weights))),
        "loss": again.loss,
        "other": other.loss,
        "logged": [record["loss"] for record in again.log if "loss" in record],
    }


LAYOUTS = {"rows": (1, False), "shares": (1, True), "heads": (2, False), "both": (2, True)}
"""How many share heads, and whether weights are in shares."""


def layout(kind: str) -> Found:
    """Is what is loaded into other layouts, and put together again, what was written?"""
    ready, run = ready_of("next_token+grouped"), Path(sys.argv[2], f"layout_{kind}")
    states, own_share = [], 0.0
    for how in (kind, *LAYOUTS):
        tensor, sharded = LAYOUTS[how]
        with ranks.within(_mesh(Parallel(tensor=tensor), torch.device("cpu"))) as mesh:
            objective = copy.deepcopy(ready.objective).train()
            whole_size = sum(p.numel() for p in objective.parameters())
            if tensor > 1:
                cut(objective, mesh.tensor)
            if sharded:
                shard(objective, mesh)
            trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
            optimizer = SETTINGS.optimizer.build(trainable, objective.cares(), placement(objective).cut)
            if not states:
                gradients = Gradients(objective, mesh)
                batch, _, _ = gather([ready.train[0, place] for place in range(ROWS)[mine()]])
                take_step(objective, optimizer, batch, SETTINGS, "fp32", 0, 0, 1.0, gradients=gradients)
                gradients.close()
                checkpoint.write(run, checkpoint.snapshot(1, objective, optimizer), mesh.every)
                own_share = sum(own(p).numel() for p in trainable.values()) / whole_size
            else:
                checkpoint.restore(run, objective, optimizer, quiet)
            cuts, state = placement(objective).cut, whole_state(objective)
            for name, value in optimizer.tensors().items():
                state[name] = whole(value.detach(), cuts.get(name.partition("|")[0]) if value.dim() else None)
            states.append(state)
    first = states[0]
    same = [a.keys() == first.keys() and all(torch.equal(a[n], first[n]) for n in first) for a in states[1:]]
    names = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    return {"same": dict(zip(LAYOUTS, same)), "share": own_share, "tensors": len(first), "files": names}


def command(kind: str) -> Found:
    """The command line, in every process; data that cannot be read, and heads that cannot be shared."""
    folder = Path(sys.argv[2])
    code = main_of(["train", str(folder / "recipe.json"), "--out", str(folder / "command")])
    wrong = main_of(["train", str(folder / "recipe.json"), "data.path=nowhere", "data.kind=text"])
    with contextlib.redirect_stderr(io.StringIO()) as said:
        more = ["--out", str(folder / "refused"), "parallel.tensor=2", "trunks.lm.block.mixer.heads=1"]
        refused = main_of(["train", str(folder / "recipe.json"), *more])
    every = ranks.mesh().every
    return {"codes": every.gather_objects([code, wrong, refused]), "refused": every.gather_objects(said.getvalue())}


def sent(kind: str) -> Found:
    """What is sent in a step, beside what the plan says."""
    inner, counted = dist.all_reduce, [0]

    def count(tensor: torch.Tensor, *more: Any, **settings: Any) -> Any:
        counted[0] += tensor.nbytes * (tensor.dtype is torch.float32)  # not what is agreed on
        return inner(tensor, *more, **settings)

    size, found = ranks.mesh().every.size, {}
    for heads, name in ((1, "rows"), (size, "heads")):
        ready = copy.deepcopy(ready_of(kind))
        batch, _, _ = gather([ready.train[0, place] for place in range(ROWS)[mine() if heads == 1 else slice(None)]])
        alone = estimate(
            ready.objective,
            shape_of(batch),
            SETTINGS.replace(batch=len(next(iter(batch.values())).values)),
            "fp32",
            Hardware.named("h100"),
        )
        with ranks.within(_mesh(Parallel(tensor=heads), torch.device("cpu"))) as mesh:
            if heads > 1:
                cut(ready.objective, mesh.tensor)
            trainable = {n: p for n, p in ready.objective.named_parameters() if p.requires_grad}
            optimizer = SETTINGS.optimizer.build(trainable, ready.objective.cares())
            gradients = Gradients(ready.objective, mesh)
            dist.all_reduce, counted[0] = count, 0
            take_step(ready.objective, optimizer, batch, SETTINGS, "fp32", 0, 0, 1.0, gradients=gradients)
            dist.all_reduce = inner
        found[name] = 2 * (size - 1) / size * counted[0]
        found |= {f"{name}, {way.way}": way.sent for way in layouts(alone, Hardware.named("h100"), size, 1, heads)}
    return found


def quiet(line: str) -> None:
    pass


CASES: dict[str, tuple[Callable[[str], Found], list[str]]] = {
    "objectives": (objectives, list(kinds("objective"))),
    "in_pieces": (in_pieces, ["simclr", "infonce", "vicreg", "masked_token"]),
    "lacking": (lacking, ["infonce-caption", "supervised-label", "semi_supervised-label"]),
    "spread": (spread, ["next_token", "masked_token", "simclr", "ijepa", "span_corruption", "infonce"]),
    "heads": (
        heads,
        [
            "next_token+grouped",
            "masked_token+biased",
            "simclr+biased",
            "span_corruption+grouped",
            "byol+mixed",
            "next_token+dropped",
        ],
    ),
    "both": (both, ["masked_token+biased"]),
    "turned": (turned, ["next_token+grouped"]),
    "places": (places, ["rotary", "alibi", "learned", "relative_bias"]),
    "holes": (holes, ["0", "1"]),
    "torn": (torn, ["tensor", "sequence"]),
    "unseen": (unseen, ["first", "own", "all"]),
    "nan": (nan, ["last"]),
    "command": (command, ["train"]),
    "sent": (sent, ["next_token+grouped", "masked_token+biased", "span_corruption+grouped"]),
    "layout": (layout, list(LAYOUTS)),
    "elastic": (elastic, ["rows", "shares", "heads"]),
    "shares": (shares, ["next_token", "masked_token", "simclr", "byol", "dinov2", "infonce", "mae"]),
}


def main(out: Path, only: list[str]) -> None:
    torch.set_num_threads(1)
    found: dict[str, Found] = {}
    with joined(Parallel(patience=60), torch.device("cpu")) as mesh:
        for name, (do, kinds_of) in CASES.items():
            for kind in kinds_of:
                if only and f"{name}/{kind}" not in only and name not in only:
                    continue
                began = time.perf_counter()
                try:
                    found[f"{name}/{kind}"] = do(kind)
                except Exception:
                    found[f"{name}/{kind}"] = {"error": traceback.format_exc()}
                spent = time.perf_counter() - began
                print(mesh.every.rank, name, kind, f"{spent:.2f} s", file=sys.stderr, flush=True)
        if mesh.every.first:
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[3:])
