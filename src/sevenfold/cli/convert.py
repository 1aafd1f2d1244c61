"""Published weights to a folder of ours, or a run of ours to the published layout, with a passport.

sevenfold convert openai-community/gpt2 models/gpt2         an id (needs the extra `hub`) or a folder
sevenfold convert runs/mine published/mine                  a run that began from a published model, or by `family:`
sevenfold convert gpt2/ models/gpt2 --verify                also held against transformers, layer by layer

Which way is seen from SRC. A tensor that is missing or left over is an error. passport.json in DST says which tensor became
which, how many numbers there are on both sides, licence, origin and hashes. Nothing in a folder is run.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a published folder, the id of one, or a run folder")
    parser.add_argument("destination", metavar="DST", help="a folder that is not there yet")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare every layer's output with transformers' (needs the extra `verify`)",
    )


def run(args: argparse.Namespace) -> int:
    from sevenfold.training.convert import convert

    convert(args.source, args.destination, verified=args.verify)
    print(f"written: {args.destination}")
    return 0
