"""Draw text, pictures or sequences from a causal model, from a prompt, from other streams, or from nothing.

sevenfold generate runs/gpt "Once upon" --length 200 --temperature 0.8
sevenfold generate runs/any --stream image --given caption="a five" --count 4 -o pictures/
sevenfold generate runs/any --stream caption --given image=five.png

Text is printed. Pictures are shown in the terminal and saved as PNG in -o (default: generated); text is saved too if -o
is given. The same seed draws the same items.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sevenfold.core.errors import ConfigError, DataError, did_you_mean
from sevenfold.core.files import write_atomic

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder")
    add("prompt", metavar="PROMPT", nargs="?", help="how the item begins")
    add("--stream", metavar="NAME", help="what to draw (default: the only one that can be drawn)")
    add("--given", action="append", default=[], metavar="NAME=WHAT", help="another stream: text, or a picture's file")
    add("--count", type=int, default=1, metavar="N", help="how many items (default: 1)")
    add("--length", type=int, metavar="N", help="most new tokens (default: what the run's items have)")
    add("--temperature", type=float, default=1.0, metavar="T", help="0 takes the likeliest token (default: 1)")
    add("--top-k", type=int, metavar="K", help="choose among the K likeliest tokens")
    add("--top-p", type=float, metavar="P", help="choose among the fewest tokens of probability P together")
    add("--guidance", type=float, default=1.0, metavar="W", help="how strongly to follow --given (default: 1)")
    add("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    add("--seconds", type=float, metavar="S", help="stop after this time, with what there is")
    add("-o", "--out", metavar="FOLDER", help="where files go (default: generated)")


def run(args: argparse.Namespace) -> int:
    from sevenfold.training.load import load

    if args.out is not None and Path(args.out).is_file():
        raise ConfigError(f"{args.out}: is a file, not a folder to write into")
    model = load(args.run)
    stream = args.stream or _only(model)
    drawn = model.generate(
        args.prompt,
        stream=args.stream,
        given={name: [raw] for name, raw in (_given(model, pair) for pair in args.given)} or None,
        count=args.count,
        length=args.length,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        guidance=args.guidance,
        seed=args.seed,
        seconds=args.seconds,
    )
    modality = model.modalities[stream]
    for raw in drawn:
        print(modality.plain(raw))
        ending, content = modality.file(raw)
        if args.out is not None or ending != ".txt":
            print(_saved(Path(args.out or "generated"), stream, ending, content))
    return 0


def _only(model: Model) -> str:
    """The only stream that can be drawn (ConfigError if there is none, or more)."""
    from sevenfold.assembly.prompt import drawable

    return drawable(model, None)[0]


def _given(model: Model, pair: str) -> tuple[str, Any]:
    """`name=what` as the stream's name and its raw item."""
    name, equals, text = pair.partition("=")
    if not equals:
        raise ConfigError(f"--given {pair!r}: is written stream=what, as in caption='a five'")
    if name not in model.modalities:
        raise ConfigError(f"--given: there is no stream {name!r}{did_you_mean(name, model.modalities)}")
    try:
        return name, model.modalities[name].typed(text)
    except ValueError as error:
        raise DataError(f"--given {name}: {error}") from None


def _saved(folder: Any, stream: str, ending: str, content: bytes) -> Any:
    """Write under the next free number, so that nothing drawn before is lost."""
    number = 1
    while (path := folder / f"{stream}-{number}{ending}").exists():
        number += 1
    write_atomic(path, content)
    return path
