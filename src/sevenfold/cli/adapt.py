"""Make a trained model do something: read it out, tune it, prompt it, take it on to other data.

sevenfold adapt runs/mae digits --method probe --target label
sevenfold adapt runs/mae digits --method lora --set rank=4 train.steps=200
sevenfold adapt runs/gpt new_texts/ --method continue --set replay=0.2
sevenfold adapt runs/clip pictures/ --method zero_shot --templates templates.txt

Methods (sevenfold list method): probe, knn, frozen, full, lora, prompt, continue, test_time, retrieval, zero_shot. RUN is a run folder,
a published folder, or the id of one; DATA a file or folder, or the kind of a source that needs none. The result is a folder
that sf.load reads, with a card; `sevenfold predict` asks it where there is something to ask (not of continue and retrieval).
"""

from __future__ import annotations

import argparse

from sevenfold.cli._table import table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, a published folder, or the id of one")
    parser.add_argument(
        "data", metavar="DATA", help="a file or folder, or the kind of a source that needs none (digits)"
    )
    parser.add_argument("--method", default="probe", metavar="METHOD", help="how (default: probe)")
    parser.add_argument("--target", metavar="FIELD", help="what to predict (default: the only label or number)")
    parser.add_argument("--out", "-o", metavar="FOLDER", help="the folder of the result (default: runs/METHOD)")
    parser.add_argument(
        "--templates", metavar="FILE", help="zero_shot: a sentence a line, with {} for the name of a class"
    )
    parser.add_argument(
        "--set", dest="settings", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="settings of the method (rank=4), or of the recipe where one is trained (train.steps=200, seed=1)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from sevenfold.adaptation.adapt import adapt
    from sevenfold.core import part

    settings = [*args.settings, *([f"templates={args.templates}"] if args.templates else [])]
    done = adapt(args.run, args.data, args.method, target=args.target, out=args.out, settings=settings)
    terms = list(dict.fromkeys(term for found in done.figures.values() for term in found if term != "loss"))
    if len(terms) > 4:
        rows = [[term, *(_number(found.get(term)) for found in done.figures.values())] for term in terms]
        table(["held out", *done.figures], rows)
    else:
        table(
            ["held out", *terms],
            [[name, *(_number(found.get(t)) for t in terms)] for name, found in done.figures.items()],
        )
    for line in done.lines:
        print(line)
    answers = part.find("method", args.method).answers
    then = f"predict {done.folder} DATA -o FILE" if answers else f"evaluate {done.folder}"
    print(f"{done.record['samples']:,} held-out samples · {done.folder}/README.md · sevenfold {then}")
    return 0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
