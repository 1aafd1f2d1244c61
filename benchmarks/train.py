"""Training steps of ours beside transformers, a nanoGPT-like loop and x-transformers, in one run.

    python benchmarks/train.py [decoder decoder50k masked vit mae towers] [--precision fp32 bf16] [--compile] [--rounds 7] [--only NAME] [--busy]

The same shape, batch and optimizer for everybody, a process for each; ours goes through the trainer's own `take_step`, with its objective and optimizer. Each
round makes one step of each contender, in turn, so that what the machine does meanwhile hits all alike: ratios are those within a
round, their median and their quartiles; the other figures are medians. The ceiling is the best matrix product in that precision, measured
first; MFU is the model's own products by formula (three times those of a forward pass, of our objective) over time and ceiling: work
that a contender does beside that counts for nothing. A case takes one or two minutes. A busy machine
spoils figures, and ratios less; --busy measures the processor time of one thread instead, which others do not take away.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from _peers import PEERS, stepper
from _shapes import CASES, Case, batch_of, ours

BREATH = 0.1
"""Seconds between two steps, until threads of the last contender stopped waiting for work."""


def ceiling(precision: str, clock: Callable[[], float]) -> float:
    """FLOP/s of the best product: PyTorch's own, or oneDNN's."""
    a, best = torch.ones(1024, 1024, dtype=torch.bfloat16 if precision == "bf16" else torch.float32), 0.0
    for product in (lambda: a @ a, lambda: torch.ops.mkldnn._linear_pointwise(a, a, None, "none", [], "")):
        began = time.perf_counter()
        while time.perf_counter() - began < 1:  # threads of the case before may still be awake
            start = clock()
            product()
            best = max(best, 2 * 1024**3 / (clock() - start))
    return best


def clock_of(busy: bool) -> Callable[[], float]:
    return time.process_time if busy else time.perf_counter


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return low, middle, high


def serve(pipe: Any, case: Case, precision: str, who: str, compile: bool, threads: int, busy: bool) -> None:
    """One contender, in a process of its own: says that it is ready (with the FLOPs of a step, if it is ours, and the seconds of
    the first step), then the seconds of a step whenever it is asked."""
    torch.set_num_threads(threads)
    clock, flops = clock_of(busy), 0.0
    if who == "ours":
        step, objective = ours(case, precision, compile=compile)
        flops = 3.0 * objective.flops(batch_of(case, objective.model))
    else:
        step = next(
            stepper(model, loss, precision, compile) for name, model, loss in PEERS[case.name](case) if name == who
        )
    for _ in range(2):
        start = clock()
        step()
        took = clock() - start
        if _ == 0:
            first = took
    pipe.send((flops, first))
    while pipe.recv():
        start = clock()
        step()
        pipe.send(clock() - start)


def names_of(case: Case, only: str) -> list[str]:
    """The peers of a case."""
    with torch.device("meta"):
        return [name for name, *_ in PEERS[case.name](case) if only in name]


def measure(case: Case, precision: str, told: argparse.Namespace) -> None:
    peak = ceiling(precision, clock_of(told.busy))
    context, pipes, begun, flops = multiprocessing.get_context("spawn"), {}, {}, 0.0
    for compile in (False, True)[: 1 + told.compile]:
        for who in ["ours", *names_of(case, told.only)]:
            here, there = context.Pipe()
            given = (there, case, precision, who, compile, 1 if told.busy else told.threads, told.busy)
            context.Process(target=serve, args=given, daemon=True).start()
            label = who + ", compiled" * compile
            pipes[label] = here
            mine, begun[label] = here.recv()
            flops = max(flops, mine)
    seconds: dict[str, list[float]] = {who: [] for who in pipes}
    for turn in range(told.rounds):
        for who in list(pipes) if turn % 2 == 0 else list(reversed(pipes)):
            time.sleep(BREATH)
            pipes[who].send(True)
            seconds[who].append(pipes[who].recv())
    for pipe in pipes.values():
        pipe.send(False)
    print(f"\n{case.name}, {precision}: {case.rows} rows a step; ceiling {peak / 1e9:.0f} GFLOP/s\n")
    print(f"| | {case.unit} | MFU | ours over it (quartiles) | first step |\n|---|---|---|---|---|")
    for who, times in seconds.items():
        rate = case.rows * case.each / statistics.median(times)
        cell = ""
        if who != "ours":
            low, middle, high = quartiles([peer / own for peer, own in zip(times, seconds["ours"])])
            cell = f"{middle:.2f} ({low:.2f} … {high:.2f})"
        share = flops / statistics.median(times) / peak
        print(f"| {who} | {rate:,.1f} | {share:.2f} | {cell} | {begun[who]:.1f} s |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}; by default all")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="also everybody compiled")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, help="rows a step, in place of the case's")
    parser.add_argument("--busy", action="store_true", help="measure the processor time of one thread")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="only peers whose name has this in it")
    told = parser.parse_args()
    torch.set_num_threads(1 if told.busy else told.threads)
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise SystemExit("transformers is not installed: pip install 'sevenfold[bench]'") from None
    for name in told.cases:
        if name not in CASES:
            raise SystemExit(f"{name}: is none of {', '.join(CASES)}")
        for precision in told.precision:
            case = CASES[name]
            measure(case._replace(rows=told.rows or case.rows), precision, told)


if __name__ == "__main__":
    main()
