"""Checkpoints that survive: written aside, synced, hashed, renamed; verified when loaded; never unpickled.

    checkpoints/step-00000200/  model.safetensors  objective.safetensors  optimizer.safetensors  state.json  manifest.json

(or folders model, objective, optimizer of shards, where weights are sharded or cut). A folder under its final name is whole. Loading walks from the newest to the oldest, and says what it passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from sevenfold.core import ranks
from sevenfold.core.cut import Cut
from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import (
    MANIFEST,
    known_by,
    publish,
    read_json,
    remove_folder,
    sync_file,
    temporary_of,
    verify_manifest,
)
from sevenfold.core.ranks import Ranks
from sevenfold.exchange.weights import of_file as tensors
from sevenfold.objective import Objective
from sevenfold.training.optimizer import Optimizer
from sevenfold.training.parallel import late
from sevenfold.training.parallel.gradients import fits, placed, sharded
from sevenfold.training.parallel.tensor import placement

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
    """Tensors as safetensors wants them: own memory, contiguous."""
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


class Snapshot(NamedTuple):
    """What a checkpoint is written from: nothing of it changes when training goes on."""

    step: int
    parts: dict[str, dict[str, Tensor]]
    """model, objective, optimizer: name → tensor."""
    facts: dict[str, Any]
    cuts: dict[str, dict[str, Cut]]
    """Of each part: name → how this process has it, where that is a part of its heads or channels."""
    shares: bool
    """Whether each process has only a part of the tensors."""


def snapshot(
    step: int, objective: Objective, optimizer: Optimizer, skipped: int = 0, bad: Sequence[tuple[str, str]] = (), guard: Any = None,
) -> Snapshot:  # fmt: skip
    """The state of a run after `step`, copied."""
    parts = {
        "model": objective.model.state_dict(),
        "objective": own_state(objective),
        "optimizer": optimizer.tensors(),
    }
    known = placement(objective).cut
    how = {part: cuts_of(part, state, known) for part, state in parts.items()}
    shares = any(map(len, how.values())) or any(sharded(value) for state in parts.values() for value in state.values())
    writes = shares or ranks.mesh().every.first
    copied = {part: contiguous(state) if writes else {} for part, state in parts.items()}
    facts = {"step": step, "skipped": skipped, "bad": [list(pair) for pair in bad], "guard": guard}
    return Snapshot(step, copied, facts, how, shares)


def own_state(objective: Objective) -> dict[str, Tensor]:
    """The objective's parameters and buffers without the model's."""
    return {name: value for name, value in objective.state_dict().items() if not name.startswith("model.")}


def cuts_of(part: str, state: Mapping[str, Tensor], known: Mapping[str, Cut]) -> dict[str, Cut]:
    """How tensor parallelism has cut the tensors of a part of a checkpoint, by name; those that are whole are left out. `known`: of
    all parameters of the objective."""
    before = "model." if part == "model" else ""
    names = {name: before + name.partition("|")[0] for name, value in state.items() if value.dim()}
    return {name: known[own] for name, own in names.items() if own in known}


def write(run: Path, taken: Snapshot, ranks: Ranks, keep: int = 2, spared: int = -1) -> Path:
    """Write a checkpoint and then remove all but the newest `keep` and that of step `spared`. Returns its folder.

    All processes must call it. Where each has all of the weights the first one writes them; otherwise each writes its part, in files
    that another number of processes can read.
    """
    final = run / FOLDER / f"step-{taken.step:08d}"
    try:
        ranks.once(lambda: remove_folder(final))
        temporary = Path(ranks.once(lambda: str(temporary_of(final))))
        try:
            if taken.shares:
                for part, state in taken.parts.items():
                    late("shards").write(state, temporary / part, ranks, taken.cuts[part])
            facts = ranks.each(lambda: _filled(temporary, taken, ranks))
            ranks.once(lambda: publish(temporary, final, dict(sum(map(list, facts), [])), step=taken.step))
        except BaseException:
            if ranks.first:
                remove_folder(temporary)
            raise
        ranks.once(lambda: _thinned(run, keep, spared))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{final}: cannot be written ({str(error).splitlines()[0]}); "
            + (
                "earlier checkpoints are as they were: make room, then resume"
                if listed(run)
                else "there is no earlier one: make room, then begin anew"
            )
        ) from None
    return final


def _filled(temporary: Path, taken: Snapshot, ranks: Ranks) -> list[Any]:
    """Write this process's files, synced; (name, size and hash) of each."""
    if ranks.first and not taken.shares:
        for part, state in taken.parts.items():
            save_file(state, temporary / f"{part}.safetensors")
    if ranks.first:
        (temporary / "state.json").write_text(json.dumps(taken.facts, indent=1) + "\n", encoding="utf-8")
    mine = [temporary / "state.json", *temporary.glob("*.safetensors")] if ranks.first else []
    mine += temporary.glob(f"*/shard-{ranks.rank + 1:05d}-*.safetensors")
    for path in mine:
        sync_file(path)
    return [(path.relative_to(temporary).as_posix(), known_by(path)) for path in mine]


def _thinned(run: Path, keep: int, spared: int) -> None:
    for old in listed(run)[keep:]:
        if old.name != f"step-{spared:08d}":
            remove_folder(old)


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
    raise CheckpointError(
        f"{run / FOLDER}: "
        + (
            "no checkpoint in it is whole: copy one from a backup, or begin anew in another folder"
            if found
            else "holds no checkpoint"
        )
    )


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    """Put tensors, whole or in parts, into a module; every name and shape must fit."""
    cuts, own = placement(module).cut, module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        told = [f"lacks {missing[0]!r}"] if missing else []
        told += [f"has {extra[0]!r}, which the model does not"] if extra else []
        raise CheckpointError(
            f"{where}: does not fit this model: {' and '.join(told)} ({len(missing) + len(extra)} names differ)"
        )
    for name, value in state.items():
        if not fits(own[name], value, cuts.get(name)):
            raise CheckpointError(
                f"{where}: {name} has shape {list(value.shape)}, the model needs {list(own[name].shape)}"
            )
    module.load_state_dict({name: placed(own[name], value, cuts.get(name)) for name, value in state.items()})


def _part(path: Path, own: Mapping[str, Tensor], cuts: Mapping[str, Cut]) -> tuple[dict[str, Tensor], Path]:
    """(a part of a checkpoint, where it is): of shards, only what this process needs, placed as its own tensors `own` are."""
    file = path.with_name(path.name + ".safetensors")
    if not path.is_dir():
        return tensors(file), file

    names = {str(file.relative_to(path.parent)) for file in path.glob("*.safetensors")}
    if extra := sorted(names - read_json(path.parent / MANIFEST)["files"].keys()):
        raise CheckpointError(f"{path.parent / extra[0]}: is not of this checkpoint, by its manifest")

    def like(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        kept, cut = own.get(name.partition("|")[0]), cuts.get(name.partition("|")[0])
        if kept is not None and shape == (cut.whole(kept.shape) if cut else kept.shape):
            return torch.empty_like(kept, dtype=dtype)
        if kept is None or shape or "|" not in name:
            raise CheckpointError(f"{path}: {name} of shape {list(shape)} is none of this model's")
        return torch.empty(shape, dtype=dtype)

    return late("shards").read(path, like, ranks.mesh().every, cuts), path


def restore(run: Path, objective: Objective, optimizer: Optimizer, say: Say, most: int | None = None) -> Restored:
    """Take over the newest whole checkpoint (model, objective, optimizer), of at most step `most`, and remove what is newer."""
    every = ranks.mesh().every
    path = run / FOLDER / every.once(lambda: newest_whole(run, say, most).name)
    model, known = objective.model.state_dict(), placement(objective).cut
    load_into(objective.model, *_part(path / "model", model, cuts_of("model", model, known)))
    rest = own_state(objective)
    found, where = _part(path / "objective", rest, cuts_of("objective", rest, known))
    load_into(
        objective, {**{f"model.{name}": value for name, value in objective.model.state_dict().items()}, **found}, where
    )
    found, where = _part(path / "optimizer", dict(objective.named_parameters()), known)
    optimizer.restore(found, str(where))
    state = _state(path / "state.json")
    every.barrier()  # all have read it

    def clear() -> None:
        for newer in listed(run):
            if newer.name > path.name:
                remove_folder(newer)

    every.once(clear)
    return state


def _state(path: Path) -> Restored:
    facts = read_json(path)
    facts = facts if isinstance(facts, dict) else {}
    step, skipped, bad = facts.get("step", -1), facts.get("skipped", 0), facts.get("bad", [])
    pairs = isinstance(bad, list) and all(isinstance(x, list) and [type(y) for y in x] == [str, str] for x in bad)
    if type(step) is not int or step < 0 or type(skipped) is not int or not pairs:
        raise CheckpointError(f"{path}: is not the state of a run")
    return Restored(step, skipped, [(where, why) for where, why in bad], path.parent, facts.get("guard"))
