"""Reading what a run left, or what others published: `sf.load` takes either."""

from __future__ import annotations

import json
from pathlib import Path

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.files import MANIFEST, read_json, verify_manifest
from sevenfold.exchange.hub import folder_of, is_id
from sevenfold.exchange.load import load_published
from sevenfold.exchange.origin import is_published, recall
from sevenfold.objective import Objective
from sevenfold.training import checkpoint
from sevenfold.training.recipe import read_recipe


def config_json(model: Model) -> str:
    """The model's config, in the file that other tools look at."""
    facts = {"model_type": "sevenfold", "architectures": ["Model"], "dtype": "float32"}
    published = {"published": model.published} if model.published else {}
    return (
        json.dumps({**facts, "sevenfold": part.encode(model.config), **published}, indent=1, ensure_ascii=False) + "\n"
    )


def tokenizer_folder(run: Path, stream: str, streams: int) -> Path:
    """Where a stream's tokenizer files are: in the folder itself for the only stream, else in one per stream."""
    return run if streams == 1 else run / stream


def located(name: str | Path) -> Path:
    """The folder that a person means who names a run, a published folder, or the id of one (`owner/name`)."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(name, str) and "/" in name and is_id(name):
        return folder_of(name)
    raise CheckpointError(f"{name}: there is no such run folder")


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
    """A trained model from its run folder (or from the newest whole checkpoint of a run that has not ended); or one that others
    published, from its folder or id (see `sf.load_published`).

    Every file of a run is verified against the manifest first; CheckpointError names the one that is not as it was written.
    """
    place = located(folder)
    if is_published(place):
        return load_published(folder)
    weights, folder = verified(place), place
    data = read_json(folder / "config.json")
    config = part.decode(
        ModelConfig, data.get("sevenfold") if isinstance(data, dict) else None, str(folder / "config.json")
    )
    try:
        modalities = {name: stream.build() for name, stream in config.streams.items()}
        for name, modality in modalities.items():
            modality.restore(tokenizer_folder(folder, name, len(modalities)))
        model = Model(config, modalities)
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from None
    checkpoint.load_into(model, checkpoint.tensors(weights), weights)
    recall(model, folder)
    return model.eval()


def models_of(config: Objective.Config) -> dict[str, Model]:
    """The trained models that an objective names, by their names there."""
    found = {}
    for name, place in config.part.models(config).items():
        try:
            found[name] = load(place)
        except CheckpointError as error:
            raise ConfigError(f"objective.{name}: {error}") from None
    return found


def objective_of(config: Objective.Config, model: Model, models: dict[str, Model] | None = None) -> Objective:
    """An objective on a model, with the trained models that it names (loaded unless given)."""
    models = models_of(config) if models is None else models
    made: Objective = config.build(model, models) if models else config.build(model)
    return made


def load_objective(folder: str | Path) -> Objective:
    """The objective of a run, with its model, as they were when it ended (or at its newest whole checkpoint)."""
    folder = Path(folder)
    model, recipe = load(folder), read_recipe(folder)
    objective = objective_of(recipe.objective, model)
    path = verified(folder).parent / "objective.safetensors"
    own = {f"model.{name}": value for name, value in model.state_dict().items()}
    checkpoint.load_into(objective, {**own, **checkpoint.tensors(path)}, path)
    return objective.eval()
