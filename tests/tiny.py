"""Tiny recipes, one per objective, with everything random switched on; and what runs leave behind, for comparing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from sevenfold.training.log import read_log
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import read_recipe

TIMES = {"tokens_per_s", "mfu", "wait_s"}
OBJECTIVES = ("next_token", "masked_token", "mae", "infonce", "supervised")
BLOCK = {"dropout": 0.1, "mixer": {"kind": "attention", "dropout": 0.1}, "residual": {"kind": "drop_path", "drop": 0.2}}
PATCHES = {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}, "views": [{"kind": "shift", "pixels": 1}]}


def text_file(folder: Path, letters: int = 1500, seed: int = 0) -> Path:
    """A file of random words."""
    draw, path = random.Random(seed), folder / "words.txt"
    words = ["red", "green", "bottle", "hanging", "wall", "a", "the", "falls", "on", "sea"]
    lines, length = [], 0
    while length < letters:
        lines.append(" ".join(draw.choices(words, k=8)) + "\n")
        length += len(lines[-1])
    path.write_text("".join(lines), encoding="utf-8")
    return path


def recipe(objective: str, folder: Path, block: dict[str, Any] = BLOCK, **train: Any) -> dict[str, Any]:
    """A recipe as plain data. The text objectives read a file that is written into `folder`."""

    def trunk(inputs: list[str], **more: Any) -> dict[str, Any]:
        return {"inputs": inputs, "width": 16, "depth": 2, "block": block, **more}

    digits = {"kind": "digits", "limit": 40, "held_out": 0.2}
    text = {"kind": "text", "path": str(folder / "words.txt")}
    axial = {"position": {"kind": "axial_rotary"}}
    recipes: dict[str, dict[str, Any]] = {
        "next_token": {
            "data": text,
            "streams": {"text": {"kind": "text", "length": 32}},
            "trunks": {"lm": trunk(["text"], mask={"causal": True})},
        },
        "masked_token": {
            "data": text,
            "streams": {"text": {"kind": "text", "length": 32}},
            "trunks": {"enc": trunk(["text"])},
        },
        "mae": {
            "data": digits,
            "streams": {"image": PATCHES},
            "trunks": {"enc": trunk(["image"], **axial), "dec": trunk(["enc"], **axial)},
        },
        "infonce": {
            "data": digits,
            "streams": {"image": PATCHES, "caption": {"kind": "text"}},
            "trunks": {"v": trunk(["image"], **axial), "t": trunk(["caption"])},
        },
        "supervised": {
            "data": digits,
            "streams": {"image": PATCHES, "label": {"kind": "label"}},
            "trunks": {"enc": trunk(["image"], **axial)},
        },
    }
    if recipes[objective]["data"] is text:
        text_file(folder)
    settings = {"steps": 10, "batch": 8, "precision": "fp32", "evaluate_batches": 1, **train}
    return {**recipes[objective], "objective": {"kind": objective}, "train": settings}


def any_to_any(block: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Captions and pictures in one causal trunk, in any order."""
    return {
        "data": {"kind": "digits", "limit": 60},
        "streams": {
            "caption": {"kind": "text", "ends": True},
            "image": {"kind": "image", "tokenizer": {"kind": "quantized_patch", "patch": 2, "size": 16}},
        },
        "trunks": {
            "mind": {
                "inputs": ["caption", "image"],
                "width": 16,
                "depth": 2,
                "class_token": True,
                "mask": {"causal": True},
                "position": {"kind": "axial_rotary"},
                "block": block or {},
            }
        },
        "objective": {"kind": "next_token", "orders": [["caption", "image"], ["image", "caption"], ["image"]], **more},
        "train": {"steps": 4, "batch": 8, "precision": "fp32"},
    }


def made(data: dict[str, Any]) -> Ready:
    """A recipe made real, in evaluation mode."""
    ready = prepare(read_recipe(data))
    ready.objective.eval()
    return ready


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The log without times."""
    return [{name: value for name, value in record.items() if name not in TIMES} for record in read_log(folder)]


def weights_of(folder: Path) -> dict[str, bytes]:
    """The files of the newest checkpoint, without its manifest."""
    newest = max((folder / "checkpoints").glob("step-*"))
    return {file.name: file.read_bytes() for file in sorted(newest.iterdir()) if file.name != "manifest.json"}


def python(code: str, *args: Any, timeout: float = 100) -> Any:
    """Run Python code in a process of its own; what it prints last, as JSON, is the result."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
