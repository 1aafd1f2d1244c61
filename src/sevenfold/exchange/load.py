"""A model from a published folder or id: its family says the wiring and where each tensor goes; nothing is copied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core.errors import ConfigError
from sevenfold.exchange.hub import folder_of
from sevenfold.exchange.origin import family_of, record_of
from sevenfold.exchange.passport import Passport, mapped
from sevenfold.exchange.weights import check_whole, files, finite, tensors
from sevenfold.family import Family
from sevenfold.modality import Modality

Say = Callable[[str], None]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_published(source: str | Path, *, dtype: str | None = "float32") -> Model:
    """A model from a folder in the Hugging Face layout, or from the id of one (`owner/name`, with the extra `hub`).

    dtype   the type of its numbers: float32, bfloat16, float16, or None for that of the file. A file of that type is not
            copied: tensors stay in its memory map, but for those that are joined (query, key and value)

    It is an ordinary model: `logits(ids)`, `forward(batch)`, `embed(raws)`, `generate(prompt)`, and `sf.publish` writes it
    back. Raises ConfigError for an architecture that no family reads, CheckpointError for files that are missing, damaged,
    or not what the config says.
    """
    return _read(source, dtype)[0]


def opened(source: str | Path, *, dtype: str | None = "float32") -> tuple[Model, Passport]:
    """(the model, what was mapped). Every number is looked at, whether it is finite, and files are hashed."""
    model, family, folder, state = _read(source, dtype)
    finite(state, folder)
    return model, mapped(family, folder, model.published, state, model)


def _read(source: str | Path, dtype: str | None) -> tuple[Model, Family, Path, dict[str, Tensor]]:
    """(the model, its family, its folder, the published tensors)."""
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype: one of {', '.join(DTYPES)}, or none for the file's own, not {dtype!r}")
    folder = folder_of(source)
    record = record_of(folder)
    record["origin"] = str(source) if not Path(source).is_dir() else record["origin"]
    family = family_of(record["config"], record["preprocessor"], str(folder / "config.json"))
    files(folder)
    check_whole(folder)
    state = tensors(folder)
    found = family.from_published(state)
    config, modalities = furnished(family, folder)
    with torch.device("meta"):
        model = Model(config, modalities)
    family.place(found, model)
    if dtype is not None:
        model.to(DTYPES[dtype])
    model.published = record
    return model.eval(), family, folder, state


def wiring(family: Family, folder: Path | None = None) -> ModelConfig:
    """A family's model, with the streams as the tokenizer files of a folder say."""
    return furnished(family, folder)[0]


def furnished(family: Family, folder: Path | None) -> tuple[ModelConfig, dict[str, Modality]]:
    """A family's model and its modalities, ready, with the tokenizers of a folder."""
    config = family.model()
    modalities = {name: stream.build() for name, stream in config.streams.items()}
    streams = dict(config.streams)
    for name, modality in modalities.items():
        ends = None if folder is None else modality.tokenizer.read_published(folder)
        if ends is None and modality.tokenizer.around() == ([], []):
            ends = False
        if ends is not None and ends != modality.config.ends:
            streams[name] = modality.config.replace(ends=ends)
            tokenizer, modalities[name] = modality.tokenizer, streams[name].build()
            modalities[name].tokenizer = tokenizer
    return config.replace(streams=streams), modalities
