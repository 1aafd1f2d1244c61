"""Files that mean harm. Each function writes one into an empty folder and gives what a person would do with it; `mark` is a path that
code in it would create."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sevenfold.conformance.fault._kit import fitted, ready_of, small
from sevenfold.core.files import MANIFEST, read_json, write_manifest
from sevenfold.core.part import find
from sevenfold.data.recognise import recognise
from sevenfold.data.source._tarred import packed
from sevenfold.exchange.load import load_published
from sevenfold.training import checkpoint
from sevenfold.training.load import load
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from sevenfold.training.run import train

Action = Callable[[], Any]
Payload = Callable[[Path, Path], Action]
GIGABYTES = 4
"""What bombs unfold to."""


class _Evil:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def evil(mark: Path) -> bytes:
    """A pickle that creates `mark`."""
    return pickle.dumps(_Evil(mark))


def read_all(path: Path, **settings: Any) -> Action:
    """What is done with data: recognised or named, built, split, read."""

    def action() -> None:
        source = (find("source", settings["kind"]).Config(path=str(path)) if settings else recognise(path)).build()
        source.split()
        for index in range(len(source)):
            source[index]

    return action


def _run(folder: Path) -> Path:
    """A run folder, copied from one that was trained once."""
    whole = folder.parent.parent / "whole run"
    if not whole.exists():
        train(small(steps=1), whole, say=lambda line: None, bar=False)
    shutil.copytree(whole, folder / "run")
    return folder / "run"


def _exchanged(run: Path, name: str, content: bytes) -> None:
    """Another content for a file of a run, and a manifest that says so."""
    (run / name).write_bytes(content)
    write_manifest(run, list(read_json(run / MANIFEST)["files"]))


def _recipe(folder: Path, text: str) -> Action:
    (folder / "recipe.yaml").write_text(text)
    return lambda: prepare(read_recipe(folder / "recipe.yaml"), note=lambda line: None)


# Code


def code_pickle_as_weights(folder: Path, mark: Path) -> Action:
    run = _run(folder)
    _exchanged(run, "model.safetensors", evil(mark))
    return lambda: load(run)


def code_pickle_as_tokenizer(folder: Path, mark: Path) -> Action:
    run = _run(folder)
    (run / "config.json").write_bytes(evil(mark))
    _exchanged(run, "config.json", evil(mark))
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
    np.save(folder / "x.npy", np.array([_Evil(mark)] * 20, dtype=object), allow_pickle=True)
    return read_all(folder / "x.npy")


def code_object_array_in_npz(folder: Path, mark: Path) -> Action:
    np.savez(folder / "x.npz", image=np.zeros((20, 8, 8)), names=np.array([_Evil(mark)] * 20, dtype=object))
    return read_all(folder / "x.npz")


def code_pickle_as_npy(folder: Path, mark: Path) -> Action:
    (folder / "x.npy").write_bytes(evil(mark))
    return read_all(folder / "x.npy")


def code_rollouts_of_objects(folder: Path, mark: Path) -> Action:
    np.savez(folder / "x.npz", observations=np.zeros((20, 2)), actions=np.array([_Evil(mark)] * 20, dtype=object))
    return read_all(folder / "x.npz", kind="rollouts")


def code_parquet_extension(folder: Path, mark: Path) -> Action:
    import pyarrow
    import pyarrow.parquet

    facts = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": evil(mark)}
    schema = pyarrow.schema([pyarrow.field("text", pyarrow.string(), metadata=facts)])
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a b c"] * 20}, schema=schema), folder / "x.parquet")
    return read_all(folder / "x.parquet")


def code_yaml_tag(folder: Path, mark: Path) -> Action:
    return _recipe(folder, f"data: !!python/object/apply:os.system ['touch {mark}']\n")


def code_yaml_new(folder: Path, mark: Path) -> Action:
    return _recipe(folder, f"data: !!python/object/new:subprocess.Popen [['touch', '{mark}']]\n")


def code_yaml_module(folder: Path, mark: Path) -> Action:
    (folder / "evil_module.py").write_text(f"import os\nos.system('touch {mark}')\n")
    return _recipe(folder, "data: !!python/module:evil_module\n")


def code_target(folder: Path, mark: Path) -> Action:
    data = {**small(), "objective": {"kind": "supervised", "_target_": "os.system", "_args_": [f"touch {mark}"]}}
    return _recipe(folder, yaml.safe_dump(data))


def code_kind_of_a_path(folder: Path, mark: Path) -> Action:
    (folder / "evil_part.py").write_text(f"import os\nos.system('touch {mark}')\n")
    data = {**small(), "objective": {"kind": str(folder / "evil_part")}}
    return _recipe(folder, yaml.safe_dump(data))


def code_kind_of_a_module(folder: Path, mark: Path) -> Action:
    (folder / "evil_part.py").write_text(f"import os\nos.system('touch {mark}')\n")
    data = {**small(), "objective": {"kind": "...evil_part"}}
    return _recipe(folder, yaml.safe_dump(data))


# Bombs


def _unfolds(path: Path, words: bytes, head: bytes = b"") -> Action:
    """A .gz that unfolds to so many GIGABYTES; its members are all alike."""
    member = gzip.compress(words * (2 << 20))
    path.write_bytes(gzip.compress(head) + member * (GIGABYTES * 64))
    return read_all(path)


def bomb_gzip_text(folder: Path, mark: Path) -> Action:
    return _unfolds(folder / "x.txt.gz", b"aaaa bbb")


def bomb_npz(folder: Path, mark: Path) -> Action:
    header = io.BytesIO()
    shape = (GIGABYTES << 20, 32, 32)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with (
        zipfile.ZipFile(folder / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w") as file,
    ):
        file.write(header.getvalue())
        for _ in range(96):
            file.write(bytes(1 << 20))
    return read_all(folder / "x.npz")


def bomb_array_header(folder: Path, mark: Path) -> Action:
    header = io.BytesIO()
    facts = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 8, 8)}
    np.lib.format.write_array_header_1_0(header, facts)
    (folder / "x.npy").write_bytes(header.getvalue() + bytes(4096))
    return read_all(folder / "x.npy")


def png(width: int, height: int, data: bytes) -> bytes:
    """A grey picture that says this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    facts = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _pictures(folder: Path, content: bytes, ending: str = ".png") -> Action:
    for label in "ab":
        (folder / "x" / label).mkdir(parents=True)
        for number in range(12):
            (folder / "x" / label / f"{number}{ending}").write_bytes(content)
    return read_all(folder / "x", kind="image_folder")


def bomb_image(folder: Path, mark: Path) -> Action:
    return _pictures(folder, png(60_000, 60_000, zlib.compress(bytes(1 << 20), 9)))


def bomb_image_just_allowed(folder: Path, mark: Path) -> Action:
    """As many pixels as a bomb of 22 kB that Pillow lets through by itself."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(13_000)) for _ in range(13_000)) + packer.flush()
    return _pictures(folder, png(12_999, 13_000, rows))


def bomb_image_text(folder: Path, mark: Path) -> Action:
    """A compressed text chunk of a small picture."""
    whole, text = png(8, 8, zlib.compress(bytes(72))), zlib.compress(bytes(96 << 20), 1)
    content = b"Comment\0\0" + text
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return _pictures(folder, whole[:33] + chunk + whole[33:])


def bomb_tiff(folder: Path, mark: Path) -> Action:
    tags = [(256, 4, 1, 200_000), (257, 4, 1, 200_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 200_000), (279, 4, 1, 4_000_000_000)]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return _pictures(folder, b"II*\0" + struct.pack("<I", 8) + body, ".tif")


def bomb_sound(folder: Path, mark: Path) -> Action:
    (folder / "x").mkdir()
    most = 0xFFFFFFF0
    facts = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    content = b"RIFF" + struct.pack("<I", most) + b"WAVEfmt " + struct.pack("<I", 16) + facts
    for number in range(12):
        (folder / "x" / f"{number}.wav").write_bytes(content + b"data" + struct.pack("<I", most) + bytes(4000))
    return read_all(folder / "x", kind="audio")


def bomb_safetensors_header(folder: Path, mark: Path) -> Action:
    run = _run(folder)
    _exchanged(run, "model.safetensors", struct.pack("<Q", 1 << 60) + b"{}")
    return lambda: load(run)


def bomb_safetensors_shape(folder: Path, mark: Path) -> Action:
    run = _run(folder)
    text = json.dumps(
        {"w": {"dtype": "F32", "shape": [1 << 20, 1 << 20, 1 << 10], "data_offsets": [0, 1 << 52]}}
    ).encode()
    _exchanged(run, "model.safetensors", struct.pack("<Q", len(text)) + text)
    return lambda: load(run)


def bomb_json_nested(folder: Path, mark: Path) -> Action:
    run = _run(folder)
    _exchanged(run, "config.json", b"[" * 2_000_000)
    return lambda: load(run)


def bomb_yaml_aliases(folder: Path, mark: Path) -> Action:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefghijkl", "bcdefghijklm")]
    return _recipe(folder, "\n".join(lines))


def bomb_yaml_nested(folder: Path, mark: Path) -> Action:
    return _recipe(folder, "a: " + "[" * 1_000_000)


def bomb_yaml_number(folder: Path, mark: Path) -> Action:
    return _recipe(folder, "seed: " + "9" * 1_000_000)


def bomb_recipe_width(folder: Path, mark: Path) -> Action:
    return _recipe(folder, yaml.safe_dump(small(1 << 30)))


def bomb_recipe_depth(folder: Path, mark: Path) -> Action:
    data = small()
    data["trunks"]["enc"]["depth"] = 10**9
    return _recipe(folder, yaml.safe_dump(data))


def bomb_published_depth(folder: Path, mark: Path) -> Action:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 10**9, "n_embd": 64, "n_head": 2}))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return lambda: load_published(folder)


def bomb_jsonl_nested(folder: Path, mark: Path) -> Action:
    (folder / "x.jsonl").write_text("\n".join('{"text": ' + "[" * 100_000 for _ in range(20)))
    return read_all(folder / "x.jsonl")


def bomb_jsonl_number(folder: Path, mark: Path) -> Action:
    (folder / "x.jsonl").write_text("\n".join('{"text": "a", "n": ' + "9" * 200_000 + "}" for _ in range(20)))
    return read_all(folder / "x.jsonl")


def bomb_csv_field(folder: Path, mark: Path) -> Action:
    (folder / "x.csv").write_text('text,label\n"' + "a" * (8 << 20) + "\n" + "b,1\n" * 20)
    return read_all(folder / "x.csv")


def bomb_parquet(folder: Path, mark: Path) -> Action:
    import pyarrow
    import pyarrow.parquet

    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(4096, np.int32)), ["a" * (1 << 20)])
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), folder / "x.parquet", compression="zstd")
    return read_all(folder / "x.parquet")


def bomb_h5ad(folder: Path, mark: Path) -> Action:
    import h5py

    with h5py.File(folder / "x.h5ad", "w") as file:
        file.create_dataset("X", (1 << 20, 1 << 14), "f4", chunks=(1024, 1024), compression="gzip")
        for name in ("obs", "var"):
            group = file.create_group(name)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
            group.attrs["column-order"] = np.array([], dtype="f8")
            group.create_dataset(
                "_index", (1 << 20 if name == "obs" else 1 << 14,), "S8", chunks=(1024,), compression="gzip"
            )
    return read_all(folder / "x.h5ad")


def bomb_fasta_record(folder: Path, mark: Path) -> Action:
    return _unfolds(folder / "x.fasta.gz", b"ACGTACGT", b">a\n")


# Paths


def path_stream_name(folder: Path, mark: Path) -> Action:
    """A stream's name becomes a folder of the run."""
    data = small(steps=1)
    data["streams"] = {"image": data["streams"]["image"], "../../mark/label": data["streams"]["label"]}
    data["streams"]["../../mark/label"]["field"] = "label"
    return lambda: train(data, folder / "a/run", say=lambda line: None, bar=False)


def path_stream_absolute(folder: Path, mark: Path) -> Action:
    data = small(steps=1)
    data["streams"] = {"image": data["streams"]["image"], str(mark): {"kind": "label", "field": "label"}}
    return lambda: train(data, folder / "a/run", say=lambda line: None, bar=False)


def path_manifest(folder: Path, mark: Path) -> Action:
    run = _run(folder)
    manifest = read_json(run / MANIFEST)
    manifest["files"]["../../../../etc/hostname"] = {"size": 1, "sha256": "0" * 64}
    (run / MANIFEST).write_text(json.dumps(manifest))
    return lambda: load(run)


def path_index(folder: Path, mark: Path) -> Action:
    place = folder / "published"
    place.mkdir()
    (place / "config.json").write_text('{"model_type": "gpt2"}')
    (place / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"wte.weight": "../../outside.safetensors"}})
    )
    return lambda: load_published(place)


def path_captions(folder: Path, mark: Path) -> Action:
    (folder / "x").mkdir()
    (folder / "outside.png").write_bytes(png(8, 8, zlib.compress(bytes(72))))
    lines = "".join(f"../outside.png,caption {number}\n" for number in range(20))
    (folder / "x/captions.csv").write_text("file_name,text\n" + lines)
    return read_all(folder / "x", kind="image_folder")


def _tar(path: Path, files: dict[str, bytes], more: bytes = b"") -> Path:
    """A tar of these files, and of `more` as it stands before its end."""
    path.write_bytes(packed(files, more))
    return path


def _header(kind: bytes, size: int = 0, link: str = "") -> bytes:
    found = tarfile.TarInfo("evil.txt")
    found.type, found.size, found.linkname = kind, size, link
    return found.tobuf(tarfile.GNU_FORMAT)


def code_tar_members(folder: Path, mark: Path) -> Action:
    """Members that other readers unpickle by their ending."""
    content = evil(mark)
    files = {f"{n}.{ending}": content for n in range(20) for ending in ("pyd", "pickle", "pkl", "pth", "npy", "cls")}
    return read_all(_tar(folder / "x.tar", files | {f"{n}.txt": b"hello" for n in range(20)}))


def bomb_tar_sizes(folder: Path, mark: Path) -> Action:
    """Members and headers that say that they are huge, in a file that is as long without holding anything."""
    texts = {f"{n}.txt": b"hello" for n in range(20)}
    path = _tar(folder / "x.tar", texts, _header(b"x", 6 << 30))
    with open(path, "r+b") as file:
        file.truncate(GIGABYTES << 31)
    return read_all(path)


def bomb_tar_members(folder: Path, mark: Path) -> Action:
    long = _header(b"0", GIGABYTES << 30)
    path = _tar(folder / "x.tar", {f"{n}.txt": b"hello" for n in range(20)}, long)
    with open(path, "r+b") as file:
        file.truncate(GIGABYTES << 31)
    return read_all(path)


def bomb_tar_picture(folder: Path, mark: Path) -> Action:
    content = png(60_000, 60_000, zlib.compress(bytes(1 << 20), 9))
    return read_all(_tar(folder / "x.tar", {f"{n}.png": content for n in range(20)}))


def bomb_tar_packed(folder: Path, mark: Path) -> Action:
    with gzip.open(folder / "x.tar.gz", "wb", compresslevel=1) as file:
        file.write(_header(b"0", 96 << 20) + bytes(96 << 20))
    return read_all(folder / "x.tar.gz")


def path_tar_links(folder: Path, mark: Path) -> Action:
    links = b"".join(_header(kind, 0, str(mark)) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, b"S"))
    files = {f"{name}{n}.txt": b"hello" for n in range(20) for name in ("../../mark", str(mark), "~/mark")}
    return read_all(_tar(folder / "x.tar", files, links))


def path_tar_brace(folder: Path, mark: Path) -> Action:
    """A pattern that stands for more files than there are atoms."""
    return read_all(Path(f"{folder}/" + "{0..999999999999}" * 9 + ".tar"))


def path_zip(folder: Path, mark: Path) -> Action:
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        archive.writestr("../../mark.npy", b"hello")
    return read_all(folder / "x.npz")


def path_checkpoint_name(folder: Path, mark: Path) -> Action:
    fitted(small(steps=2, save_every=1), folder / "run")
    outside = folder / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    place = folder / "run/checkpoints/step-00000009"
    place.symlink_to(outside)
    (folder / "run/checkpoints/.tmp-step-00000008").symlink_to(outside)

    def action() -> None:
        fitted(small(steps=4, save_every=1), folder / "run")
        if not (outside / "kept").is_file():
            mark.touch()

    return action


PAYLOADS: dict[str, Payload] = {
    name: made for name, made in list(globals().items()) if name.startswith(("code_", "bomb_", "path_"))
}
