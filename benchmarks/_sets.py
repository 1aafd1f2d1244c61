"""Public data sets as files that the sources read, made once from the files as they are published.

`--data FOLDER` of the benchmarks holds a folder for each set under its own name, with the published files in it; what is made
of them goes to `--cache`. Nothing is downloaded.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def mnist(data: Path, cache: Path) -> dict[str, Path]:
    """train and test → .npz of image [N 28 28] uint8 and label [N] (LeCun 1998, the four idx files)."""
    found = {}
    for name, stem in (("train", "train"), ("test", "t10k")):
        path = cache / f"mnist_{name}.npz"
        if not path.is_file():
            images = idx(data / "mnist" / f"{stem}-images-idx3-ubyte.gz")
            labels = idx(data / "mnist" / f"{stem}-labels-idx1-ubyte.gz")
            save(path, image=images, label=labels.astype(np.int64))
        found[name] = path
    return found


def pbmc(data: Path, cache: Path) -> dict[str, Path]:
    """cells → .h5ad of 4,271 cells, counts of the 2,000 genes that vary most (without names), and `type` of 8 (10x Genomics PBMC
    4k, types by clustering)."""
    path = cache / "pbmc4k.h5ad"
    if not path.is_file():
        import anndata
        import h5py
        from scipy.sparse import csr_matrix

        with h5py.File(data / "pbmc4k_10x" / "10X_PBMC_top2000.h5") as file:
            counts, types = file["X"][:].astype(np.float32), file["Y"][:]
        cells = anndata.AnnData(csr_matrix(counts))
        cells.var_names = [f"gene {place:04}" for place in range(counts.shape[1])]
        cells.obs_names = [f"cell {place:04}" for place in range(len(counts))]
        cells.obs["type"] = [f"type {one}" for one in types]
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp.h5ad")
        cells.write_h5ad(aside)
        aside.replace(path)
    return {"train": path}


def idx(path: Path) -> np.ndarray:
    """An array of bytes in LeCun's format: two bytes of 0, the type (8: unsigned bytes), the number of axes, the axes."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", axes, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def save(path: Path, **arrays: np.ndarray) -> None:
    """An .npz under its final name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp.npz")
    np.savez(aside, **arrays)  # type: ignore[arg-type]
    aside.replace(path)


Made = tuple[Path, list[dict[str, Any]], list[dict[str, Any]]]
"""(what is trained on, the samples in it, the samples to measure on)."""


def shakespeare(data: Path, cache: Path, validate: bool) -> tuple[Path, str, str]:
    """(the file that is learned from, its text, the text that is asked): the first nine tenths and the last one (Karpathy 2015).
    Validation: the same of the first nine tenths."""
    text = (data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    text = text[: len(text) * 9 // 10] if validate else text
    cut = len(text) * 9 // 10
    path = cache / f"shakespeare{'_validate' * validate}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[:cut], encoding="utf-8")
    return path, text[:cut], text[cut:]


def splice(data: Path, cache: Path, validate: bool) -> Made:
    """UCI splice junctions: a .csv of sequence and label (Noordewier 1991; doi:10.24432/C5M888)."""
    with open(data / "uci_splice" / "splice.csv", newline="") as file:
        rows = [
            {"sequence": row["sequence"], "label": row["label"], "part": row["split"]} for row in csv.DictReader(file)
        ]
    order = np.random.default_rng(0).permutation(sum(row["part"] == "train" for row in rows))
    train = [row for row in rows if row["part"] == "train"]
    if validate:
        cut = len(train) // 6
        return parted(cache / "splice_validate.csv", [train[i] for i in order[cut:]], [train[i] for i in order[:cut]])
    return parted(cache / "splice.csv", train, [row for row in rows if row["part"] == "test"])


def gfp(data: Path, cache: Path, validate: bool) -> Made:
    """GFP variants: a .csv of mutations (`K3E;A110V`, of the sequence that most have) and log10 fluorescence (Sarkisyan 2016,
    doi:10.1038/nature17995). Validation: three mutations."""
    with gzip.open(data / "gfp_fluorescence" / "avgfp.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    codes = np.frombuffer("".join(row["sequence"] for row in rows[:2000]).encode(), np.uint8).reshape(2000, -1)
    wild = "".join(chr(np.bincount(column).argmax()) for column in codes.T)
    found: dict[str, list[dict[str, Any]]] = {"train": [], "valid": [], "test": []}
    for row in rows:
        changed = [f"{a}{i}{b}" for i, (a, b) in enumerate(zip(wild, row["sequence"])) if a != b]
        one = {"mutations": ";".join(changed), "fluorescence": float(row["log10_fluorescence"])}
        found[row["split"]].append(one)
    train, test = found["train"] + found["valid"], found["test"]
    if validate:
        train, test = ([s for s in train if (s["mutations"].count(";") >= 2) == far] for far in (False, True))
    return parted(cache / f"gfp{'_validate' * validate}.csv", train, test)


def secondary_structure(data: Path, cache: Path, validate: bool) -> Made:
    """FLIP's three states, `-` where a residue is not resolved: a .jsonl of protein and ss (Dallago 2021, FLIP; NetSurfP-2.0,
    doi:10.1002/prot.25674). The test part is NEW364."""
    with zipfile.ZipFile(data / "flip_secondary_structure" / "splits.zip") as archive:
        read = {name: fasta(archive.read(f"splits/{name}.fasta").decode()) for name in ("sequences", "sampled", "mask")}
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "valid": [], "test": []}
    for name, (_, letters) in read["sequences"].items():
        header, states = read["sampled"][name]
        ss = "".join(state if known == "1" else "-" for state, known in zip(states, read["mask"][name][1]))
        part = "test" if "SET=test" in header else "valid" if "VALIDATION=True" in header else "train"
        parts[part].append({"protein": letters, "ss": ss})
    if validate:
        return parted(cache / "secondary_structure_validate.jsonl", parts["train"], parts["valid"])
    return parted(cache / "secondary_structure.jsonl", parts["train"] + parts["valid"], parts["test"])


def fasta(text: str) -> dict[str, tuple[str, str]]:
    """Name → (header, letters)."""
    records = [record.partition("\n") for record in text.split(">")[1:]]
    return {header.split()[0]: (header, body.replace("\n", "")) for header, _, body in records}


def radhar(data: Path, cache: Path, validate: bool) -> Made:
    """RadHAR's clouds cut to 10 frames, the places of points only: an .npz of clouds end to end (Singh 2019,
    doi:10.1145/3349624.3356768). Windows of the training part overlap by half. Validation: every fifth recording."""
    with (
        np.load(data / "radhar_pointclouds" / "train.npz") as train,
        np.load(data / "radhar_pointclouds" / "test.npz") as test,
    ):
        learned, asked = {name: train[name] for name in train}, {name: test[name] for name in test}
    out = np.array([recording % 5 == 0 for recording in learned["recording"]])
    clouds = windows(learned, 5, ~out if validate else None)
    others = windows(learned, 10, out) if validate else windows(asked, 10, None)
    path = cache / f"radhar{'_validate' * validate}.npz"
    classes = [str(name) for name in learned["classes"]]
    if not path.is_file():
        starts = np.cumsum([0, *(len(cloud["points"]) for cloud in clouds)])
        labels = np.array([classes.index(cloud["label"]) for cloud in clouds])
        points = np.concatenate([cloud["points"] for cloud in clouds])
        save(path, points=points, ptr=starts, label=labels, classes=np.array(classes))
    return path, clouds, others


def windows(found: dict[str, np.ndarray], step: int, chosen: np.ndarray | None) -> list[dict[str, Any]]:
    """Points and label of each 10 frames of the clouds that are chosen, a window every `step` frames."""
    clouds = []
    for place, (start, stop) in enumerate(zip(found["ptr"], found["ptr"][1:])):
        if chosen is not None and not chosen[place]:
            continue
        points = found["points"][start:stop].astype(np.float32)
        for first in range(0, 51, step):
            inside = points[(points[:, 5] >= first) & (points[:, 5] < first + 10), :3]
            if len(inside) >= 8:
                clouds.append({"points": inside, "label": str(found["classes"][found["label"][place]])})
    return clouds


def spoken_digits(data: Path, cache: Path, validate: bool) -> dict[str, Made]:
    """Speaker left out → folder of the others' .wav, each as loud as the others (Jackson 2018, Free Spoken Digit Dataset).
    Validation: of the other speakers, the next one is left out too and measured on."""
    with zipfile.ZipFile(data / "fsdd" / "recordings.zip") as archive:
        sounds = {name: pcm(archive.read(name)) for name in sorted(archive.namelist()) if name.endswith(".wav")}
    people = sorted({name.split("_")[1] for name in sounds})
    found = {}
    for place, person in enumerate(people):
        asked = people[(place + 1) % len(people)] if validate else person
        folder = cache / f"spoken_digits{'_validate' * validate}" / person
        train, test = [], []
        for name, samples in sounds.items():
            digit, speaker, _ = name.split("_")
            sample = {"audio": samples / max(float(np.abs(samples).max()), 1e-6) * 0.9, "label": digit}
            if speaker == asked:
                test.append(sample)
            if speaker not in (asked, person):
                train.append(sample)
                if not (folder / name).is_file():
                    folder.mkdir(parents=True, exist_ok=True)
                    with wave.open(str(folder / name), "wb") as file:
                        file.setparams((1, 2, 8000, 0, "NONE", ""))
                        file.writeframes((sample["audio"] * 32767).astype("<i2").tobytes())
        found[person] = (folder, train, test)
    return found


def pcm(raw: bytes) -> np.ndarray:
    """[T] float32 in -1…1 of a .wav of 16 bits."""
    with wave.open(io.BytesIO(raw)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def parted(path: Path, train: list[dict[str, Any]], others: list[dict[str, Any]]) -> Made:
    """Training samples as a .csv or .jsonl."""
    fields = [name for name in train[0] if name != "part"]
    rows = [{name: sample[name] for name in fields} for sample in train]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as file:
            if path.suffix == ".csv":
                writer = csv.DictWriter(file, fields)
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    return path, rows, others
