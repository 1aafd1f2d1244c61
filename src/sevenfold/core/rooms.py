"""What stands in each room, read off the file tree and the installed entry points. Imports nothing heavy."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
from functools import cache
from pathlib import Path

from sevenfold.core.errors import ConfigError, did_you_mean

ROOMS: dict[str, str] = {
    "tokenization": "sevenfold.blocks.tokenization",
    "position": "sevenfold.blocks.position",
    "scaling": "sevenfold.blocks.position.scaling",
    "projection": "sevenfold.blocks.projection",
    "packing": "sevenfold.blocks.projection.packing",
    "mixing": "sevenfold.blocks.mixing",
    "cache": "sevenfold.blocks.mixing.cache",
    "nonlinearity": "sevenfold.blocks.nonlinearity",
    "normalization": "sevenfold.blocks.normalization",
    "residual": "sevenfold.blocks.residual",
    "initialisation": "sevenfold.assembly.initialisation",
    "connector": "sevenfold.assembly.connector",
    "adapter": "sevenfold.assembly.adapter",
    "source": "sevenfold.data.source",
    "view": "sevenfold.data.view",
    "modality": "sevenfold.modality",
    "objective": "sevenfold.objective",
    "masker": "sevenfold.objective.masker",
    "balance": "sevenfold.objective.balance",
    "quantizer": "sevenfold.objective.quantizer",
    "family": "sevenfold.family",
    "optimizer": "sevenfold.training.optimizer",
    "schedule": "sevenfold.training.schedule",
    "metric": "sevenfold.evaluation.metric",
    "method": "sevenfold.adaptation.method",
}
"""Room name → the package whose files are its parts."""

GROUP = "sevenfold.parts"
"""Entry-point group of parts that live in other packages; an entry's name is `room.kind`, its value the module."""


@cache
def entry_points() -> dict[str, str]:
    """`room.kind` → module, from the packages that are installed."""
    return {point.name: point.value.partition(":")[0] for point in importlib.metadata.entry_points(group=GROUP)}


@cache
def folder(room: str) -> Path:
    """Where the files of a room are."""
    if room not in ROOMS:
        raise ConfigError(f"there is no room {room!r}{did_you_mean(room, ROOMS)}")
    spec = importlib.util.find_spec(ROOMS[room].rpartition(".")[0])
    assert spec is not None and spec.origin is not None, room
    return Path(spec.origin).parent / ROOMS[room].rpartition(".")[2]


def kinds(room: str) -> tuple[str, ...]:
    """The kinds of one room, by name, without importing any of them."""
    own = {file.stem for file in folder(room).glob("*.py") if not file.stem.startswith("_")}
    other = {name.partition(".")[2] for name in entry_points() if name.partition(".")[0] == room}
    return tuple(sorted(own | other))


def module_of(room: str, kind: str) -> str:
    """The module that holds a part: our own file, or else an installed package's."""
    if re.fullmatch(r"[a-z][a-z0-9_]*", kind) and (folder(room) / f"{kind}.py").is_file():
        return f"{ROOMS[room]}.{kind}"
    module = entry_points().get(f"{room}.{kind}")
    if module is None:
        raise ConfigError(f"no {room} is called {kind!r}{did_you_mean(kind, kinds(room))}")
    return module


def header(room: str, kind: str) -> str:
    """The docstring of a part's file, read without importing it."""
    file = _file_of(module_of(room, kind))
    return "" if file is None else ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def _file_of(module: str) -> Path | None:
    """The file of a module, found without importing the packages that it is in."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*rest) if rest else Path(spec.origin)
    return next((file for file in (path, path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def room_header(room: str) -> str:
    """The docstring of a room's package, read without importing it."""
    return ast.get_docstring(ast.parse((folder(room) / "__init__.py").read_text(encoding="utf-8"))) or ""
