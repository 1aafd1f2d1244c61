"""What each of several processes does in test_parallel.py: python -m torch.distributed.run --nproc-per-node 2 tests/ranks.py OUT"""

from __future__ import annotations

import copy
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sevenfold.conformance.objective import _ready
from sevenfold.core import ranks
from sevenfold.core.ranks import Mesh
from sevenfold.core.rooms import kinds
from sevenfold.data.loader import gather
from sevenfold.training.fit import take_step
from sevenfold.training.parallel import Parallel, joined
from sevenfold.training.parallel.gradients import Gradients, whole
from sevenfold.training.parallel.rows import of_all
from sevenfold.training.parallel.sharding import shard
from sevenfold.training.recipe import TrainConfig

ROWS, STEPS = 8, 3
SETTINGS = TrainConfig.model_validate(
    {"steps": 10, "batch": ROWS, "precision": "fp32", "optimizer": {"kind": "adamw", "eps": 1e-3}}
)
Found = dict[str, Any]


def learned(kind: str, rows: slice, sharded: bool = False, accumulate: int = 1) -> Found:
    """Parameters, buffers and losses after some steps in float64 on some rows of the same batches."""
    ready = _ready(kind)
    objective = copy.deepcopy(ready.objective).double().train()
    others = ranks.data()
    if sharded:
        shard(objective, others)
    trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimizer = SETTINGS.optimizer.build(trainable, objective.cares())
    gradients, losses = Gradients(trainable.values(), others), []
    settings = SETTINGS.replace(accumulate=accumulate)
    for step in range(STEPS):
        items = [ready.train[0, (step * ROWS + place) % len(ready.train)] for place in range(ROWS)[rows]]
        batch, _, _ = gather(items)
        batch = {n: s.each(lambda x: x.double() if x.is_floating_point() else x) for n, s in batch.items()}
        loss, norm, ok = take_step(objective, optimizer, batch, settings, "fp32", 0, step, 1.0, gradients)
        objective.after_step(step, 10)
        losses.append({**of_all(loss, 0, 0)[0], "norm": norm, "ok": float(ok)})
    gradients.close()
    return {"state": {name: whole(x.detach()) for name, x in objective.state_dict().items()}, "losses": losses}


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


def alone(kind: str) -> Found:
    with ranks.within(Mesh()):
        return learned(kind, slice(0, ROWS))


def objectives(kind: str) -> Found:
    """The figures of several processes beside those of one."""
    return apart(learned(kind, mine()), alone(kind))


def in_pieces(kind: str) -> Found:
    """The same with `accumulate`."""
    return apart(learned(kind, mine(), accumulate=2), alone(kind))


def shares(kind: str) -> Found:
    """The same with weights in shares."""
    return apart(learned(kind, mine(), sharded=True), alone(kind))


CASES: dict[str, tuple[Callable[[str], Found], list[str]]] = {
    "objectives": (objectives, list(kinds("objective"))),
    "in_pieces": (in_pieces, ["simclr", "infonce", "vicreg", "masked_token"]),
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
                print(mesh.every.rank, name, kind, file=sys.stderr, flush=True)
                try:
                    found[f"{name}/{kind}"] = do(kind)
                except Exception:
                    found[f"{name}/{kind}"] = {"error": traceback.format_exc()}
        if mesh.every.first:
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
