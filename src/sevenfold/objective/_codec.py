"""The encoder, codes and decoder of an autoencoder as files, and as something that works on numpy arrays, for tokenizers.

    codec.json         the settings of model and objective, the names of the other files, and their SHA-256
    codec.safetensors  all weights
    codec-…            the files of the tokenizer whose vectors the encoder reads

One item at a time and in one thread, so that an item has the same codes wherever and beside whatever it is encoded.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import notation, part
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.files import read_json, verify_manifest, write_atomic
from sevenfold.core.types import Stream, Tokens
from sevenfold.objective import Objective
from sevenfold.objective.autoencoder import Autoencoder

FACTS, WEIGHTS, INSIDE = "codec.json", "codec.safetensors", "codec-"
NAME = re.compile(r"codec-[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
Files = dict[str, bytes]
"""Name → content."""


def pack(run: Path) -> Files:
    """What is needed of a run folder, or of any folder that holds a codec.

    CheckpointError or ConfigError, one line, if it cannot serve.
    """
    if not run.is_dir():
        raise CheckpointError(f"{run}: there is no such run folder")
    if (run / FACTS).is_file():
        return gather(run)
    if not (run / "manifest.json").is_file():
        raise CheckpointError(f"{run}: is not the folder of a run that has ended")
    verify_manifest(run)
    settings = notation.read(run / "recipe.yaml")
    config = part.decode(Objective.Config, settings.get("objective"), str(run / "recipe.yaml"))
    if not issubclass(config.part, Autoencoder):
        raise ConfigError(f"{run}: was trained with {config.kind}, which makes no codes: name an autoencoder run")
    model_config = part.decode(ModelConfig, read_json(run / "config.json").get("sevenfold"), str(run / "config.json"))
    modalities = {name: stream.build() for name, stream in model_config.streams.items()}
    for name, modality in modalities.items():
        modality.restore(run if len(modalities) == 1 else run / name)
    objective = config.build(Model(model_config, modalities))
    try:
        state = {f"model.{name}": value for name, value in load_file(run / "model.safetensors").items()}
        state |= load_file(run / "objective.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{run}: cannot be read: {str(error).partition(chr(10))[0]}") from None
    take_over(objective, state, str(run))
    return packed(objective)


def packed(objective: Autoencoder) -> Files:
    """An autoencoder as files."""
    streams = objective.model.config.streams
    if len(streams) != 1:
        raise ConfigError(f"a codec has one stream, not {list(streams)}")
    with tempfile.TemporaryDirectory() as folder:
        names = objective.model.modalities[objective.stream].save(folder)
        files = {f"{INSIDE}{name}": (Path(folder) / name).read_bytes() for name in names}
    state = objective.state_dict().items()
    files[WEIGHTS] = save({name: value.detach().cpu().clone().contiguous() for name, value in state})
    files = dict(sorted(files.items()))
    facts = {
        "model": part.encode(objective.model.config),
        "objective": part.encode(objective.config),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    return {FACTS: (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode(), **files}


def gather(folder: Path, largest: int = 4 << 30) -> Files:
    """The files of a codec from a folder; CheckpointError, one line, for one that is missing or larger than `largest`."""
    facts = read_json(folder / FACTS)
    hashes = facts.get("sha256") if isinstance(facts, dict) else None
    if not isinstance(hashes, dict) or not all(name == WEIGHTS or NAME.fullmatch(name) for name in hashes):
        raise CheckpointError(f"{folder / FACTS}: is not the record of a codec")
    files = {}
    for name in (FACTS, *hashes):
        path = folder / name
        try:
            if path.stat().st_size > largest:
                raise CheckpointError(f"{path}: larger than {largest >> 30} GiB")
            files[name] = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    return files


def write_example(folder: Path) -> None:
    """The files of a small codec of pictures, whose weights are as they began."""
    data = Autoencoder.example()
    modality = part.decode(ModelConfig, {"streams": data["streams"], "trunks": data["trunks"]}).streams["image"].build()
    modality.fit(modality.example(0))
    torch.manual_seed(0)
    config = part.decode(Objective.Config, data["objective"])
    wiring = part.decode(ModelConfig, {"streams": data["streams"], "trunks": data["trunks"]})
    heads = Autoencoder.heads(config, wiring, {"image": modality.tokenizer.features or 0})
    objective = config.build(Model(wiring.replace(heads=heads), {"image": modality}))
    for name, content in packed(objective).items():
        write_atomic(folder / name, content)


def take_over(objective: Objective, state: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into an objective; CheckpointError, one line, if they do not fit."""
    try:
        objective.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CheckpointError(f"{where}: does not fit: {' '.join(str(error).split())[:200]}") from None


class Codec:
    """Raw items to codes 0 … size-1 and back.

    axes      columns of coordinates
    channels  of a picture, where it takes pictures
    """

    def __init__(self, files: Files):
        """CheckpointError, one line, if the files are not whole."""
        try:
            facts = json.loads(files[FACTS])
            hashes = facts["sha256"]
            for name, found in hashes.items():
                if hashlib.sha256(files[name]).hexdigest() != found:
                    raise CheckpointError(f"{name}: its content has changed since it was written (SHA-256 differs)")
            inner = [name for name in hashes if name != WEIGHTS]
            if WEIGHTS not in hashes or not all(NAME.fullmatch(name) for name in inner):
                raise CheckpointError(f"{FACTS}: names files that are none of a codec")
            model_config = part.decode(ModelConfig, facts["model"], FACTS)
            objective_config = part.decode(Objective.Config, facts["objective"], FACTS)
            weights = load(files[WEIGHTS])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
            raise CheckpointError(f"{FACTS}: not a whole codec: {str(error).partition(chr(10))[0]}") from None
        modalities = {name: stream.build() for name, stream in model_config.streams.items()}
        with tempfile.TemporaryDirectory() as folder:
            for name in inner:
                (Path(folder) / name.removeprefix(INSIDE)).write_bytes(files[name])
            for modality in modalities.values():
                modality.restore(folder)
        objective = objective_config.build(Model(model_config, modalities))
        if not isinstance(objective, Autoencoder):
            raise CheckpointError(f"{FACTS}: holds the objective {objective.kind}, not an autoencoder")
        take_over(objective, weights, WEIGHTS)
        self.objective = objective.eval().requires_grad_(False)
        self.modality = modalities[objective.stream]
        self.size, self.axes = objective.quantizer.size, self.modality.tokenizer.axes
        self.channels = getattr(self.modality.tokenizer, "channels", None)

    def encode(self, raw: Any) -> Tokens:
        values, coords = self.modality.tokenizer.encode(self.modality.prepared(self.modality.check(raw)))[:2]
        with one_thread():
            stream = Stream(torch.from_numpy(values)[None], torch.from_numpy(coords)[None])
            return Tokens(self.objective.ids(stream)[0].numpy(), coords)

    def decode(self, ids: np.ndarray, coords: np.ndarray) -> Any:
        values = np.zeros((0, self.modality.tokenizer.features or 0), np.float32)
        if len(ids):
            with one_thread():
                given = torch.from_numpy(np.ascontiguousarray(ids)), torch.from_numpy(np.ascontiguousarray(coords))
                values = self.objective.values(given[0][None], given[1][None])[0].float().numpy()
        return self.modality.raw(values, coords)

    def layout(self) -> np.ndarray | None:
        return self.modality.tokenizer.layout()

    def vectors(self) -> np.ndarray:
        return self.objective.quantizer.vectors().float().numpy()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch in one thread, as in loader processes: sums in another order could choose another code."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
