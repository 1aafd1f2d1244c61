"""The run folder, which is the product: written by `train`, read by `load`.

recipe.yaml  config.json  model.safetensors  tokenizer files  checkpoints/  log.jsonl  report.html  README.md
results.json (figures)  bad_samples.jsonl (if any)  manifest.json (size and hash of each file that `load` reads)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import notation, part
from sevenfold.core.errors import CheckpointError, ConfigError, DataError, SevenfoldError
from sevenfold.core.files import MANIFEST, read_json, verify_manifest, write_atomic, write_manifest
from sevenfold.data.source import Source, content_key
from sevenfold.training import checkpoint
from sevenfold.training.card import card
from sevenfold.training.fit import fit
from sevenfold.training.log import read_log
from sevenfold.training.recipe import Ready, Recipe, prepare, read_recipe, tokenizer_folder
from sevenfold.training.report import exhibits_html, report

Say = Callable[[str], None]
RESULTS = "results.json"


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
) -> Run:
    """Train a recipe (a YAML file, the name of one that comes with the package, plain data, or a run folder).

    out        the run folder; by default runs/NAME. It must not hold a run, unless it is to be resumed
    overrides  `dotted.field=value`, in order
    resume     continue the run in `out` (or in `recipe`, if that is a run folder) exactly where it stopped

    Raises ConfigError, DataError, CheckpointError (one line each), Preempted after saving when stopped by a signal.
    """
    if resume and out is None:
        if not isinstance(recipe, str | Path) or not Path(recipe).is_dir():
            raise ConfigError("to resume, name the run folder: sevenfold train FOLDER --resume")
        out = recipe
    given = read_recipe(recipe, overrides)
    folder = Path(out) if out is not None else _fresh(Path("runs") / _name(recipe))
    begun = (folder / "recipe.yaml").is_file()
    if folder.is_file():
        raise ConfigError(f"{folder}: is a file, not a folder for a run")
    if begun and not resume:
        raise ConfigError(f"{folder}: already holds a run: add --resume to continue it, or choose another --out")
    if not begun and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: is not empty, and what it holds is not a run: choose another --out")
    if resume and begun:
        ready = _again(folder, given, say)
    else:
        ready = prepare(given, note=say)
        _begin(folder, given, ready)
    model, settings = ready.model, ready.recipe.train
    say(f"{ready.objective.kind}: {sum(p.numel() for p in ready.objective.parameters() if p.requires_grad):,} trained "
        f"parameters, {len(ready.train_items):,} training and {len(ready.held_out_items):,} held-out samples, "
        f"{settings.steps} steps of {settings.batch}")  # fmt: skip
    pictures: list[str] = []

    def on_look(step: int) -> None:
        pieces = exhibits_html(model, _exhibits(ready, 4))
        if pieces:
            pictures.append(f"<h3>after step {step}</h3>" + pieces)

    fitted = fit(
        ready.objective,
        ready.train,
        ready.held_out,
        settings,
        seed=ready.recipe.seed,
        folder=folder,
        resume=resume,
        bad=ready.bad,
        on_look=on_look,
        bar=bar,
    )
    results = _finish(folder, ready, fitted.held_out, fitted.seconds, pictures)
    say(f"done: {folder}/report.html · use it with: sf.load({str(folder)!r})")
    return Run(folder, ready.recipe, model.eval(), results)


def _name(recipe: Any) -> str:
    return Path(recipe).stem if isinstance(recipe, str | Path) else "run"


def _fresh(folder: Path) -> Path:
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _begin(folder: Path, given: Recipe, ready: Ready) -> None:
    """Everything that is known before the first step. recipe.yaml comes last: with it, the folder is a run."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, modality in ready.model.modalities.items():
            modality.save(tokenizer_folder(folder, name, len(ready.model.modalities)))
        write_atomic(folder / "config.json", config_json(ready.model))
        facts = {"recipe": recipe_hash(given), "data": data_hash(ready.source)}
        write_atomic(folder / "begun.json", json.dumps(facts, indent=1) + "\n")
        write_atomic(folder / "recipe.yaml", notation.write(part.encode(ready.recipe)))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error}") from None


def _again(folder: Path, given: Recipe, say: Say) -> Ready:
    """The run of a folder, ready to go on, if neither recipe nor data has changed."""
    stored = read_recipe(folder / "recipe.yaml")
    begun = read_json(folder / "begun.json")
    if recipe_hash(given) not in (begun.get("recipe"), recipe_hash(stored)):
        raise ConfigError(
            f"{folder}: was begun with another recipe; continue it as it is with: sevenfold train {folder} --resume, "
            "or choose another --out"
        )
    ready = prepare(stored, tokenizers=folder, note=say)
    if data_hash(ready.source) != begun.get("data"):
        raise DataError(
            f"{stored.data.path}: has changed since {folder} was begun, so the run cannot be continued exactly"
        )
    return ready


def config_json(model: Model) -> str:
    """The model's config, in the file that other tools look at."""
    facts = {"model_type": "sevenfold", "architectures": ["Model"], "dtype": "float32"}
    return json.dumps({**facts, "sevenfold": part.encode(model.config)}, indent=1, ensure_ascii=False) + "\n"


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 of a recipe's content."""
    return hashlib.sha256(json.dumps(part.encode(recipe), sort_keys=True).encode()).hexdigest()


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


def _exhibits(ready: Ready, count: int) -> list[Any]:
    """Things to look at; one that fails on odd data says so instead of ending the run."""
    try:
        return ready.objective.exhibits(ready.samples(count), ready.recipe.seed)
    except (SevenfoldError, ValueError) as error:
        from sevenfold.objective import Exhibit

        return [Exhibit("no samples", ["why"], [[(None, str(error))]])]


def _finish(
    folder: Path, ready: Ready, held_out: dict[str, float], seconds: float, pictures: list[str]
) -> dict[str, Any]:
    """Weights, figures, report and card; the manifest last."""
    model = ready.model.eval()
    results: dict[str, Any] = {
        "held_out": held_out,
        "baselines": _baselines(ready),
        "seconds": round(seconds, 1),
        "bad_samples": len(ready.bad),
        "parameters": sum(p.numel() for p in model.parameters()),
        **read_json(folder / "begun.json"),
    }
    try:
        write_atomic(folder / "model.safetensors", save(checkpoint.contiguous(model.state_dict()), {"format": "pt"}))
        if len(ready.bad):
            lines = [json.dumps({"where": where, "why": why}, ensure_ascii=False) for where, why in ready.bad.listed]
            write_atomic(folder / "bad_samples.jsonl", "\n".join(lines) + "\n")
        write_atomic(folder / RESULTS, json.dumps(results, indent=1) + "\n")
        final = exhibits_html(model, _exhibits(ready, 64))
        write_atomic(folder / "report.html", report(ready, read_log(folder), results, final, pictures))
        write_atomic(folder / "README.md", card(ready, results, folder))
        tokenizers = []
        for name in model.modalities:
            inside = tokenizer_folder(folder, name, len(model.modalities))
            tokenizers += [str((inside / file).relative_to(folder)) for file in model.modalities[name].save(inside)]
        write_manifest(folder, ["config.json", "model.safetensors", "recipe.yaml", *tokenizers])
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written: {error}; make room, then: sevenfold train {folder} --resume"
        ) from None
    return results


def _baselines(ready: Ready, most: int = 4096) -> dict[str, Any]:
    """What trivial methods reach on the same held-out items."""
    from sevenfold.data.loader import gather

    def batches(items: Any) -> list[Any]:
        size, step = min(len(items), most), ready.batch
        found = [gather([items[0, i] for i in range(k, min(k + step, size))])[0] for k in range(0, size, step)]
        return [batch for batch in found if batch is not None]

    plain = ready.train_items
    views, plain.views = plain.views, False
    try:
        return ready.objective.baselines(batches(plain), batches(ready.held_out_items))
    finally:
        plain.views = views


def verified(folder: Path) -> Path:
    """The weights file of a run folder whose files are all as they were written: the final one, or (in a run that has
    not ended) that of the newest whole checkpoint."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such run folder")
    if (folder / MANIFEST).is_file():
        verify_manifest(folder)
        return folder / "model.safetensors"
    if not (folder / "recipe.yaml").is_file():
        raise CheckpointError(f"{folder}: is not a run folder (it has no recipe.yaml)")
    return checkpoint.newest_whole(folder, print) / "model.safetensors"


def load(folder: str | Path) -> Model:
    """A trained model from its run folder (or from the newest whole checkpoint of a run that has not ended).

    Every file is verified against the manifest first; CheckpointError names the one that is not as it was written.
    """
    folder = Path(folder)
    weights = verified(folder)
    data = read_json(folder / "config.json")
    config = part.decode(
        ModelConfig, data.get("sevenfold") if isinstance(data, dict) else None, str(folder / "config.json")
    )
    modalities = {name: stream.build() for name, stream in config.streams.items()}
    for name, modality in modalities.items():
        modality.restore(tokenizer_folder(folder, name, len(modalities)))
    model = Model(config, modalities)
    checkpoint.load_into(model, checkpoint.tensors(weights), weights)
    return model.eval()
