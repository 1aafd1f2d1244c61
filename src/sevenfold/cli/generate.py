"""Draw text, pictures or sequences from a model: from a prompt, from other streams, or from nothing; or fill in what is hidden.

sevenfold generate runs/gpt "Once upon" --length 200 --temperature 0.8
sevenfold generate runs/gpt --prompts begins.txt --count 3 --top-p 0.9 --stop "\\n\\n"
sevenfold generate runs/large "Once upon" --draft runs/small
sevenfold generate runs/large "Once upon" --quantize int4 --data other.txt
sevenfold generate runs/any --stream image --given caption="a five" --count 4 -o pictures/
sevenfold generate runs/any --stream caption --given image=five.png
sevenfold generate runs/bert "The <mask> sat on the <mask>" --steps 2

One text is printed as it is drawn. Pictures are shown in the terminal and saved as PNG in -o (default: generated); text is
saved too if -o is given. The same seed draws the same items.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sevenfold.core.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model

DRAWING = (
    "temperature", "top_k", "top_p", "min_p", "typical", "repetition_penalty", "beams", "length_penalty", "count", "stop",
    "seed", "seconds", "guidance", "cache", "lookup", "ahead", "length",
)  # fmt: skip
"""Flags that are settings of drawing, by the same names."""
FILLING = (
    "steps",
    "schedule",
    "order",
    "noise",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical",
    "count",
    "seed",
    "length",
)
"""Those of filling in what is hidden."""
MASKED = ("steps", "schedule", "order", "noise")
"""Those that ask for it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder, a published folder, or the id of one")
    add("prompt", metavar="PROMPT", nargs="?", help="how the item begins; - reads it from standard input")
    add("--prompts", metavar="FILE", help="prompts, one a line (- is standard input)")
    add("--stream", metavar="NAME", help="what to draw (default: the only one that can be drawn)")
    add("--given", action="append", default=[], metavar="NAME=WHAT", help="another stream: text, or a picture's file")
    add("-o", "--out", metavar="FOLDER", help="where files go (default: generated)")
    add("--no-stream", action="store_true", help="print a text when it is whole")
    add("--logprobs", action="store_true", help="print each token with its log-probability")
    how = parser.add_argument_group("how tokens are chosen").add_argument
    how(
        "--temperature",
        type=float,
        metavar="T",
        help="0 takes the likeliest token (default: 1; where hidden tokens are filled in, 0)",
    )
    how("--top-k", type=int, metavar="K", help="choose among the K likeliest tokens")
    how("--top-p", type=float, metavar="P", help="choose among the fewest tokens of probability P together")
    how(
        "--min-p",
        type=float,
        metavar="P",
        help="choose among tokens of at least P times the likeliest one's probability",
    )
    how("--typical", type=float, metavar="P", help="choose among tokens of usual surprise, of probability P together")
    how(
        "--repetition-penalty", type=float, metavar="X", help="above 1, what was there becomes less likely (default: 1)"
    )
    how("--guidance", type=float, metavar="W", help="how strongly to follow --given (default: 1)")
    how("--seed", type=int, metavar="N", help="(default: 0)")
    much = parser.add_argument_group("how much, and when it ends").add_argument
    much("--count", type=int, metavar="N", help="items a prompt (default: 1)")
    much("--length", type=int, metavar="N", help="most new tokens (default: what the run's items have)")
    much("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated (\\n is a line's end)")
    much("--seconds", type=float, metavar="S", help="stop after this time, with what there is")
    search = parser.add_argument_group("beam search").add_argument
    search("--beams", type=int, metavar="N", help="follow N sequences, to find the likeliest")
    search("--length-penalty", type=float, metavar="A", help="compare log-probability over length to the power A (1)")
    fast = parser.add_argument_group("speed").add_argument
    fast("--draft", metavar="RUN", help="a small model of the same vocabulary, which guesses ahead")
    fast("--lookup", type=int, metavar="N", help="guess ahead what followed when the last N tokens stood there before")
    fast("--ahead", type=int, metavar="K", help="most tokens guessed at a time (default: 4)")
    fast("--cache", metavar="KIND", help="how keys and values are kept: see `sevenfold list cache`")
    fast("--quantize", metavar="KIND", help="keep the weights in fewer bytes: see `sevenfold list packing`")
    fast("--data", metavar="FILE", help="the text that --quantize is measured on (default: the prompts)")
    fill = parser.add_argument_group("filling in <mask>").add_argument
    fill("--steps", type=int, metavar="N", help="passes of the model (default: 12)")
    fill(
        "--schedule",
        metavar="NAME",
        help="few are filled in at first (cosine, the default), or as many a step (linear)",
    )
    fill("--order", metavar="NAME", help="the surest first (confidence, the default), or random")
    fill("--noise", type=float, metavar="X", help="chance in the order by confidence (default: 0)")


def run(args: argparse.Namespace) -> int:
    from sevenfold.assembly.generation.told import writes
    from sevenfold.assembly.prompt import drawable
    from sevenfold.cli._drawn import fill, pack, show, stream
    from sevenfold.training.load import load

    out = None if args.out is None else Path(args.out)
    if out is not None and out.is_file():
        raise ConfigError(f"{out}: is a file, not a folder to write into")
    prompts = _prompts(args)
    model = load(args.run)
    draft = None if args.draft is None else load(args.draft)
    given = {name: [raw] for name, raw in (_given(model, pair) for pair in args.given)}
    if args.quantize is not None:
        pack(model, args.quantize, args.stream, _measured(args, prompts))
    elif args.data is not None:
        raise ConfigError("--data: is what --quantize is measured on: give --quantize too")
    if _fills(model, args):
        show(model, *fill(model, prompts, args.stream, given, _settings(args, FILLING)), out, args.logprobs)
        return 0
    name, settings = drawable(model, args.stream)[0], _settings(args, DRAWING)
    modality = model.modalities[name]
    text = writes(modality)
    raws = prompts if text else [_typed(model, name, prompt, "prompt") for prompt in prompts or ()] or None
    alone = len(prompts or [""]) == 1 and args.count in (None, 1)
    if text and alone and args.beams in (None, 1) and not args.no_stream and not args.logprobs:
        stream(model, name, raws, given, draft, settings, out)
        return 0
    drawn = model.draw(raws, stream=name, given=given, draft=draft, logprobs=args.logprobs, **settings)
    show(model, name, drawn, out, args.logprobs)
    return 0


def _prompts(args: argparse.Namespace) -> list[str] | None:
    """What each item begins with; None: nothing was said."""
    if args.prompts is not None:
        if args.prompt is not None:
            raise ConfigError("give PROMPT or --prompts, not both")
        text = _read(args.prompts, "--prompts")
        if not text.strip():
            raise DataError(f"--prompts {args.prompts}: is empty: write a prompt a line")
        return text.splitlines()
    if args.prompt == "-":
        return [_read("-", "PROMPT").removesuffix("\n")]
    return None if args.prompt is None else [args.prompt]


def _read(name: str, what: str) -> str:
    try:
        return (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} {name}: is not UTF-8 at byte {error.start}") from None


def _measured(args: argparse.Namespace, prompts: list[str] | None) -> tuple[str, str] | None:
    """(a text to measure on, what it is called); None: nobody gave one."""
    if args.data is not None:
        return _read(args.data, "--data"), args.data
    return ("\n".join(prompts), "the prompts") if prompts else None


def _fills(model: Model, args: argparse.Namespace) -> bool:
    """Whether hidden tokens are filled in: where that is asked for, or the model does nothing else."""
    from sevenfold.assembly.generation.unmasking import fillables
    from sevenfold.assembly.prompt import drawables

    asked = any(getattr(args, name) is not None for name in MASKED)
    return asked or (bool(fillables(model)) and not drawables(model))


def _settings(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """The flags that were given, by the names of the settings."""
    for name in sorted({*DRAWING, *FILLING} - {*names}):
        if getattr(args, name) is not None:
            what = "fills in hidden tokens" if names is FILLING else "draws token by token"
            raise ConfigError(f"--{name.replace('_', '-')}: is not for a model that {what}: leave it out")
    found = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "stop" in found:
        found["stop"] = [text.replace("\\n", "\n") for text in found["stop"]]
    return found


def _given(model: Model, pair: str) -> tuple[str, Any]:
    """`name=what` as the stream's name and its raw item."""
    name, equals, text = pair.partition("=")
    if not equals:
        raise ConfigError(f"--given {pair!r}: is written stream=what, as in caption='a five'")
    if name not in model.modalities:
        raise ConfigError(f"--given: there is no stream {name!r}{did_you_mean(name, model.modalities)}")
    return name, _typed(model, name, text, f"--given {name}")


def _typed(model: Model, name: str, text: str, what: str) -> Any:
    try:
        return model.modalities[name].typed(text)
    except ValueError as error:
        raise DataError(f"{what}: {error}") from None
