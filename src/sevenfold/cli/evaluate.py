"""Measure a model: a card with its figures, always beside what simple methods reach, and a sentence that says whether it beats them.

sevenfold evaluate runs/gpt                                      the loss on its held-out part
sevenfold evaluate runs/vit                                      a supervised or adapted run: what it says of its target
sevenfold evaluate runs/gpt other.txt --json                     on other data
sevenfold evaluate openai-community/gpt2 other.txt               a published model, on the held-out part of other data
sevenfold evaluate runs/mae --target label                       what a linear probe tells of a field
sevenfold evaluate runs/a runs/b runs/c --target label --by knn  three seeds of one recipe
sevenfold evaluate runs/draw --target label --by drawn           is what it draws read as what was asked for?

Text that is predicted token by token also gets bits per byte, which compare between tokenizers. The card goes into the folder
evaluation of the run, and its table into report.html.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sevenfold.cli._table import table

if TYPE_CHECKING:
    from sevenfold.evaluation.card import Card


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+",
                        help="a run folder (several: seeds of one recipe), a published folder, or the id of one; a last name that is "
                        "no such folder is DATA, a file or folder (default: the run's own data)")  # fmt: skip
    parser.add_argument(
        "--target",
        metavar="FIELD",
        help="the field to tell from the representation (default: what the run says by itself, else the loss)",
    )
    parser.add_argument(
        "--target-kind",
        metavar="KIND",
        help="label, number, labels or token_labels (default: what the field looks like)",
    )
    parser.add_argument(
        "--by", metavar="HOW", help="probe, knn, head, drawn or loss (default: the model's head for it, or a probe)"
    )
    parser.add_argument(
        "--metric", action="append", metavar="KIND", help="a metric instead of the usual ones; may be repeated"
    )
    parser.add_argument(
        "--streams", nargs="+", metavar="NAME", help="what the model is given (default: all but the target)"
    )
    parser.add_argument("--stream", metavar="NAME", help="what it draws, with --by drawn")
    parser.add_argument(
        "--guidance", type=float, metavar="W", help="how strongly drawings follow, with --by drawn (default: 1)"
    )
    parser.add_argument("--temperature", type=float, metavar="T", help="the temperature of drawings (default: 1)")
    parser.add_argument("--pool", metavar="HOW", help="mean (the default), class, last or class_mean")
    parser.add_argument("--trunk", metavar="NAME", help="which trunk's representation (default: the last that reads)")
    parser.add_argument(
        "--group", metavar="FIELD", help="items of one value belong together (a speaker): whole groups are resampled"
    )
    parser.add_argument("--split", metavar="FIELD", help="the field of DATA that says train, valid or test")
    parser.add_argument(
        "--most", type=int, metavar="N", help="at most N training items for read-outs (default: 10,000)"
    )
    parser.add_argument("--per-class", type=int, metavar="N", help="at most N labels of each class")
    parser.add_argument("--drawing", metavar="HOW", help="pca (the default) or umap (with the extra umap)")
    parser.add_argument(
        "--note", action="append", metavar="TEXT", help="what a reader of the card must know; may be repeated"
    )
    parser.add_argument("--name", metavar="NAME", help="what the card's files are called")
    parser.add_argument("--seed", type=int, metavar="N", help="of everything random here (default: 0)")
    parser.add_argument("--out", metavar="FOLDER", help="where the card goes (default: RUN/evaluation)")
    parser.add_argument("--json", action="store_true", help="print plain data instead of a table")


SETTINGS = ("target_kind", "target", "by", "streams", "stream", "guidance", "temperature", "pool", "trunk", "group", "split", "most",
            "per_class", "drawing", "note", "name", "seed")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from sevenfold.core import notation
    from sevenfold.evaluation.evaluate import evaluate

    runs, data = _apart(args.runs)
    settings: dict[str, Any] = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    if args.metric:
        settings["metric"] = [notation.parse(text, "--metric") for text in args.metric]
    card = evaluate(runs, data, out=args.out, **settings)
    if args.json:
        print(card.json(), end="")
    else:
        _print(card)
    return 0


def _apart(names: list[str]) -> tuple[list[str], str | None]:
    """(runs, data): the last of several names is data unless it is a run or a published folder."""
    *before, last = names
    folder = Path(last).expanduser()
    model = (folder / "config.json").is_file() or (folder / "recipe.yaml").is_file()
    return (names, None) if not before or model else (before, last)


def _print(card: Card) -> None:
    columns, rows = card.cells()
    table(columns, rows)
    for line in card.lines():
        print(line)
    if card.path is not None:
        print(f"{card.path} and .json beside it")
