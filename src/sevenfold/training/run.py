"""The run folder, which is the product: written by `train`, read by `load`.

recipe.yaml  config.json  model.safetensors  tokenizer files  checkpoints/  log.jsonl  report.html  README.md
objective.safetensors (what only training and evaluation need)  results.json (figures)  bad_samples.jsonl (if any)
manifest.json (size and hash of each file that `load` reads)
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sevenfold.assembly.model import Model
from sevenfold.core import notation, part, ranks
from sevenfold.core.errors import CheckpointError, ConfigError, DataError
from sevenfold.core.files import MANIFEST, read_json, verify_manifest, write_atomic
from sevenfold.core.ranks import Mesh
from sevenfold.data.remote import shown
from sevenfold.data.source import Source, content_key
from sevenfold.exchange.origin import save_luggage
from sevenfold.training.finish import BEGUN, RESULTS, exhibits_of, finish
from sevenfold.training.fit import Fitted, fit
from sevenfold.training.load import config_json, load, tokenizer_folder
from sevenfold.training.log import read_log
from sevenfold.training.look import evaluate
from sevenfold.training.parallel import Parallel, joined
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.processes import check_alike, check_shared, gathered
from sevenfold.training.recipe import Recipe, device_of, read_recipe
from sevenfold.training.report import exhibits_html

Say = Callable[[str], None]


class Run(NamedTuple):
    """A run folder and what is in it."""

    folder: Path
    recipe: Recipe
    model: Model
    results: dict[str, Any]

    @property
    def log(self) -> list[dict[str, Any]]:
        """The records of log.jsonl."""
        return read_log(self.folder)

    @property
    def loss(self) -> float:
        """The held-out loss at the end."""
        return self.results["held_out"]["loss"]


def train(
    recipe: str | Path | dict | Recipe,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    say: Say = print,
    bar: bool | None = None,
    name: str | None = None,
    on_look: Callable[[Ready, int], None] | None = None,
) -> Run:
    """Train a recipe (a YAML file, the name of one that comes with the package, plain data, or a run folder).

    out        the run folder; by default runs/NAME. It must not hold a run, unless it is to be resumed
    overrides  `dotted.field=value`, in order
    name       NAME, where the recipe has none
    on_look    is called with the run and the step after each look at the held-out loss, and at the end
    resume     continue the run in `out` (or in `recipe`, if that is a run folder) exactly where it stopped

    Raises ConfigError, DataError, CheckpointError (one line each), Preempted after saving when stopped by a signal.
    """
    if resume and out is None:
        if not isinstance(recipe, str | Path) or not Path(recipe).is_dir():
            raise ConfigError(f"{recipe}: is not a run folder; to resume, name one: sevenfold train FOLDER --resume")
        out = recipe
    given = read_recipe(recipe, overrides)
    with joined(given.parallel, device_of(given.train.device)) as mesh:
        every = mesh.every
        if not every.alone:  # what was measured to make it differs between processes
            given = read_recipe(every.gather_objects(part.encode(given))[0])
        folder = every.once(lambda: str(out or fresh(Path("runs") / (name or _name(recipe)))))
        return _train(given, Path(folder), resume, say if every.first else _silent, bar, on_look)


def _silent(line: str) -> None:
    """What a process says that is not the first."""


def _train(
    given: Recipe, folder: Path, resume: bool, say: Say, bar: bool | None, on_look: Callable[[Ready, int], None] | None
) -> Run:
    every = ranks.mesh().every
    ready, ended = _opened(given, folder, resume, say)
    if ended:
        say(f"{folder}: this run has ended, and is whole")
        return Run(folder, ready.recipe, load(folder), read_json(folder / RESULTS))
    check_alike(ready)
    model, settings = ready.model, ready.recipe.train
    trained = sum(p.numel() for p in ready.objective.parameters() if p.requires_grad)
    say(
        f"{ready.objective.kind}: {trained:,} trained parameters, {len(ready.train_items):,} training and "
        f"{len(ready.held_out_items):,} held-out samples, {settings.steps} steps of {settings.batch}"
    )
    pictures: list[str] = []
    apart = not every.alone and (given.parallel.shard or not ranks.tensor().alone)

    def show(step: int) -> None:
        """Exhibits for the report, after a look; not where no process has all weights."""
        if every.first and not apart:
            with ranks.within(Mesh()):
                if on_look is not None:
                    on_look(ready, step)
                pieces = exhibits_html(model, exhibits_of(ready, 4))
            if pieces:
                pictures.append(f"<h3>after step {step}</h3>" + pieces)

    def end() -> dict[str, Any]:
        with ranks.within(Mesh()):
            if on_look is not None:
                on_look(ready, settings.steps)
            return finish(folder, ready, fitted, pictures)

    fitted = fit(
        ready.objective,
        ready.train,
        ready.held_out,
        settings,
        seed=ready.recipe.seed,
        folder=folder,
        resume=resume,
        bad=ready.bad,
        on_look=show,
        bar=bar,
        parallel=given.parallel,
    )
    if not math.isfinite(fitted.held_out.get("loss", math.nan)):
        raise CheckpointError(f"{folder}: the held-out loss is not finite at the end: lower train.optimizer.lr")
    if apart:
        ready = gathered(ready, folder)
    results = every.once(end)
    say(f"done: {folder}/report.html · use it with: sf.load({str(folder)!r})")
    return Run(folder, ready.recipe, ready.model.eval(), results)


def _opened(given: Recipe, folder: Path, resume: bool, say: Say) -> tuple[Ready, bool]:
    """(a run that is begun in a folder, or taken up again; whether it has ended). ConfigError where the folder holds something else."""
    every = ranks.mesh().every
    begun = every.once((folder / "recipe.yaml").is_file)
    if folder.is_file():
        raise ConfigError(f"{folder}: is a file, not a folder for a run")
    if begun and not resume:
        raise ConfigError(f"{folder}: already holds a run: add --resume to continue it, or choose another --out")
    if not begun and folder.is_dir() and not _free(folder):
        raise ConfigError(f"{folder}: is not empty, and what it holds is not a run: choose another --out")
    if not begun:
        ready = prepare(given, note=say)
        every.once(lambda: check_shared(given, ready))
        every.once(lambda: begin(folder, given, ready))
        return ready, False
    ready = _again(folder, given, say)
    ended = every.once(lambda: _whole(folder, say))
    if not ended:
        every.once(lambda: check_shared(given, ready))
    return ready, ended


def _name(recipe: Any) -> str:
    return Path(recipe).stem if isinstance(recipe, str | Path) else "run"


def fresh(folder: Path) -> Path:
    """The folder, or that with the first number behind its name that is free."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _free(folder: Path) -> bool:
    """Whether a run can begin here: the folder is empty, or a run stopped before it had begun."""
    return (folder / BEGUN).is_file() or all(path.name.startswith(".tmp-") for path in folder.iterdir())


def _whole(folder: Path, say: Say) -> bool:
    """Whether a run has ended and its files are as they were written; `say` is told of one that is not."""
    try:
        if not (folder / MANIFEST).is_file() or not (folder / RESULTS).is_file():
            return False
        verify_manifest(folder)
        return True
    except CheckpointError as error:
        say(f"ending the run again: {error}")
        return False


def begin(folder: Path, given: Recipe, ready: Ready) -> None:
    """Everything that is known before the first step. recipe.yaml comes last: with it, the folder is a run."""
    facts = {"recipe": recipe_hash(given), "data": data_hash(ready.source)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / BEGUN, json.dumps(facts, indent=1) + "\n")
        for name, modality in ready.model.modalities.items():
            modality.save(tokenizer_folder(folder, name, len(ready.model.modalities)))
        save_luggage(ready.model, folder)
        write_atomic(folder / "config.json", config_json(ready.model))
        write_atomic(folder / "recipe.yaml", notation.write(part.encode(ready.recipe)))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error}") from None


def settled(given: Recipe, ready: Ready, folder: Path, began: float) -> dict[str, Any]:
    """A run folder for a model whose weights are already as they shall be (a head in closed form), without a step of training;
    its figures. `began`: by time.perf_counter."""
    begin(folder, given, ready)
    ready.objective.eval()
    found = evaluate(ready.objective, ready.held_out, ready.recipe.train, ready.recipe.seed, bad=ready.bad)
    return finish(folder, ready, Fitted([], found, time.perf_counter() - began, 0), [])


def _again(folder: Path, given: Recipe, say: Say) -> Ready:
    """The run of a folder, ready to go on, if neither recipe nor data has changed."""
    stored = read_recipe(folder / "recipe.yaml")
    begun = read_json(folder / BEGUN)
    if not isinstance(begun, dict):
        raise CheckpointError(f"{folder / BEGUN}: is not the record of a run")
    if recipe_hash(given) not in (begun.get("recipe"), recipe_hash(stored)):
        raise ConfigError(
            f"{folder}: was begun with another recipe; continue it as it is with: sevenfold train {folder} --resume, "
            "or choose another --out"
        )
    ready = prepare(stored, tokenizers=folder, note=say)
    if data_hash(ready.source) != begun.get("data"):
        raise DataError(
            f"{shown(str(stored.data.path))}: has changed since {folder} was begun, so the run cannot be continued exactly"
        )
    return ready


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 of a recipe's content, without how processes share the work: any number of them may go on with it."""
    return hashlib.sha256(
        json.dumps(part.encode(recipe.replace(parallel=Parallel())), sort_keys=True).encode()
    ).hexdigest()


def data_hash(source: Source) -> str:
    """SHA-256 of the data: of its files, or of the samples of a source without files."""
    digest = hashlib.sha256()
    files = source.files()
    for file in files:
        digest.update(file.name.encode() + b"\0")
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    if not files:
        for index in range(len(source)):
            digest.update(content_key(source[index]).encode())
    return digest.hexdigest()
