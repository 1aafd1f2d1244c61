"""What the planner predicts against what is measured: memory and time of a training step, a process for every row.

    python benchmarks/plan.py [--repeats 3] [--steps 8] [--out plan.json]

Prints a Markdown table. `peak` is the most bytes that the allocator gives out; `process` what the operating system saw grow
from before the model was made (VmHWM), fragments and kernels' own buffers included; `ms` the median step of each repeat,
with the least and the most of them. Ratios are predicted / measured. Run it on a machine that does nothing else: the
measuring of the hardware is part of every row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

ROWS = (
    ("tiny_gpt", "lm", 64, 2, 16),
    ("tiny_gpt", "lm", 128, 4, 32),
    ("tiny_gpt", "lm", 256, 6, 32),
    ("tiny_bert", "enc", 128, 4, 32),
    ("tiny_bert", "enc", 256, 4, 64),
    ("vit", "enc", 128, 4, 64),
    ("vit", "enc", 256, 6, 64),
    ("tiny_mae", "enc", 192, 4, 64),
    ("tiny_clip", "v", 128, 4, 64),
    ("tiny_mamba", "lm", 128, 2, 16),
    ("tiny_series", "lm", 128, 4, 32),
    ("tiny_pairformer", "enc", 64, 2, 16),
)
"""Recipe, its first trunk, width, depth, batch."""


def high_water() -> int:
    """The most bytes that this process has held."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def row(name: str, width: int, depth: int, batch: int, precision: str, steps: int) -> dict[str, float]:
    """One recipe of one size, predicted and measured, in this process."""
    import torch

    from sevenfold.conformance._kit import peak_bytes
    from sevenfold.data.loader import gather
    from sevenfold.training.estimate import estimate, shape_of
    from sevenfold.training.hardware import Hardware
    from sevenfold.training.plan import resized
    from sevenfold.training.prepare import prepare
    from sevenfold.training.recipe import read_recipe
    from sevenfold.training.step import take_step

    hardware = Hardware.here(torch.device("cpu"))
    recipe = resized(read_recipe(name, [f"train.batch={batch}", f"train.precision={precision}"]), width, depth)
    ready = prepare(recipe)
    data = gather([ready.train[(0, index)] for index in range(batch)])[0]
    settings, objective = ready.recipe.train, ready.objective.train()
    told = estimate(objective, shape_of(data), settings, precision, hardware)
    before = high_water() - told.memory["weights"]
    optimizer = settings.optimizer.build(dict(objective.named_parameters()), objective.cares())
    times = []
    for step in range(steps):
        clock = time.perf_counter()
        take_step(objective, optimizer, data, settings, precision, 0, step, 0.01)
        times.append(time.perf_counter() - clock)
    process = high_water() - before
    held = sum(tensor.nbytes for tensor in (*objective.parameters(), *objective.buffers()))
    held += sum(state.nbytes for state in optimizer.tensors().values()) + batch * shape_of(data).bytes
    peak = held + peak_bytes(lambda: take_step(objective, optimizer, data, settings, precision, 0, steps, 0.01))
    return {
        "peak_told": told.peak, "peak": peak, "process": process,
        "seconds_told": told.seconds or 0.0, "seconds": statistics.median(times[2:]), "parameters": told.parameters,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="processes per row")
    parser.add_argument("--steps", type=int, default=8, help="steps per process; the first two are not timed")
    parser.add_argument("--only", help="rows whose recipe has this in its name")
    parser.add_argument("--out", help="write all figures as JSON")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(row(*json.loads(args.row), args.steps)))
        return
    print(
        "| recipe | width x depth, batch | numbers | peak told | peak | ratio | process | ratio | ms told | ms (least - most) | ratio |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    found = []
    for name, _, width, depth, batch in ROWS:
        if args.only and args.only not in name:
            continue
        for precision in ("fp32", "bf16"):
            made = []
            for _ in range(args.repeats):
                given = json.dumps([name, width, depth, batch, precision])
                command = [sys.executable, __file__, "--row", given, "--steps", str(args.steps)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                made.append(json.loads(done.stdout.splitlines()[-1]))
            mid = {key: statistics.median(one[key] for one in made) for key in made[0]}
            times = sorted(1e3 * one["seconds"] for one in made)
            mib = {key: mid[key] / 2**20 for key in ("peak_told", "peak", "process")}
            print(
                f"| {name} | {width} x {depth}, {batch} | {precision} | {mib['peak_told']:.1f} MiB | {mib['peak']:.1f} MiB "
                f"| {mid['peak_told'] / mid['peak']:.2f} | {mib['process']:.1f} MiB | {mid['peak_told'] / mid['process']:.2f} "
                f"| {1e3 * mid['seconds_told']:.1f} | {1e3 * mid['seconds']:.1f} ({times[0]:.1f} - {times[-1]:.1f}) "
                f"| {mid['seconds_told'] / mid['seconds']:.2f} |",
                flush=True,
            )
            found.append(
                {"recipe": name, "width": width, "depth": depth, "batch": batch, "precision": precision, "runs": made}
            )
    worst = {
        what: sorted(
            statistics.median(one[f"{key}_told"] for one in item["runs"])
            / statistics.median(one[key] for one in item["runs"])
            for item in found
        )
        for what, key in (("peak", "peak"), ("time", "seconds"))
    }
    for what, ratios in worst.items():
        print(
            f"\n{what}: predicted / measured {ratios[0]:.2f} to {ratios[-1]:.2f}, median {statistics.median(ratios):.2f}"
        )
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
