"""Make tokens of data once, on all cores, into files that training maps to memory: nothing waits for them any more.

sevenfold prepare speeches/ --out tokens/
sevenfold prepare corpus.parquet --out tokens/ --field text stream.tokenizer.kind=bpe stream.tokenizer.size=32768
sevenfold prepare genomes.fasta --out tokens/ stream.tokenizer.kind=kmer data.held_out=0.01
sevenfold prepare "pictures-{0000..0999}.tar" --index --out pictures/

Then train with data: {kind: shards, path: tokens/}. An interrupted preparation goes on where it stopped when it is called again. An
index says where the samples of a tar lie: one that is read at a URL need not come once to be looked up if its index lies beside it.
"""

from __future__ import annotations

import argparse
import sys

from sevenfold.core.errors import ConfigError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a file or folder of data")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="field=value",
        help="data.… and stream.…: how the data are read and become tokens",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write")
    parser.add_argument("--field", metavar="FIELD", help="the field to make tokens of (default: most to learn from)")
    parser.add_argument("--like", metavar="DIR", help="with the tokenizer of a folder that was prepared before")
    parser.add_argument("--index", action="store_true", help="no tokens, but an index of each tar, to lie beside it")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")


def run(args: argparse.Namespace) -> int:
    from sevenfold.training.prepare_data import prepare_data, prepare_index

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    if args.index:
        if args.field or args.like or args.workers:
            raise ConfigError("--index: makes no tokens: leave --field, --like and --workers out")
        prepare_index(args.data, args.out, overrides=args.overrides, say=say)
        return 0
    prepare_data(
        args.data,
        args.out,
        field=args.field,
        overrides=args.overrides,
        like=args.like,
        workers=args.workers,
        say=say,
    )
    return 0
