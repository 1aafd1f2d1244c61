"""What a conversion did, written down: which tensors became which, numbers on both sides, licence, hashes, differences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from sevenfold.assembly.model import Model
from sevenfold.core.files import sha256, write_atomic
from sevenfold.core.version import __version__
from sevenfold.exchange.weights import INDEX, files
from sevenfold.family import LUGGAGE, OBJECTIVE, Family

PASSPORT = "passport.json"


class Passport(NamedTuple):
    """The record of a conversion.

    origin        the folder or id that it came from
    licence       what its card says, or None
    family        our kind, and the published model_type and architecture
    tensors       our tensor(s) → the published ones
    parameters    numbers: `published` in the files, `model` in ours, `carried` along unchanged, `left` (copies and constants
                  that are not needed)
    carried, left names of published tensors
    files         name → SHA-256 of the published weight files
    unpublished   heads of ours that the published architecture has no place for (on the way out)
    differences   trunk → largest difference of the stream before and after each block from the reference's (with --verify)
    """

    origin: str
    licence: str | None
    family: dict[str, Any]
    tensors: dict[str, list[str]]
    parameters: dict[str, int]
    carried: list[str]
    left: list[str]
    files: dict[str, str]
    differences: dict[str, list[float]] | None = None
    unpublished: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For a person."""
        numbers = self.parameters
        found = [
            f"{self.origin}: {self.family['model_type']} ({self.family['architecture'] or 'no head named'}), read by the family "
            f"{self.family['kind']}; licence: {self.licence or 'not said'}",
            f"{sum(map(len, self.tensors.values())):,} published tensors are {len(self.tensors):,} of ours",
            f"parameters: {numbers['published']:,} published, {numbers['model']:,} in the model, {numbers['carried']:,} carried "
            f"along, {numbers['left']:,} left behind (copies, constants)",
        ]
        if self.carried:
            found.append(f"carried along for the way back: {_some(self.carried)}")
        if self.unpublished:
            found.append(f"not published, as the architecture has no place for it: {_some(list(self.unpublished))}")
        found += [f"{name}: sha256 {digest}" for name, digest in self.files.items()]
        for trunk, away in (self.differences or {}).items():
            worst = max(range(len(away)), key=away.__getitem__)
            found.append(
                f"{trunk}: largest difference from transformers {away[worst]:.1e} (layer {worst} of {len(away) - 1}); by layer: "
                + " ".join(f"{value:.0e}" for value in away)
            )
        return found

    def write(self, folder: Path) -> str:
        """Write passport.json; returns its name."""
        text = json.dumps({"sevenfold": __version__, **self._asdict()}, indent=1, ensure_ascii=False)
        write_atomic(folder / PASSPORT, text + "\n")
        return PASSPORT


def mapped(
    family: Family, folder: Path, record: Mapping[str, Any], state: Mapping[str, Tensor], model: Model
) -> Passport:
    """The passport of a model and the published tensors `state` that it is made of, or that were made of it."""
    pairs: dict[str, list[str]] = {}
    for rule in family.rules():
        ours, theirs = rule.names
        pairs.setdefault(" + ".join(ours) or "(computed)", []).extend(theirs)
    respelled = family.respelled(state)
    carried = sorted(family.aboard(respelled))
    used = {name for names in pairs.values() for name in names}
    left = sorted(name for name in state if family.respell(name) not in used and family.respell(name) not in carried)
    architectures = record["config"].get("architectures") or [None]
    numbers = {
        "published": sum(value.numel() for value in state.values()),
        "model": sum(value.numel() for value in model.state_dict().values()),
        "carried": sum(value.numel() for name, value in model.luggage.items() if name.startswith((LUGGAGE, OBJECTIVE))),
        "left": sum(state[name].numel() for name in left),
    }
    kind = {"kind": family.kind, "model_type": record["config"].get("model_type"), "architecture": architectures[0]}
    hashes = {path.name: sha256(path) for path in files(folder)}
    if (folder / INDEX).is_file():
        hashes[INDEX] = sha256(folder / INDEX)
    return Passport(str(record["origin"]), record.get("licence"), kind, pairs, numbers, carried, left, hashes)


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
