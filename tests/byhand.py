"""Losses by the book, one number at a time."""

from __future__ import annotations

import math


def log_softmax(logits):
    """Of a list of floats, by the book."""
    top = max(logits)
    total = math.log(sum(math.exp(value - top) for value in logits)) + top
    return [value - total for value in logits]


def nats(logits, target, smoothing=0.0):
    logs = log_softmax(logits.tolist())
    return -(1 - smoothing) * logs[target] - smoothing * sum(logs) / len(logs)
