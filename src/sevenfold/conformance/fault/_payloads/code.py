"""Files whose content would run code: pickles, object arrays, YAML tags, and names of what to import or build."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from sevenfold.conformance.fault._kit import fitted, ready_of, small
from sevenfold.conformance.fault._payloads._written import (
    Action,
    Evil,
    evil,
    exchanged,
    read_all,
    recipe_of,
    run_folder,
    tar,
)
from sevenfold.core.files import MANIFEST, read_json, write_manifest
from sevenfold.exchange.load import load_published
from sevenfold.training import checkpoint
from sevenfold.training.load import load


def code_pickle_as_weights(folder: Path, mark: Path) -> Action:
    run = run_folder(folder)
    exchanged(run, "model.safetensors", evil(mark))
    return lambda: load(run)


def code_pickle_as_tokenizer(folder: Path, mark: Path) -> Action:
    run = run_folder(folder)
    (run / "config.json").write_bytes(evil(mark))
    exchanged(run, "config.json", evil(mark))
    return lambda: load(run)


def code_pickle_in_a_checkpoint(folder: Path, mark: Path) -> Action:
    data = small(steps=2, save_every=2, keep=1)
    fitted(data, folder)
    place = checkpoint.listed(folder)[0]
    (place / "optimizer.safetensors").write_bytes(evil(mark))
    names = list(read_json(place / MANIFEST)["files"])
    write_manifest(place, names, step=2)
    (place / ".metadata").write_bytes(evil(mark))
    ready = ready_of(data)
    optimizer = ready.recipe.train.optimizer.build(dict(ready.objective.named_parameters()))
    return lambda: checkpoint.restore(folder, ready.objective, optimizer, lambda line: None)


def code_distributed_metadata(folder: Path, mark: Path) -> Action:
    (folder / "published").mkdir()
    (folder / "published/config.json").write_text('{"model_type": "gpt2"}')
    (folder / "published/.metadata").write_bytes(evil(mark))
    (folder / "published/__0_0.distcp").write_bytes(evil(mark))
    return lambda: load_published(folder / "published")


def code_pytorch_bin(folder: Path, mark: Path) -> Action:
    (folder / "published").mkdir()
    (folder / "published/config.json").write_text('{"model_type": "gpt2"}')
    (folder / "published/pytorch_model.bin").write_bytes(evil(mark))
    return lambda: load_published(folder / "published")


def code_auto_map(folder: Path, mark: Path) -> Action:
    place = folder / "published"
    place.mkdir()
    auto = {"AutoConfig": "modeling_evil.EvilConfig", "AutoModel": "modeling_evil.EvilModel"}
    (place / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": auto, "architectures": ["EvilModel"]})
    )
    (place / "modeling_evil.py").write_text(f"import os\nos.system('touch {mark}')\n")
    (place / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["modeling_evil.T", None]}}))
    return lambda: load_published(place)


def code_object_array(folder: Path, mark: Path) -> Action:
    np.save(folder / "x.npy", np.array([Evil(mark)] * 20, dtype=object), allow_pickle=True)
    return read_all(folder / "x.npy")


def code_object_array_in_npz(folder: Path, mark: Path) -> Action:
    np.savez(folder / "x.npz", image=np.zeros((20, 8, 8)), names=np.array([Evil(mark)] * 20, dtype=object))
    return read_all(folder / "x.npz")


def code_pickle_as_npy(folder: Path, mark: Path) -> Action:
    (folder / "x.npy").write_bytes(evil(mark))
    return read_all(folder / "x.npy")


def code_rollouts_of_objects(folder: Path, mark: Path) -> Action:
    np.savez(folder / "x.npz", observations=np.zeros((20, 2)), actions=np.array([Evil(mark)] * 20, dtype=object))
    return read_all(folder / "x.npz", kind="rollouts")


def code_parquet_extension(folder: Path, mark: Path) -> Action:
    import pyarrow
    import pyarrow.parquet

    facts = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": evil(mark)}
    schema = pyarrow.schema([pyarrow.field("text", pyarrow.string(), metadata=facts)])
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a b c"] * 20}, schema=schema), folder / "x.parquet")
    return read_all(folder / "x.parquet")


def code_yaml_tag(folder: Path, mark: Path) -> Action:
    return recipe_of(folder, f"data: !!python/object/apply:os.system ['touch {mark}']\n")


def code_yaml_new(folder: Path, mark: Path) -> Action:
    return recipe_of(folder, f"data: !!python/object/new:subprocess.Popen [['touch', '{mark}']]\n")


def code_yaml_module(folder: Path, mark: Path) -> Action:
    (folder / "evil_module.py").write_text(f"import os\nos.system('touch {mark}')\n")
    return recipe_of(folder, "data: !!python/module:evil_module\n")


def code_target(folder: Path, mark: Path) -> Action:
    data = {**small(), "objective": {"kind": "supervised", "_target_": "os.system", "_args_": [f"touch {mark}"]}}
    return recipe_of(folder, yaml.safe_dump(data))


def code_kind_of_a_path(folder: Path, mark: Path) -> Action:
    (folder / "evil_part.py").write_text(f"import os\nos.system('touch {mark}')\n")
    data = {**small(), "objective": {"kind": str(folder / "evil_part")}}
    return recipe_of(folder, yaml.safe_dump(data))


def code_kind_of_a_module(folder: Path, mark: Path) -> Action:
    (folder / "evil_part.py").write_text(f"import os\nos.system('touch {mark}')\n")
    data = {**small(), "objective": {"kind": "...evil_part"}}
    return recipe_of(folder, yaml.safe_dump(data))


def code_tar_members(folder: Path, mark: Path) -> Action:
    """Members that other readers unpickle by their ending."""
    content = evil(mark)
    files = {f"{n}.{ending}": content for n in range(20) for ending in ("pyd", "pickle", "pkl", "pth", "npy", "cls")}
    return read_all(tar(folder / "x.tar", files | {f"{n}.txt": b"hello" for n in range(20)}))
