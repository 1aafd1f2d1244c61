"""What every learning-rate schedule must do: see the contract in sevenfold.training.schedule."""

from __future__ import annotations

from typing import Any

from sevenfold.conformance._kit import expect

RUNS = (1, 2, 10, 1000)


def check_range(config: Any) -> None:
    """A pure function of the step, from 0 to 1, for short and long runs."""
    for warmup in (0, 1, 5, 0.02, 0.5):
        first, second = (config.replace(warmup=warmup).build() for _ in range(2))
        for steps in RUNS:
            factors = [first.factor(step, steps) for step in range(steps)]
            again = [second.factor(step, steps) for step in reversed(range(steps))][::-1]
            expect(factors == again, "the same step has two factors")
            expect(all(0 <= factor <= 1 + 1e-12 for factor in factors), f"{steps} steps: a factor is not in 0 … 1")
            expect(factors[0] > 0, f"{steps} steps, warmup {warmup}: the first step does nothing")


def check_warmup(config: Any) -> None:
    """It rises during the warm-up, by a number of steps or a share of the run, and then reaches 1."""
    for warmup, rise in ((10, 10), (0.1, 10)):
        schedule = config.replace(warmup=warmup).build()
        factors = [schedule.factor(step, 100) for step in range(100)]
        expect(all(a < b for a, b in zip(factors[:rise], factors[1 : rise + 1])), f"warmup {warmup}: does not rise")
        expect(abs(max(factors) - 1) < 1e-9, f"warmup {warmup}: reaches {max(factors):.3f}, not 1")


def check_floor(config: Any) -> None:
    """It ends at the floor, and is never below it after the warm-up."""
    for floor in (0.0, 0.1, 1.0):
        schedule = config.replace(floor=floor, warmup=0).build()
        factors = [schedule.factor(step, 1000) for step in range(1001)]
        expect(abs(factors[-1] - floor) < 1e-9, f"floor {floor}: ends at {factors[-1]:.3f}")
        expect(abs(factors[-2] - floor) < 0.02, f"floor {floor}: the last step is at {factors[-2]:.3f}")
        expect(min(factors) >= floor - 1e-9, f"floor {floor}: falls to {min(factors):.3f}")
