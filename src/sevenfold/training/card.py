"""README.md of a run: a model card that can be trusted, because everything in it was read off the run."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy
import torch

from sevenfold.core.version import __version__
from sevenfold.data.remote import shown
from sevenfold.training.precision import resolve
from sevenfold.training.prepare import Ready
from sevenfold.training.recipe import Recipe, device_of
from sevenfold.training.report import beside


def card(ready: Ready, results: dict[str, Any], folder: Path) -> str:
    """Markdown with front matter in the layout of model hubs."""
    recipe = ready.recipe
    streams = ", ".join(f"{name} ({stream.kind}, {stream.tokenizer.kind})" for name, stream in recipe.streams.items())
    device = device_of(recipe.train.device)
    terms, rows = beside(results)
    table = [
        "| held out | " + " | ".join(terms) + " |",
        "|---|" + "---|" * len(terms),
        *(f"| {title} | " + " | ".join(_number(found.get(term)) for term in terms) + " |" for title, found in rows),
    ]
    return "\n".join(
        [
            "---",
            "library_name: sevenfold",
            f"tags: [sevenfold, {recipe.objective.kind}, {', '.join(str(s.kind) for s in recipe.streams.values())}]",
            "---",
            "",
            f"# {folder.name}",
            "",
            f"A model of {streams}, trained {_begun(recipe)} with the objective `{recipe.objective.kind}`.",
            "",
            "## Figures",
            "",
            *table,
            "",
            f"Printed again by: `sevenfold evaluate {folder}` "
            f"({len(ready.held_out_items):,} held-out samples, never trained on, chosen by a hash of their content or, "
            "in one long document, its end).",
            "",
            "## How it was made",
            "",
            f"- Data: `{recipe.data.kind}` {shown(recipe.data.path or '(comes with a package)')}; "
            f"{len(ready.train_items):,} training samples; {results['bad_samples']:,} could not be read",
            f"- SHA-256 of the data: `{results['data']}`",
            f"- SHA-256 of the recipe: `{results['recipe']}`",
            f"- {results['parameters']:,} parameters; {recipe.train.steps} steps of {recipe.train.batch}; seed {recipe.seed}",
            f"- Computed in {resolve(recipe.train.precision, device)} on {device.type}, {torch.get_num_threads()} threads, "
            f"{results['seconds']:.0f} s in the last process",
            f"- sevenfold {__version__}, torch {torch.__version__}, numpy {numpy.__version__}, Python {platform.python_version()}",
            "- Made again by: `sevenfold train recipe.yaml` (in this folder; the same machine and versions give the same weights)",
            "",
            "## Use",
            "",
            "```python",
            "import sevenfold as sf",
            "",
            f"model = sf.load({str(folder)!r})",
            "```",
            "",
            "The data's licence and whatever the data holds of bias or private facts carry over to this model.",
            "",
        ]
    )


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"


def _begun(recipe: Recipe) -> str:
    return "from scratch" if recipe.start is None else f"from the weights of `{recipe.start}` on"
