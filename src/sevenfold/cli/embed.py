"""Turn data into vectors with a trained model.

sevenfold embed runs/vit pictures/ -o pictures.npz
sevenfold embed runs/gpt --text "what is this about?" -o line.npy

The ending of the output says how it is written:
  .npy      the vectors, [items width]
  .npz      `embeddings` and `where` (file and offset of each item)
  .csv      one line an item: where, then the numbers
  .parquet  columns `where` and `embedding` (needs the extra `parquet`)
With --pool none there is a vector for every token: .npz gets `item` (which item each is of), the tables a column `token`.
Items that cannot be read are left out, counted, and listed in OUTPUT.bad_samples.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.core.files import write_atomic

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model
    from sevenfold.data.bad import BadSamples
    from sevenfold.data.loader import Items


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, a published folder, or the id of one")
    parser.add_argument("data", metavar="DATA", nargs="?", help="a file or folder with the fields that the run read")
    parser.add_argument(
        "--text", action="append", metavar="TEXT", help="an item itself, instead of DATA; may be repeated"
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="where to: .npy, .npz, .csv or .parquet")
    parser.add_argument(
        "--pool", default="mean", metavar="HOW", help="mean (the default), class, last, class_mean, quarters, or none"
    )
    parser.add_argument("--trunk", metavar="NAME", help="which trunk's representation (default: the last that reads)")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="items at a time (default: 64)")


def run(args: argparse.Namespace) -> int:
    from sevenfold.assembly.model import check_pool
    from sevenfold.cli._vectors import check_out, write
    from sevenfold.data.bad import BadSamples
    from sevenfold.training.load import load

    out = Path(args.out)
    check_pool(args.pool)
    check_out(out, args.pool == "none")
    if (args.data is None) == (not args.text):
        raise ConfigError("give DATA, a file or folder, or --text with the item itself")
    if args.batch < 1:
        raise ConfigError(f"--batch: at least 1, not {args.batch}")
    model, bad = load(args.run), BadSamples(1.0)
    items = _typed(model, args.text) if args.text else _items(model, args.run, args.data)
    where, vectors = [], []
    for start in range(0, len(items), args.batch):
        chosen = range(start, min(start + args.batch, len(items)))
        names, found = _embedded(model, items, chosen, args.pool, args.trunk, bad)
        where += names
        vectors += found
    _tell(bad, out)
    if not vectors:
        raise _nothing(bad)
    write(out, vectors, where)
    print(f"{len(vectors):,} items, vectors of {vectors[0].shape[-1]}: {out}")
    return 0


def _embedded(
    model: Model, items: Items, chosen: range, pool: str, trunk: str | None, bad: BadSamples
) -> tuple[list[str], list]:
    """(where, vectors) of the items that can be read."""
    from sevenfold.data.collate import collate

    names, good = [], []
    for place in chosen:
        found = items[0, place]
        if isinstance(found, BadSample):
            bad.note(found)
        else:
            names.append(items.source.where(items.indices[place]))
            good.append(found)
    return names, (model.embed_batch(collate(good), pool, trunk) if good else [])


def _items(model: Model, run: str, data: str) -> Items:
    """Everything in a file or folder, as tokens of the streams that the model reads."""
    from sevenfold.data.loader import Items
    from sevenfold.data.recognise import recognise
    from sevenfold.training.prepare import field_of
    from sevenfold.training.recipe import read_recipe

    recipe, found = read_recipe(run) if (Path(run) / "recipe.yaml").is_file() else None, recognise(data)
    if recipe is not None and found.kind == recipe.data.kind:
        found = recipe.data.replace(path=data, limit=None)
    source = found.build()
    encoders, missing = {}, []
    for name in _read(model):
        try:
            encoders[name] = (field_of(name, model.config.streams[name], source.fields), model.modalities[name].tokens)
        except ConfigError as error:
            missing.append((name, error))
    if not encoders:
        raise missing[0][1]
    for name, _ in missing:
        print(f"the data has no {name!r}: embedding without it", file=sys.stderr)
    return Items(source, range(len(source)), encoders, 0, views=False)


def _typed(model: Model, texts: list[str]) -> Items:
    """Items given on the command line, for the one stream that takes letters."""
    from sevenfold.data.loader import Items

    names = [name for name in _read(model) if model.config.streams[name].kind in ("text", "dna", "protein")]
    if len(names) != 1:
        raise ConfigError(f"--text: the model reads {', '.join(_read(model))}: it needs one stream of letters")
    source: Any = _Typed(texts)
    return Items(source, range(len(texts)), {names[0]: ("text", model.modalities[names[0]].tokens)}, 0, False)


class _Typed:
    """Just enough of a source for the texts of a command line."""

    shelves = None

    def __init__(self, texts: list[str]):
        self.texts = texts

    def __getitem__(self, index: int) -> dict[str, str]:
        return {"text": self.texts[index]}

    def where(self, index: int) -> str:
        return f"--text {index + 1}"


def _read(model: Model) -> list[str]:
    """The streams that trunks read."""
    return [name for name in model.modalities if any(name in t.inputs for t in model.config.trunks.values())]


def _tell(bad: BadSamples, out: Any) -> None:
    """List what could not be read, beside the output."""
    if not len(bad):
        return
    listed = out.with_name(f"{out.name}.bad_samples.jsonl")
    lines = [json.dumps({"where": where, "why": why}, ensure_ascii=False) for where, why in bad.listed]
    write_atomic(listed, "\n".join(lines) + "\n")
    where, why = bad.listed[0]
    print(f"{len(bad):,} items could not be read, the first is {where}: {why}; all: {listed}")


def _nothing(bad: BadSamples) -> Exception:
    first = bad.first(1)
    return DataError("no item could be read" + (f"; the first is {first[0][0]}: {first[0][1]}" if first else ""))
