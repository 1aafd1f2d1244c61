"""Training steps of ours beside transformers, a nanoGPT-like loop and x-transformers, in one run.

    python benchmarks/train.py [decoder decoder50k masked vit mae towers] [--precision fp32 bf16] [--compile] [--rounds 7] [--only NAME] [--busy]

The same shape, batch and optimizer for everybody; ours goes through the trainer's own `take_step`, with its objective and optimizer. Each
round makes one step of each contender, in turn, so that what the machine does meanwhile hits all alike: ratios are those within a
round, their median and their quartiles; the other figures are medians. The ceiling is the best matrix product in that precision, measured
first; MFU is the model's own products by formula (three times those of a forward pass, of our objective) over time and ceiling: work
that a contender does beside that counts for nothing. A case takes one or two minutes. A busy machine
spoils figures, and ratios less; --busy measures the processor time of one thread instead, which others do not take away.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _peers import PEERS, stepper
from _shapes import CASES, Case, batch_of, ours


def ceiling(precision: str, clock: Callable[[], float]) -> float:
    """FLOP/s of the best product: PyTorch's own, or oneDNN's."""
    a, best = torch.ones(1024, 1024, dtype=torch.bfloat16 if precision == "bf16" else torch.float32), 0.0
    for product in (lambda: a @ a, lambda: torch.ops.mkldnn._linear_pointwise(a, a, None, "none", [], "")):
        for _ in range(8):
            start = clock()
            product()
            best = max(best, 2 * 1024**3 / (clock() - start))
    return best


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return low, middle, high


def contenders(case: Case, precision: str, compiled: bool, only: str) -> tuple[dict[str, Callable[[], Any]], float]:
    """Name → one step, and the FLOPs of a step by our formula."""
    found = {}
    for compile in (False, True)[: 1 + compiled]:
        more = ", compiled" if compile else ""
        step, objective = ours(case, precision, compile=compile)
        found[f"ours{more}"] = step
        flops = 3.0 * objective.flops(batch_of(case, objective.model))
        for peer, model, loss in PEERS[case.name](case):
            if only in peer:
                found[f"{peer}{more}"] = stepper(model, loss, precision, compile)
    return found, flops


def measure(case: Case, precision: str, told: argparse.Namespace) -> None:
    clock = time.process_time if told.busy else time.perf_counter
    peak = ceiling(precision, clock)
    steps, flops = contenders(case, precision, told.compile, told.only)
    begun: dict[str, float] = {}
    for who, step in steps.items():
        start = clock()
        step()
        begun[who] = clock() - start
        step()
    seconds: dict[str, list[float]] = {who: [] for who in steps}
    for turn in range(told.rounds):
        order = list(steps) if turn % 2 == 0 else list(reversed(steps))
        for who in order:
            start = clock()
            steps[who]()
            seconds[who].append(clock() - start)
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
    try:
        import transformers

        transformers.logging.set_verbosity_error()
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
