"""One bit flipped, a file cut short, deleted or grown in the newest checkpoint: it must be noticed, the file named, and the newest
whole one taken. Beside it: one flipped bit in a file of torch.save."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._kit import Tally, changed, fitted, ready_of, small
from sevenfold.core.errors import CheckpointError
from sevenfold.core.files import MANIFEST
from sevenfold.training import checkpoint

TRIES = 500
WAYS = ("flip", "flip", "flip", "truncate", "delete", "grow")


def damage(path: Path, how: str, draw: random.Random) -> None:
    """Break a file in one of WAYS."""
    if how == "delete":
        path.unlink()
    else:
        path.write_bytes(changed(path.read_bytes(), how, draw))


def tried(folder: Path, tries: int) -> Iterator[Outcome]:
    """Each file of the newest of three checkpoints in turn."""
    fitted(small(steps=3, save_every=1, keep=3), folder)
    newest = folder / "checkpoints/step-00000003"
    shutil.copytree(newest, folder / "whole")
    tally, draw, files = Tally(), random.Random(0), sorted(path.name for path in newest.iterdir())
    for attempt in range(tries):
        name, how = files[attempt % len(files)], draw.choice(WAYS)
        damage(newest / name, how, draw)
        tally.note(noticed(folder, newest, name))
        shutil.copy(folder / "whole" / name, newest / name)
    yield tally.outcome(
        "a file of the newest checkpoint flipped, cut, deleted, grown", "all noticed, file named, fallback"
    )
    model, peer, unseen = ready_of(small()).model.state_dict(), folder / "peer.pt", Tally()
    torch.save(model, peer)
    content = peer.read_bytes()
    for _ in range(tries):
        peer.write_bytes(changed(content, "flip", draw))
        try:
            found = torch.load(peer, weights_only=True)
            unseen.note(
                "" if found.keys() == model.keys() and all(found[n].equal(model[n]) for n in model) else "other"
            )
        except Exception:
            unseen.note("")
    yield unseen.outcome("one bit of a torch.save file flipped: read without a word, and other", "(peer)", gates=False)


def noticed(run: Path, broken: Path, name: str) -> str:
    """What is wrong with how a damaged file is met; nothing if it is noticed and the checkpoint before is taken."""
    said: list[str] = []
    try:
        found = checkpoint.newest_whole(run, said.append)
    except CheckpointError as error:
        return f"{name}: no fallback: {error}"
    if found.name >= broken.name:
        return f"{name}: was not noticed"
    named = broken if name == MANIFEST else broken / name  # a changed hash in it is a changed file
    if len(said) != 1 or str(named) not in said[0]:
        return f"{name}: is not named in {said}"
    return ""
