"""Documents of unequal length: packed into rows, beside a padding collator and one that sorts by length. Real tokens a second.

python benchmarks/packing.py [--rounds 5] [--width 256] [--depth 4] [--precision bf16]

A decoder learns from texts whose lengths are log-normal (mean 115 bytes, at most 512). One step each in turn, round after round; a
figure is the median of real tokens (no padding) per second of a step, with the least and the most, and beside the padding collator.

padding    64 random documents, padded to the longest
sorted     64 documents next to each other in length, of 1,024; a round takes one batch of short, middle and long ones each
packed     16 rows of 512, whole documents, attention of each by itself
masked     the same rows under a mask over pairs of tokens
windows    16 windows of 512 cut from the documents end to end
one text   16 rows of 512 that are one document each: what rows of this length cost without documents
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sevenfold.assembly.model import to_device
from sevenfold.blocks.mixing import _documents
from sevenfold.core.seeds import numpy_generator
from sevenfold.core.types import Batch
from sevenfold.data.packing import Rows
from sevenfold.training.fit import take_step
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import device_of, read_recipe

LENGTH, DOCUMENTS, ROWS = 512, 64, 16


def written(path: Path, count: int = 4096) -> None:
    draw = numpy_generator("packing")
    sizes = np.clip(draw.lognormal(np.log(115) - 0.32, 0.8, count).round(), 2, LENGTH).astype(int)
    letters = np.array(list("etaoin shrdlu"))
    path.write_text("".join(json.dumps({"text": "x" + "".join(draw.choice(letters, n - 1))}) + "\n" for n in sizes))


def ready_for(path: Path, pack: Any, width: int, depth: int, precision: str) -> Ready:
    block = {"nonlinearity": "swiglu", "norm": "rms"}
    trunk = {"inputs": ["text"], "width": width, "depth": depth, "mask": {"causal": True}, "position": "rotary"}
    data = {"kind": "jsonl", "path": str(path), "fields": {"text": "text"}}
    return prepare(
        read_recipe(
            {
                "data": data,
                "streams": {"text": {"kind": "text", "tokenizer": "bytes", "length": LENGTH, "pack": pack, "ends": False}},
                "trunks": {"lm": {**trunk, "block": block}},
                "objective": "next_token",
                "train": {"precision": precision},
            }
        )
    )  # fmt: skip


def batches(path: Path, args: argparse.Namespace) -> tuple[Ready, dict[str, list[Batch]], float]:
    """(what learns, name → the batches of a round, how full packed rows are)."""
    made = {pack: ready_for(path, pack, args.width, args.depth, args.precision) for pack in (False, "whole", True)}
    items, draw = made[False].train, numpy_generator("drawn")
    some = draw.permutation(len(items))[:1024]
    lengths = [len(items[0, int(place)]["text"].values) for place in some]
    order = some[np.argsort(lengths, kind="stable")]
    by_length = [order[start : start + DOCUMENTS] for start in (2 * DOCUMENTS, 8 * DOCUMENTS, 13 * DOCUMENTS)]
    line = made["whole"].train.line  # type: ignore[attr-defined]
    rows = Rows(line, "text", LENGTH, 0, True)

    def of(data: Any, places: Any) -> Batch:
        batch, _, _ = data.batch([(0, int(place)) for place in places])
        assert batch is not None
        return batch

    whole = of(rows, draw.permutation(len(rows))[:ROWS])
    stream = of(made[True].train, range(ROWS))["text"]
    found = {
        "padding": [of(items, some[:DOCUMENTS])],
        "sorted": [of(items, places) for places in by_length],
        "packed": [whole],
        "masked": [whole],
        "windows": [of(made[True].train, draw.permutation(len(made[True].train))[:ROWS])],
        "one text": [{"text": stream._replace(segments=None)}],
    }
    return made["whole"], found, rows.fill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        written(path)
        ready, tried, fill = batches(path, args)
    settings, device, shortest = ready.recipe.train, device_of(None), _documents.SHORTEST
    objective = ready.objective.to(device).train()
    trainable = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimizer = settings.optimizer.build(trainable, objective.cares())
    rates: dict[str, list[float]] = {name: [] for name in tried}
    for number in range(args.rounds + 1):
        for name, some in tried.items():
            _documents.SHORTEST = 1 << 30 if name == "masked" else shortest
            tokens, seconds = 0, 0.0
            for batch in some:
                batch = to_device(batch, device)
                valid = batch["text"].valid
                tokens += batch["text"].values.numel() if valid is None else int(valid.sum())
                began = time.perf_counter()
                take_step(objective, optimizer, batch, settings, args.precision, 0, number, 0.01)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                seconds += time.perf_counter() - began
            if number:  # the first round warms up
                rates[name].append(tokens / seconds)
    print(f"decoder {args.width} x {args.depth}, {args.precision}, {device}; packed rows are {fill:.4f} full")
    for name, found in rates.items():
        beside = statistics.median(one / other for one, other in zip(found, rates["padding"]))
        print(
            f"{name:<9} {statistics.median(found):10,.0f} tokens/s ({min(found):,.0f} … {max(found):,.0f})   {beside:.2f} x"
        )


if __name__ == "__main__":
    main()
