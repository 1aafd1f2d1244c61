"""Ranges that random amounts are drawn from: two numbers, the least and the largest."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def _share(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1] <= 1:
        raise ValueError(f"{list(pair)} is no range of shares: give [least, largest], above 0 and at most 1")
    return pair


def _positive(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1] <= 1000:
        raise ValueError(f"{list(pair)} is no range: give [least, largest], above 0 and at most 1000")
    return pair


Shares = Annotated[tuple[float, float], AfterValidator(_share)]
"""0 < least <= largest <= 1"""
Range = Annotated[tuple[float, float], AfterValidator(_positive)]
"""0 < least <= largest <= 1000"""
