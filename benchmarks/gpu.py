"""Training on one GPU: a 124M and a 1B-shaped decoder and a ViT-L in bf16, beside transformers, with the share of the ceiling.

    python benchmarks/gpu.py [gpt124m gpt1b vitl] [--compile] [--recompute] [--rounds 20] [--packed] [--fp8] [--tiny]

The ceiling is the best bf16 product of 8,192-sided matrices, measured first. Model FLOPs are three times those of a forward pass, by our
objective's formula: what is computed again counts for nothing. Ours goes through the trainer's `take_step`: logits of a large vocabulary are
made some rows at a time, blocks are compiled one by one (`--compile`), attention is PyTorch's flash kernel. Each round makes one step
of each contender, in turn; ratios are those within a round (median, quartiles).

--packed  the same decoder on windows of several documents, whose masks keep them apart, beside windows of one
--fp8     ours with `train.precision: fp8` too, and products of large matrices in FP8 (`torch._scaled_mm`) beside bf16: what there is to win
--tiny    small shapes on a CPU: whether it runs
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from _peers import decoders, stepper, vits
from _shapes import Case, batch_of, decoder, objective, ours, recipe_of, vit
from sevenfold.core.types import Batch
from sevenfold.training.fit import take_step

SHAPES = {
    "gpt124m": (decoder("gpt124m", 50304, 768, 12, 1024, 16), decoders),
    "gpt1b": (decoder("gpt1b", 50304, 2048, 20, 2048, 4, 128), decoders),
    "vitl": (vit("vitl", 1024, 24, 224, 16, 64), vits),
}
TINY = {
    "gpt124m": (decoder("gpt124m", 300, 64, 2, 32, 2, 16), decoders),
    "gpt1b": (decoder("gpt1b", 300, 64, 3, 32, 2, 16), decoders),
    "vitl": (vit("vitl", 64, 2, 32, 4, 2), vits),
}


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], Any], device: str) -> float:
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def ceiling(device: str, side: int) -> float:
    """FLOP/s of a bf16 product, the best of twenty."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / min(timed(lambda: a @ b, device) for _ in range(20))


def fp8(device: str, side: int, bf16: float) -> None:
    """What products in FP8 reach, where the device has them."""
    try:
        one = torch.ones((), device=device)
        a = torch.randn(side, side, device=device).to(torch.float8_e4m3fn)
        b = torch.randn(side, side, device=device).to(torch.float8_e4m3fn).t()

        def product() -> Any:
            return torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)

        rate = 2 * side**3 / min(timed(product, device) for _ in range(20))
        print(f"FP8 products: {rate / 1e12:.2f} TFLOP/s, {rate / bf16:.2f} times bf16")
    except (RuntimeError, NotImplementedError, ValueError) as error:
        print(f"FP8 products: not here ({str(error).splitlines()[0]})")


def compare(steps: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each contender's steps, in turn, after three that do not count."""
    for step in steps.values():
        for _ in range(3):
            timed(step, device)
    found: dict[str, list[float]] = {who: [] for who in steps}
    for _ in range(rounds):
        for who, step in steps.items():
            found[who].append(timed(step, device))
    return found


def spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} … {high:.2f})"


def table(case: Case, seconds: dict[str, list[float]], flops: float, peak: float) -> None:
    print(f"\n{case.name}: {case.rows} rows of {case.tokens} a step, bf16\n")
    print(f"| | {case.unit} | MFU | ours over it (quartiles) |\n|---|---|---|---|")
    for who, times in seconds.items():
        middle = statistics.median(times)
        ratio = "" if who == "ours" else spread([peer / own for peer, own in zip(times, seconds["ours"])])
        print(f"| {who} | {case.rows * case.each / middle:,.0f} | {flops / middle / peak:.3f} | {ratio} |", flush=True)


def train(name: str, told: argparse.Namespace, device: str, peak: float) -> None:
    case, peers = (TINY if told.tiny else SHAPES)[name]
    step, made = ours(case, "bf16", device, compile=told.compile, recompute=told.recompute)
    steps = {"ours": step}
    if told.fp8:
        steps["ours, FP8"] = ours(case, "fp8", device, compile=told.compile, recompute=told.recompute)[0]
    flops = 3.0 * made.flops(batch_of(case, made.model))
    for who, model, loss in peers(case, device):
        if who.startswith("x-"):
            continue
        model.to(device)
        steps[who] = stepper(model, loss, "bf16")
        if told.compile:
            steps[f"{who}, compiled"] = stepper(model, loss, "bf16", compiled=True)
    seconds = compare(steps, told.rounds, device)
    table(case, seconds, flops, peak)
    if device == "cuda":
        print(f"most memory, all contenders together: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def packed(name: str, told: argparse.Namespace, device: str) -> None:
    """Windows of several documents beside windows of one: the same tokens, the same products."""
    case = (TINY if told.tiny else SHAPES)[name][0]
    made, steps = objective(recipe_of(case, "bf16", device=device)).to(device).train(), {}
    config = recipe_of(case, "bf16", device=device).train
    optimizer = config.optimizer.build(dict(made.named_parameters()), made.cares())
    whole: Batch = {who: stream.to(device) for who, stream in batch_of(case, made.model).items()}
    text = whole["text"]
    ends = torch.rand(text.values.shape, generator=torch.Generator().manual_seed(0)) < 8 / case.tokens
    apart = {"text": text._replace(segments=ends.long().cumsum(1).to(device))}
    for who, batch in (("one document", whole), ("several documents", apart)):
        steps[who] = lambda batch=batch: take_step(made, optimizer, batch, config, "bf16", 0, 1, 1.0)
    seconds = compare(steps, told.rounds, device)
    one, several = seconds["one document"], seconds["several documents"]
    print(f"\n{name}, packed: {spread([a / b for a, b in zip(one, several)])} of the unpacked speed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), help=f"of {', '.join(SHAPES)}; by default all")
    for name in ("compile", "recompute", "packed", "fp8", "tiny"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    told = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() and not told.tiny else "cpu"
    if device == "cpu" and not told.tiny:
        raise SystemExit("there is no GPU here: --tiny runs small shapes on a CPU")
    side = 256 if told.tiny else 8192
    torch.set_float32_matmul_precision("high")
    peak = ceiling(device, side)
    print(
        f"ceiling: {peak / 1e12:.3f} TFLOP/s in bf16 ({torch.cuda.get_device_name() if device == 'cuda' else 'a CPU'})"
    )
    if told.fp8:
        fp8(device, side, peak)
    for name in told.shapes:
        if name not in SHAPES:
            raise SystemExit(f"{name}: is none of {', '.join(SHAPES)}")
        train(name, told, device, peak)
        if told.packed and name != "vitl":
            packed(name, told, device)


if __name__ == "__main__":
    main()
