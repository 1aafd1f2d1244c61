"""Checkpoints that survive: written aside, synced, hashed, renamed; verified when loaded; never unpickled.

    checkpoints/step-00000200/  model.safetensors  objective.safetensors  optimizer.safetensors  state.json  manifest.json

A folder under its final name is whole. Loading walks from the newest to the oldest, and says what it passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from sevenfold.core import ranks
from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import MANIFEST, publish_folder, read_json, remove_folder, verify_manifest
from sevenfold.exchange.weights import of_file as tensors
from sevenfold.objective import Objective
from sevenfold.training.optimizer import Optimizer
from sevenfold.training.parallel.gradients import placed, sharded, whole

FOLDER = "checkpoints"
Say = Callable[[str], None]


class Restored(NamedTuple):
    """What a checkpoint says beside weights: the step it was written after, how many steps were skipped until then,
    (where, why) of the samples that could not be read, and the guard's state (None: it begins anew)."""

    step: int
    skipped: int
    bad: list[tuple[str, str]]
    path: Path
    guard: Any


def contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors wants them: own memory, contiguous. What is in shares is put together, on the first process
    (every one must ask); elsewhere there is nothing to write."""
    found = {}
    for name, value in state.items():
        every = whole(value.detach())
        if ranks.mesh().every.first:
            found[name] = every.to("cpu", copy=True).contiguous() if sharded(value) else every.clone().contiguous()
    return found


def own_state(objective: Objective) -> dict[str, Tensor]:
    """The objective's parameters and buffers without the model's."""
    return {name: value for name, value in objective.state_dict().items() if not name.startswith("model.")}


def save(
    run: Path,
    step: int,
    objective: Objective,
    optimizer: Optimizer,
    skipped: int = 0,
    bad: Sequence[tuple[str, str]] = (),
    keep: int = 2,
    guard: Any = None,
    spared: int = -1,
) -> Path:
    """Write the checkpoint of `step` and then remove all but the newest `keep` and that of step `spared`. Returns its folder.

    It knows nothing of processes: all of them ask, the first one writes, and any number can go on from it.
    """
    parts = {
        "model.safetensors": contiguous(objective.model.state_dict()),
        "objective.safetensors": contiguous(own_state(objective)),
        "optimizer.safetensors": contiguous(optimizer.tensors()),
    }

    def fill(folder: Path) -> list[str]:
        for name, state_dict in parts.items():
            save_file(state_dict, folder / name)
        state = {"step": step, "skipped": skipped, "bad": [list(pair) for pair in bad], "guard": guard}
        (folder / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        return [*parts, "state.json"]

    final = run / FOLDER / f"step-{step:08d}"

    def write() -> None:
        try:
            remove_folder(final)
            publish_folder(final, fill, step=step)
            for old in listed(run)[keep:]:
                if old.name != f"step-{spared:08d}":
                    remove_folder(old)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{final}: cannot be written ({str(error).splitlines()[0]}); earlier checkpoints are as they were: "
                "make room, then resume"
            ) from None

    ranks.mesh().every.once(write)
    return final


def listed(run: Path) -> list[Path]:
    """Checkpoint folders under their final names, newest first."""
    folder = run / FOLDER
    found = (
        [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name)] if folder.is_dir() else []
    )
    return sorted(found, reverse=True)


def sweep(run: Path) -> None:
    """Remove what an interrupted process left behind."""
    for orphan in [*run.glob(".tmp-*"), *(run / FOLDER).glob(".tmp-*")]:
        if orphan.is_dir():
            remove_folder(orphan)
        else:
            orphan.unlink(missing_ok=True)


def newest_whole(run: Path, say: Say, most: int | None = None) -> Path:
    """The newest checkpoint (of at most step `most`) whose files are all there and unchanged; `say` is told of each that is
    not."""
    found = [path for path in listed(run) if most is None or int(path.name.removeprefix("step-")) <= most]
    for path in found:
        try:
            if verify_manifest(path).get("step") != int(path.name.removeprefix("step-")):
                raise CheckpointError(f"{path / MANIFEST}: is that of another step")
            return path
        except (CheckpointError, OSError) as error:
            say(f"skipping a damaged checkpoint: {error}")
    raise CheckpointError(f"{run / FOLDER}: " + ("no checkpoint in it is whole" if found else "holds no checkpoint"))


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    """Put tensors into a module; every name and shape must fit."""
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        told = [f"lacks {missing[0]!r}"] if missing else []
        told += [f"has {extra[0]!r}, which the model does not"] if extra else []
        raise CheckpointError(
            f"{where}: does not fit this model: {' and '.join(told)} ({len(missing) + len(extra)} names differ)"
        )
    for name, value in state.items():
        if own[name].shape != value.shape:
            raise CheckpointError(
                f"{where}: {name} has shape {list(value.shape)}, the model needs {list(own[name].shape)}"
            )
    module.load_state_dict({name: placed(own[name], value) for name, value in state.items()})


def restore(run: Path, objective: Objective, optimizer: Optimizer, say: Say, most: int | None = None) -> Restored:
    """Take over the newest whole checkpoint (model, objective, optimizer), of at most step `most`, and remove what is newer."""
    path = newest_whole(run, say, most)
    load_into(objective.model, tensors(path / "model.safetensors"), path / "model.safetensors")
    own = {f"model.{name}": value for name, value in objective.model.state_dict().items()}
    load_into(objective, {**own, **tensors(path / "objective.safetensors")}, path / "objective.safetensors")
    optimizer.restore(tensors(path / "optimizer.safetensors"), str(path / "optimizer.safetensors"))
    found = _state(path / "state.json")
    ranks.mesh().every.wait()  # all have seen what is damaged

    def clear() -> None:
        for newer in listed(run):
            if newer.name > path.name:
                remove_folder(newer)

    ranks.mesh().every.once(clear)
    return found


def _state(path: Path) -> Restored:
    facts = read_json(path)
    facts = facts if isinstance(facts, dict) else {}
    step, skipped, bad = facts.get("step", -1), facts.get("skipped", 0), facts.get("bad", [])
    pairs = isinstance(bad, list) and all(isinstance(x, list) and [type(y) for y in x] == [str, str] for x in bad)
    if type(step) is not int or step < 0 or type(skipped) is not int or not pairs:
        raise CheckpointError(f"{path}: is not the state of a run")
    return Restored(step, skipped, [(where, why) for where, why in bad], path.parent, facts.get("guard"))
