"""A folder, or the id of a model on the Hugging Face hub, as a folder on this machine.

Fetching is done by `huggingface_hub` (the extra `hub`), which honours HF_HOME, HF_HUB_OFFLINE and HF_TOKEN. Only weights in
safetensors, settings and tokenizer files are fetched; never code.
"""

from __future__ import annotations

import re
from pathlib import Path

from sevenfold.core.errors import CheckpointError, need_extra

WANTED = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
]
WANTED += [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
]
WANTED += ["README.md", "manifest.json", "passport.json"]
ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


def folder_of(source: str | Path) -> Path:
    """The folder that `source` is, or that holds what is published under that id. CheckpointError if there is none."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise CheckpointError(f"{path}: is a file; name the folder that holds config.json and the weights")
    if isinstance(source, Path) or not is_id(source):
        raise CheckpointError(f"{path}: there is no such folder")
    return _fetched(source)


def is_id(source: str) -> bool:
    """Whether a name that is no folder can be an id: `owner/name` (or `name`), whose owner is no folder here."""
    if not ID.fullmatch(source) or set(source) <= {"."}:
        return False
    return "/" not in source or not Path(source.partition("/")[0]).is_dir()


def _fetched(name: str) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        need_extra("huggingface_hub", "hub", error)
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=WANTED))
    except errors.LocalEntryNotFoundError:
        raise CheckpointError(
            f"{name}: is no folder here, is not in the cache, and could not be fetched (offline, or no such model)"
        ) from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError) as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{name}: is no folder here, and could not be fetched: {why[0]}") from None
