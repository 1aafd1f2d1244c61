"""A trained model, made to do something: `sf.adapt(run, data, method="probe")`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sevenfold.adaptation._folder import card, check_new, encoded, write_record
from sevenfold.adaptation._task import data_of
from sevenfold.adaptation.method import Asked, Figures, Method, Say
from sevenfold.assembly.model import Model
from sevenfold.core import notation, part
from sevenfold.core.errors import ConfigError
from sevenfold.core.files import write_atomic
from sevenfold.core.seeds import seed_of
from sevenfold.data.source import Source
from sevenfold.training.load import load, located
from sevenfold.training.recipe import Recipe
from sevenfold.training.run import fresh


class Adapted(NamedTuple):
    """The folder of an adapted model, its figures on held-out samples, and what else is said of them."""

    folder: Path
    figures: Figures
    record: dict[str, Any]
    lines: list[str]

    @property
    def model(self) -> Model:
        """The model, loaded from its folder."""
        return load(self.folder)


def adapt(
    run: str | Path,
    data: str | Path | Mapping[str, Any] | Source.Config,
    method: str | Method.Config = "probe",
    *,
    target: str | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    say: Say = print,
) -> Adapted:
    """Adapt a run, a published folder, or the id of one (`owner/name`), to data.

    data      a file or folder, the kind of a source that needs none (`digits`), or a source's settings
    method    a kind of the room `method`, or its Config: probe, knn, full, frozen, lora, prompt, continue, test_time …
    target    the field that is to be predicted; by default the only label or number
    out       the folder of the result; by default runs/METHOD
    settings  `name=value`: of the method (`rank=4`), or of the recipe where one is trained (`train.steps=300`, `seed=1`)

    Raises ConfigError, DataError, CheckpointError, one line each.
    """
    name = str(run)
    located(name)
    chosen, changes = _settings(method, settings)
    own = [change.removeprefix("data.") for change in changes if change.startswith("data.")]
    source = part.encode(data_of(data, name, target))
    for change in own:
        field, _, value = change.partition("=")
        source = part.override(source, field, notation.parse(value, change))
    config: Source.Config = part.decode(Source.Config, source, "data")
    folder = Path(out) if out is not None else fresh(Path("runs") / chosen.kind)
    check_new(folder)
    began = time.perf_counter()
    rest = tuple(change for change in changes if not change.startswith("data."))
    torch.manual_seed(seed_of(0, "adapt"))
    way = chosen.build()
    found = way.run(Asked(name, config, target, folder, rest, say))
    shown = str(data) if isinstance(data, str | Path) else config.kind
    record = {
        "run": name, "data": shown, "target": target, "method": encoded(chosen), "figures": found.figures,
        "samples": found.samples, "seconds": round(time.perf_counter() - began, 1),
        "command": " ".join([
            f"sevenfold adapt {name} {shown} --method {chosen.kind}", *([f"--target {target}"] if target else []),
            *(["--set", *settings] if settings else []),
        ]),
        **found.more,
    }  # fmt: skip
    lines = way.lines(found)
    write_record(folder, record)
    write_atomic(folder / "README.md", card(folder, record, lines))
    return Adapted(folder, found.figures, record, lines)


def _settings(method: str | Method.Config, settings: Sequence[str]) -> tuple[Any, list[str]]:
    """(the method's Config, what is for the recipe)."""
    data = part.encode(method) if isinstance(method, Method.Config) else {"kind": method}
    fields = part.find("method", data["kind"]).Config.model_fields
    changes = []
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"{setting!r}: a setting is written name=value")
        if name.partition(".")[0] in Recipe.model_fields and name.partition(".")[0] not in fields:
            changes.append(setting)
        else:
            data = part.override(data, name, notation.parse(value, setting))
    return part.decode(Method.Config, data, f"method {data['kind']}"), changes
