"""From a file or folder of data to a trained model: recognise, plan, train, report.

    sevenfold pretrain speeches.txt --minutes 5
    sevenfold pretrain photos/ --out runs/photos
    sevenfold pretrain genome.fasta --dry-run
    sevenfold pretrain penguins.csv --target species               what is to be predicted later is not looked at
    sevenfold pretrain letters.txt --from openai-community/gpt2     go on training what others published (or a run)

It writes a recipe and trains it; `sevenfold train RUN --resume` continues it.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        help="a file (text, jsonl, csv, parquet, tar, FASTA, npz, npy, h5ad, a protein structure …) or a folder (of text, images, sounds, "
        "structures, point clouds …); `sevenfold list source` says what is read",
    )
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="time to train (default: 5)")
    parser.add_argument("--out", metavar="DIR", help="the run folder (default: runs/NAME)")
    parser.add_argument(
        "--from", dest="start", metavar="MODEL", help="go on from a run folder, a published folder, or the id of one"
    )
    parser.add_argument(
        "--target",
        metavar="FIELD",
        help="a field or column that is to be predicted later: nothing is learned from it now",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what was found and planned, print the recipe, and stop"
    )


def run(args: argparse.Namespace) -> int:
    from sevenfold.training.pretrain import planned, pretrain

    if args.dry_run:
        from sevenfold.core.notation import write
        from sevenfold.core.part import encode

        made = planned(args.path, args.minutes, start=args.start, target=args.target, seed=args.seed)
        print("\n".join(["# " + line for line in (*made.found, *made.reasons)]))
        print(write(encode(made.recipe)), end="")
        return 0
    pretrain(args.path, args.minutes, args.out, start=args.start, target=args.target, seed=args.seed)
    return 0
