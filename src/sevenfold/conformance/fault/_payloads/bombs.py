"""Files that unfold to far more than they are: archives, pictures, arrays, and values that are nested or huge."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import yaml

from sevenfold.conformance.fault._kit import small
from sevenfold.conformance.fault._payloads._written import (
    GIGABYTES,
    Action,
    exchanged,
    png,
    read_all,
    recipe_of,
    run_folder,
    tar,
    tar_header,
)
from sevenfold.exchange.load import load_published
from sevenfold.training.load import load


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
    run = run_folder(folder)
    exchanged(run, "model.safetensors", struct.pack("<Q", 1 << 60) + b"{}")
    return lambda: load(run)


def bomb_safetensors_shape(folder: Path, mark: Path) -> Action:
    run = run_folder(folder)
    text = json.dumps(
        {"w": {"dtype": "F32", "shape": [1 << 20, 1 << 20, 1 << 10], "data_offsets": [0, 1 << 52]}}
    ).encode()
    exchanged(run, "model.safetensors", struct.pack("<Q", len(text)) + text)
    return lambda: load(run)


def bomb_json_nested(folder: Path, mark: Path) -> Action:
    run = run_folder(folder)
    exchanged(run, "config.json", b"[" * 2_000_000)
    return lambda: load(run)


def bomb_yaml_aliases(folder: Path, mark: Path) -> Action:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefghijkl", "bcdefghijklm")]
    return recipe_of(folder, "\n".join(lines))


def bomb_yaml_nested(folder: Path, mark: Path) -> Action:
    return recipe_of(folder, "a: " + "[" * 1_000_000)


def bomb_yaml_number(folder: Path, mark: Path) -> Action:
    return recipe_of(folder, "seed: " + "9" * 1_000_000)


def bomb_recipe_width(folder: Path, mark: Path) -> Action:
    return recipe_of(folder, yaml.safe_dump(small(1 << 30)))


def bomb_recipe_depth(folder: Path, mark: Path) -> Action:
    data = small()
    data["trunks"]["enc"]["depth"] = 10**9
    return recipe_of(folder, yaml.safe_dump(data))


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


def bomb_tar_sizes(folder: Path, mark: Path) -> Action:
    """Members and headers that say that they are huge, in a file that is as long without holding anything."""
    texts = {f"{n}.txt": b"hello" for n in range(20)}
    path = tar(folder / "x.tar", texts, tar_header(b"x", 6 << 30))
    with open(path, "r+b") as file:
        file.truncate(GIGABYTES << 31)
    return read_all(path)


def bomb_tar_members(folder: Path, mark: Path) -> Action:
    long = tar_header(b"0", GIGABYTES << 30)
    path = tar(folder / "x.tar", {f"{n}.txt": b"hello" for n in range(20)}, long)
    with open(path, "r+b") as file:
        file.truncate(GIGABYTES << 31)
    return read_all(path)


def bomb_tar_picture(folder: Path, mark: Path) -> Action:
    content = png(60_000, 60_000, zlib.compress(bytes(1 << 20), 9))
    return read_all(tar(folder / "x.tar", {f"{n}.png": content for n in range(20)}))


def bomb_tar_packed(folder: Path, mark: Path) -> Action:
    with gzip.open(folder / "x.tar.gz", "wb", compresslevel=1) as file:
        file.write(tar_header(b"0", 96 << 20) + bytes(96 << 20))
    return read_all(folder / "x.tar.gz")
