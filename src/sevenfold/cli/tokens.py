"""Compare tokenizers on data: pieces in colour, and lossless, stable, efficient, universal, learnable as figures.

sevenfold tokens speech.txt --with bpe:4096,wordpiece:4096,bytes --html tokens.html
sevenfold tokens genome.fasta --with kmer:3,kmer:6,"kmer:k=6;overlap=true"
sevenfold tokens photos/ --with patch:8,"quantized_patch:patch=4;size=512" --json

A tokenizer is written kind, kind:NUMBER (its first whole-number setting) or kind:field=value;field=value. They learn from
training items and are measured on held-out ones; docs/tokenizers.md says how each figure is made.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

from sevenfold.cli._table import table
from sevenfold.core.errors import ConfigError
from sevenfold.core.files import write_atomic

QUICK = 2.0
"""Seconds before progress is told."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="a file or folder of data")
    parser.add_argument(
        "--with", dest="tokenizers", action="append", default=[], metavar="TOKENIZERS",
        help="tokenizers with commas between them (default: every one that takes these items)",
    )  # fmt: skip
    parser.add_argument("--field", metavar="FIELD", help="the field, or FIELD:MODALITY (default: most to learn from)")
    parser.add_argument("--items", type=int, default=10_000, metavar="N", help="most items of the round trip (10000)")
    parser.add_argument("--show", type=int, default=3, metavar="N", help="items shown piece by piece (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--html", metavar="FILE", help="write the page")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print the figures as JSON instead")
    forms.add_argument("--markdown", action="store_true", help="print the table as Markdown instead")


def run(args: argparse.Namespace) -> int:
    from sevenfold.cli._pieces import show
    from sevenfold.explain.lab import tokens
    from sevenfold.explain.lab_rows import markdown, missed, rows, told

    page = Path(args.html) if args.html else None
    if page is not None and (page.is_dir() or not page.parent.is_dir()):
        why = "is a folder, not a file to write" if page.is_dir() else f"there is no folder {page.parent}"
        raise ConfigError(f"{page}: {why}")
    began = time.perf_counter()

    def note(line: str) -> None:
        if time.perf_counter() - began > QUICK:
            print(f"{time.perf_counter() - began:6.1f} s  {line}", file=sys.stderr)

    asked = [spec for group in args.tokenizers for spec in re.split(r",(?![^\[]*\])", group.strip()) if spec]
    lab = tokens(args.data, asked, field=args.field, items=args.items, show=args.show, seed=args.seed, note=note)
    if page is not None:
        write_atomic(page, lab.page())
    if args.json:
        print(json.dumps(lab.figures(), indent=1, ensure_ascii=False))
        return 0
    if args.markdown:
        print(markdown(lab), end="")
        return 0
    print("\n".join(told(lab)))
    for number, raw in enumerate(lab.shown, 1):
        print(f"\nitem {number}")
        for one, modality in zip(lab.measures, lab.made):
            show(one.name, modality, raw)
    print()
    drawn, group = [], None
    for row in rows(lab):
        drawn.append([row.group if row.group != group else "", row.label, *row.cells])
        group = row.group
    table(["", "", *(one.name for one in lab.measures)], drawn, left=2)
    for one in lab.measures:
        for line in missed(one):
            print(f"{one.name}: {line}")
    if page is not None:
        print(f"\nLook at {page}.")
    return 0
