"""The end of a run: figures beside what trivial methods reach, things to look at, weights, report, card, manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from sevenfold.core.errors import CheckpointError, SevenfoldError
from sevenfold.core.files import read_json, write_atomic, write_manifest
from sevenfold.core.types import Batch
from sevenfold.data.loader import Items, gather
from sevenfold.exchange.origin import LUGGAGE
from sevenfold.objective import Exhibit, Objective
from sevenfold.training import checkpoint
from sevenfold.training.card import card
from sevenfold.training.fit import Fitted
from sevenfold.training.load import tokenizer_folder
from sevenfold.training.log import read_log
from sevenfold.training.prepare import Ready
from sevenfold.training.report import exhibits_html, report

RESULTS = "results.json"
BEGUN = "begun.json"
"""The hashes of recipe and data; the first file of a run."""


def exhibits_of(ready: Ready, count: int) -> list[Any]:
    """Things to look at; one that fails on odd data says so instead of ending the run."""
    was = ready.objective.training
    ready.objective.eval()
    try:
        return ready.objective.exhibits(ready.samples(count), ready.recipe.seed)
    except (SevenfoldError, ValueError) as error:
        return [Exhibit("no samples", ["why"], [[(None, str(error))]])]
    finally:
        ready.objective.train(was)


def finish(folder: Path, ready: Ready, fitted: Fitted, pictures: list[str]) -> dict[str, Any]:
    """Weights, figures, report and card; the manifest last."""
    model = ready.model.eval()
    results: dict[str, Any] = {
        "held_out": fitted.held_out,
        "baselines": baselines(ready.objective, ready.train_items, ready.held_out_items, ready.batch),
        "seconds": round(fitted.seconds, 1),
        "skipped_steps": fitted.skipped,
        "bad_samples": len(ready.bad),
        "parameters": sum(p.numel() for p in model.parameters()),
        **read_json(folder / BEGUN),
    }
    try:
        write_atomic(folder / "model.safetensors", save(checkpoint.contiguous(model.state_dict()), {"format": "pt"}))
        own = checkpoint.own_state(ready.objective)
        write_atomic(folder / "objective.safetensors", save(checkpoint.contiguous(own), {"format": "pt"}))
        if len(ready.bad):
            lines = [json.dumps({"where": where, "why": why}, ensure_ascii=False) for where, why in ready.bad.listed]
            write_atomic(folder / "bad_samples.jsonl", "\n".join(lines) + "\n")
        write_atomic(folder / RESULTS, json.dumps(results, indent=1) + "\n")
        final = exhibits_html(model, exhibits_of(ready, 64))
        write_atomic(folder / "report.html", report(ready, read_log(folder), results, final, pictures))
        write_atomic(folder / "README.md", card(ready, results, folder))
        tokenizers = []
        for name in model.modalities:
            inside = tokenizer_folder(folder, name, len(model.modalities))
            tokenizers += [str((inside / file).relative_to(folder)) for file in model.modalities[name].save(inside)]
        luggage = [LUGGAGE] if model.luggage else []
        write_manifest(
            folder,
            ["config.json", "model.safetensors", "objective.safetensors", "recipe.yaml", *tokenizers, *luggage],
        )
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written: {error}; make room, then: sevenfold train {folder} --resume"
        ) from None
    return results


def baselines(objective: Objective, train: Items, held_out: Items, step: int, most: int = 4096) -> dict[str, Any]:
    """What trivial methods reach on held-out items, learned from training items without their views."""

    def batches(items: Items) -> list[Batch]:
        size = min(len(items), most)
        found = [gather([items[0, i] for i in range(k, min(k + step, size))])[0] for k in range(0, size, step)]
        return [batch for batch in found if batch is not None]

    views, train.views = train.views, False
    try:
        return objective.baselines(batches(train), batches(held_out))
    finally:
        train.views = views
