"""Names and links that lead out of the folder."""

from __future__ import annotations

import json
import tarfile
import zipfile
import zlib
from pathlib import Path

from sevenfold.conformance.fault._kit import fitted, small
from sevenfold.conformance.fault._payloads._written import (
    Action,
    png,
    read_all,
    run_folder,
    tar,
    tar_header,
)
from sevenfold.core.files import MANIFEST, read_json
from sevenfold.exchange.load import load_published
from sevenfold.training.load import load
from sevenfold.training.run import train


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
    run = run_folder(folder)
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


def path_tar_links(folder: Path, mark: Path) -> Action:
    links = b"".join(
        tar_header(kind, 0, str(mark)) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, b"S")
    )
    files = {f"{name}{n}.txt": b"hello" for n in range(20) for name in ("../../mark", str(mark), "~/mark")}
    return read_all(tar(folder / "x.tar", files, links))


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
