"""A full disk, a write error, a limit on the size of files, each at many points of a training: one line, the checkpoints of before
as they were, nothing half-written under a final name; with room again the run ends as one that had it all along."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._kit import Tally, begin, ended, fitted, small
from sevenfold.core.errors import CheckpointError, SevenfoldError
from sevenfold.core.files import verify_manifest
from sevenfold.training import checkpoint

TRIES = 30
MADE = ("open", "os.rename", "os.mkdir")
"""What needs room: Python's audit events of it."""


def failing(data: Any, folder: Path, point: int, code: int) -> int:
    """Train; from the `point`-th time on that something is made in the folder, that fails with the error `code`."""
    seen = [0]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in MADE or not str(args[0]).startswith(str(folder)):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        seen[0] += 1
        if seen[0] >= point:
            raise OSError(code, os.strerror(code), str(args[0]))

    sys.addaudithook(hook)  # cannot be taken away, so this runs in a process of its own
    return _trained(data, folder)


def limited(data: Any, folder: Path, most: int) -> int:
    """Train, where no file may be larger than so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    return _trained(data, folder)


def _trained(data: Any, folder: Path) -> int:
    """0 when it ends, 2 with one line on the standard output."""
    os.environ["TMPDIR"] = str(folder)
    try:
        fitted(data, folder)
        return 0
    except SevenfoldError as error:
        os.write(1, f"\nERROR {error}".encode())
        return 2


def tried(folder: Path, tries: int) -> Iterator[Outcome]:
    """A third of the points each: made things that fail, sizes of files, sizes of a disk."""
    data = small(steps=4, save_every=1, evaluate_every=4, keep=2)
    begun, whole = folder / "begun", folder / "whole"
    fitted({**data, "train": {**data["train"], "steps": 4}}, whole)
    begun.mkdir()
    shutil.copytree(whole / "checkpoints/step-00000003", begun / "checkpoints/step-00000003")
    data = {**data, "train": {**data["train"], "steps": 6}}
    wanted = _weights(fitted_copy(data, begun, folder / "reference"))
    sizes = sorted(file.stat().st_size for file in (begun / "checkpoints/step-00000003").iterdir())
    share = -(-tries // 3)
    errors, limits, disks = Tally(), Tally(), Tally()
    for point in range(share):
        code = (errno.ENOSPC, errno.EIO, errno.EDQUOT)[point % 3]
        errors.note(_try(folder, begun, data, wanted, failing, (1 + point * 24 // share, code)))
    yield errors.outcome(
        "writing fails (no room, input/output error, quota) from a point on", "as before, then bitwise"
    )
    for point in range(share):
        limits.note(_try(folder, begun, data, wanted, limited, (2000 + point * sizes[-1] // share,)))
    yield limits.outcome("no file may be larger than …", "as before, then bitwise")
    room = sum(sizes)
    for point in range(share):
        with small_disk(folder / "disk", 2 * room + 65_536 + point * 2 * room // share) as mounted:
            if mounted:
                disks.note(
                    _try(
                        folder, begun, data, wanted, lambda data, place: _trained(data, place), (), folder / "disk/run"
                    )
                )
    told = "" if disks.tried else "a small disk cannot be mounted here: left out"
    yield disks.outcome("a disk with room for so much", "as before, then bitwise", told, gates=bool(disks.tried))


def fitted_copy(data: Any, begun: Path, run: Path) -> Path:
    """Train from a copy of a run that has begun; the copy."""
    shutil.copytree(begun, run)
    fitted(data, run)
    return run


def _try(
    folder: Path,
    begun: Path,
    data: Any,
    wanted: dict[str, bytes],
    function: Any,
    args: tuple,
    place: Path | None = None,
) -> str:
    """What is wrong with how one full disk is met."""
    run = place or folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(begun, run)
    before = {path.name: _content(path) for path in checkpoint.listed(run)}
    process = begin(_there if place else function, data, run, *args, told=folder / "told")
    if not ended(process, 60):
        return "hangs"
    said = (folder / "told").read_text(errors="replace")
    if "Traceback" in said or process.exitcode not in (0, 2):
        return f"exit code {process.exitcode}: {said[-200:]}"
    if process.exitcode == 2 and "make room" not in said.rpartition("ERROR ")[2]:
        return f"says {said.rpartition('ERROR ')[2]!r}"
    for path in checkpoint.listed(run):
        try:
            verify_manifest(path)
        except CheckpointError as error:
            return str(error)
    kept = {path.name: _content(path) for path in checkpoint.listed(run)}
    if process.exitcode == 2 and not any(kept.get(name) == content for name, content in before.items()):
        if not kept:
            return "no checkpoint is left"
    if place is not None:  # room again
        shutil.rmtree(folder / "run", ignore_errors=True)
        shutil.copytree(run, folder / "run")
        run = folder / "run"
    fitted(data, run)
    return "" if _weights(run) == wanted else "resumed, it is another run"


def _there(data: Any, folder: Path) -> int:
    return _trained(data, folder)


def _content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _weights(run: Path) -> dict[str, bytes]:
    """The tensors of the newest checkpoint."""
    newest = checkpoint.listed(run)[0]
    return {"step": newest.name.encode(), **{file.name: file.read_bytes() for file in newest.glob("*.safetensors")}}


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[bool]:
    """A file system of so many bytes, where the system allows to mount one."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], capture_output=True)
