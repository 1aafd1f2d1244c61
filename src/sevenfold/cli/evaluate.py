"""Measure a run again: on its own held-out part, or on other data with the same fields.

sevenfold evaluate runs/gpt
sevenfold evaluate runs/gpt other.txt --json
sevenfold evaluate openai-community/gpt2 other.txt      a published model, on the held-out part of other data

Text that is predicted token by token also gets bits per byte, which compare between tokenizers.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from sevenfold.cli._table import table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, a published folder, or the id of one")
    parser.add_argument("data", metavar="DATA", nargs="?", help="a file or folder (default: the run's held-out part)")
    parser.add_argument("--json", action="store_true", help="print plain data instead of a table")


def run(args: argparse.Namespace) -> int:
    from sevenfold.evaluation import evaluate_run

    found = evaluate_run(args.run, args.data)
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    every = {"this model": found["terms"], **found["baselines"]}
    terms = list(found["terms"])
    streams = list(dict.fromkeys(stream for bits in found["bits_per_byte"].values() for stream in bits))
    columns = ["", *terms, *(f"{stream}: bits per byte" for stream in streams)]
    rows = []
    for name, values in every.items():
        bits = found["bits_per_byte"].get(name, {})
        rows.append([name, *(_number(values.get(term)) for term in terms), *(_number(bits.get(s)) for s in streams)])
    table(columns, rows)
    count, first = found["bad"]["count"], found["bad"]["first"]
    print(f"{found['samples']:,} {'sample' if found['samples'] == 1 else 'samples'}: {found['data']}")
    if count:
        print(f"{count:,} more could not be read, the first is {first[0][0]}: {first[0][1]}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
