"""A published folder to one of ours, or a run of ours to a published folder, with a passport."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from sevenfold.assembly.model import Model
from sevenfold.core.files import write_atomic
from sevenfold.exchange.hub import folder_of
from sevenfold.exchange.load import opened
from sevenfold.exchange.origin import family_of, is_published, save_luggage
from sevenfold.exchange.passport import Passport
from sevenfold.exchange.publish import check_free, publish, put
from sevenfold.exchange.verify import verify
from sevenfold.training import checkpoint
from sevenfold.training.load import config_json, load, load_objective, tokenizer_folder

Say = Callable[[str], None]


def convert(source: str | Path, destination: str | Path, *, verified: bool = False, say: Say = print) -> Passport:
    """Convert a published folder (or id) to a folder of ours, or a run folder of ours to a published one; returns the passport,
    which is said, and stored there as passport.json.

    verified   also run both implementations on the same inputs and record the largest difference after each block (needs
               `transformers`)

    Raises ConfigError for an architecture that no family reads or a model of no family, CheckpointError for damaged files.
    """
    folder, final = folder_of(source), Path(destination)
    check_free(final)
    if is_published(folder):
        model, passport = opened(source, dtype=None)
        if verified:
            passport = _verified(passport, folder, model)
        _write(model, final, passport)
    else:
        ended = (folder / "recipe.yaml").is_file()
        objective = load_objective(folder) if ended else None
        model = load(folder) if objective is None else objective.model
        passport = publish(model, final, objective=objective)
        if verified:
            passport = _verified(passport, final, model)
            passport.write(final)
    for line in passport.lines():
        say(line)
    return passport


def _verified(passport: Passport, folder: Path, model: Model) -> Passport:
    return passport._replace(differences=verify(folder, model, family_of(model.published["config"])))


def _write(model: Model, final: Path, passport: Passport) -> None:
    """A folder that `load` reads, without a recipe."""

    def fill(inside: Path) -> list[str]:
        write_atomic(inside / "config.json", config_json(model))
        save_file(checkpoint.contiguous(model.state_dict()), inside / "model.safetensors", {"format": "pt"})
        names = ["config.json", "model.safetensors", *save_luggage(model, inside)]
        for name, modality in model.modalities.items():
            within = tokenizer_folder(inside, name, len(model.modalities))
            names += [str((within / file).relative_to(inside)) for file in modality.save(within)]
        return names

    put(final, fill)
    passport.write(final)
