"""Tokens per second of generation: ours beside transformers and CTranslate2, in one run, with the limit that memory sets.

    python benchmarks/generate.py [--batch 1 16] [--rounds 5] [--new 64] [--prompt 32] [--layers 12] [--only int8,int4]

A GPT-2 of random weights is written as a folder, which all of them load. Everybody draws the likeliest token, on the same
threads, from the same prompt; a figure is new tokens of all rows over the time of the whole call, the prompt included. Each
round runs each contender once, in turn, so that what the machine does meanwhile hits all alike: ratios are those within a
round, their median and their spread (least to most); figures are medians. Each library has a process of its own, as threads of one that wait for work
slow the others down, and a breath is taken between two runs.

The limit is what memory allows if every weight is read once a token: bytes of the matrices over the bandwidth, which is
measured before each batch (a sum over 256 MB). A busy machine spoils all of it; --busy measures the processor time of one
thread each instead, which others do not take away (but for the memory). CTranslate2 is the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import sevenfold as sf
from sevenfold.blocks.projection.packing import Packing

Run = Callable[[int, int], list[list[int]]]
"""(rows, new tokens) → the new ids of each row."""
BREATH = 0.3
"""Seconds between two runs, until threads of the last one stopped waiting for more."""
BASE = "transformers float32"
KINDS = ("float32", "bfloat16", "int8", "int8_dynamic", "int4")


def folder_of(folder: Path, layers: int) -> Path:
    """A GPT-2 of random weights in the published layout, with a tokenizer of as many pieces."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=layers))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)  # so that what comes next depends on what came before
    model.save_pretrained(folder)
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled = [chr(byte) for byte in letters] + [chr(256 + place) for place in range(256 - len(letters))]
    merges = [(a, b) for a in spelled for b in spelled][: 50257 - 256 - 1]
    pieces = [*spelled, *(a + b for a, b in merges), "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: id for id, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    return folder


def bandwidth(clock: Callable[[], float], seconds: float = 2.0) -> float:
    """Bytes per second of reading, at best."""
    block, best, until = torch.ones(1 << 26), 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = clock()
        block.sum()
        best = max(best, block.numel() * 4 / (clock() - start))
    return best


def prompt_of(model: Any, tokens: int) -> tuple[str, list[int]]:
    """A text of so many tokens, and their ids."""
    tokenizer, text = model.modalities["text"].tokenizer, ""
    generator = torch.Generator().manual_seed(1)
    while len(ids := tokenizer.encode(text).values.tolist()) < tokens:
        text += chr(97 + int(torch.randint(26, (), generator=generator)))
    return text, ids


def ours(folder: Path, text: str) -> Iterator[tuple[str, int, Run]]:
    """Ours as loaded, and packed in every form."""

    def run(model: Any) -> Run:
        def draw(rows: int, new: int) -> list[list[int]]:
            return [one.ids for one in model.draw([text] * rows, temperature=0, length=new, logprobs=False)]

        return draw

    plain = sf.load_published(folder)
    whole = sum(p.numel() * 4 for name, p in plain.named_parameters() if p.dim() > 1 and "position" not in name)
    yield "ours, as loaded", whole, run(plain)
    for kind in KINDS:
        model = sf.load_published(folder).quantize(kind)
        held = {id(module): module.bytes for module in model.modules() if isinstance(module, Packing)}
        yield f"ours {kind}", sum(held.values()), run(model)


def transformers(folder: Path, ids: list[int]) -> Iterator[tuple[str, int, Run]]:
    """transformers with a growing cache and a static one, and in bfloat16."""
    import transformers as peer

    peer.logging.set_verbosity_error()

    def run(model: Any, cache: str | None) -> Run:
        def draw(rows: int, new: int) -> list[list[int]]:
            given = torch.tensor([ids] * rows)
            more = {} if cache is None else {"cache_implementation": cache, "disable_compile": True}
            told = {"do_sample": False, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 0, **more}
            with torch.inference_mode():
                return model.generate(given, attention_mask=torch.ones_like(given), **told)[:, len(ids) :].tolist()

        return draw

    model = peer.GPT2LMHeadModel.from_pretrained(folder).eval()
    whole = sum(p.numel() * 4 for name, p in model.named_parameters() if p.dim() > 1 and "wpe" not in name)
    yield BASE, whole, run(model, None)
    yield "transformers float32, static cache", whole, run(model, "static")
    half = peer.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    yield "transformers bfloat16", whole // 2, run(half, None)


def ctranslate2(folder: Path, ids: list[int], threads: int) -> Iterator[tuple[str, int, Run]]:
    """CTranslate2 in float32 and int8, converted here."""
    try:
        import ctranslate2 as peer
    except ImportError:
        print("CTranslate2 is not installed (pip install 'sevenfold[bench]'): left out")
        return
    with tempfile.TemporaryDirectory() as target:
        peer.converters.TransformersConverter(str(folder)).convert(target, force=True)
        pieces = json.loads((Path(target) / "vocabulary.json").read_text(encoding="utf-8"))
        size = (Path(target) / "model.bin").stat().st_size
        for kind, share in (("float32", 1), ("int8", 4)):
            made = peer.Generator(target, device="cpu", compute_type=kind, inter_threads=1, intra_threads=threads)

            def draw(rows: int, new: int, made: Any = made) -> list[list[int]]:
                told = {"max_length": new, "min_length": new, "sampling_topk": 1, "include_prompt_in_result": False}
                found = made.generate_batch([[pieces[id] for id in ids]] * rows, **told)
                return [one.sequences_ids[0] for one in found]

            yield f"CTranslate2 {kind}", size // share, draw


def clock_of(busy: bool) -> Callable[[], float]:
    return time.process_time if busy else time.perf_counter


def serve(
    pipe: Any, library: str, folder: str, text: str, ids: list[int], threads: int, busy: bool, only: list[str]
) -> None:
    """A process of one library: says what it has, [(name, bytes)], and then runs what it is told to."""
    torch.set_num_threads(threads)
    made = {
        "transformers": lambda: transformers(Path(folder), ids),
        "ours": lambda: ours(Path(folder), text),
        "CTranslate2": lambda: ctranslate2(Path(folder), ids, threads),
    }[library]()
    wanted = [one for one in made if not only or one[0] == BASE or any(name in one[0] for name in only)]
    draws, clock = {name: draw for name, _, draw in wanted}, clock_of(busy)
    pipe.send([(name, size) for name, size, _ in wanted])
    while (told := pipe.recv()) is not None:
        name, rows, new = told
        start = clock()
        found = draws[name](rows, new)
        pipe.send((clock() - start, found))


def table(rates: dict[str, list[float]], sizes: dict[str, int], speed: float, rows: int) -> list[str]:
    """Lines of Markdown."""
    lines = [
        f"| batch {rows} | tok/s | of transformers float32 (least … most) | of the limit |",
        "|---|---|---|---|",
    ]
    for name, found in rates.items():
        ratios = [one / base for one, base in zip(found, rates[BASE])]
        spread = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} … {max(ratios):.2f})"
        median = statistics.median(found)
        limit = rows * speed / sizes[name]
        lines.append(f"| {name} | {median:.1f} | {spread} | {median / limit:.0%} of {limit:.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="rows at once")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender runs")
    parser.add_argument("--new", type=int, default=64, help="new tokens")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--layers", type=int, default=12, help="blocks (fewer for a short run)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each contender")
    parser.add_argument("--busy", action="store_true", help="processor time of one thread, instead of time of all")
    parser.add_argument("--only", default="", help="contenders with one of these in their names, comma by comma")
    args = parser.parse_args()
    threads, clock = 1 if args.busy else args.threads, clock_of(args.busy)
    torch.set_num_threads(threads)
    only = [name for name in args.only.split(",") if name]
    pipes: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    context, workers = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as place:
        folder = folder_of(Path(place), args.layers)
        text, ids = prompt_of(sf.load_published(folder), args.prompt)
        for library in ("transformers", "ours", "CTranslate2"):
            pipe, other = context.Pipe()
            told = (other, library, place, text, ids, threads, args.busy, only)
            workers.append(context.Process(target=serve, args=told, daemon=True))
            workers[-1].start()
            for name, size in pipe.recv():
                pipes[name], sizes[name] = pipe, size

    def run(name: str, rows: int) -> tuple[float, list[list[int]]]:
        time.sleep(BREATH)
        pipes[name].send((name, rows, args.new))
        seconds, found = pipes[name].recv()
        if sum(map(len, found)) != rows * args.new:
            raise SystemExit(f"{name} gave {sum(map(len, found))} tokens instead of {rows * args.new}")
        return seconds, found

    print(
        f"{args.layers} blocks, prompt {len(ids)}, {args.new} new tokens, {threads} threads, torch {torch.__version__}"
    )
    for rows in args.batch:
        speed = bandwidth(clock)
        print(f"\nmemory is read at {speed / 1e9:.1f} GB/s; load {os.getloadavg()[0]:.2f}\n")
        answers = {name: run(name, rows)[1] for name in pipes}  # warm
        rates: dict[str, list[float]] = {name: [] for name in pipes}
        for _ in range(args.rounds):
            for name in pipes:
                rates[name].append(rows * args.new / run(name, rows)[0])
        print("\n".join(table(rates, sizes, speed, rows)), flush=True)
        agree = {name: sum(a == b for a, b in zip(found[0], answers[BASE][0])) for name, found in answers.items()}
        print(
            "\nthe same tokens as transformers float32: " + ", ".join(f"{n} {c}" for n, c in agree.items()), flush=True
        )
    for pipe in set(pipes.values()):
        pipe.send(None)
    for worker in workers:
        worker.join(5)


if __name__ == "__main__":
    main()
