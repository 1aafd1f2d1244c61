"""Every family's config.json, one setting changed at a time: a model, or one clear line; never a traceback, never a long wait."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sevenfold as sf
from sevenfold.core.rooms import kinds

sys.path.insert(0, str(Path(__file__).parent / "e2e"))
from test_round_trips import published, twins_of

WRONG = [None, -1, 0, 1, 3, 7, 10**9, 2**70, 0.5, -1e300, "", "x", "silu", True, [], [1, 2], ["x"], {}, {"a": 1}]
TRIES = 60


def places(config: Any, path: tuple = ()) -> list[tuple]:
    """Every place in a config, inner ones too."""
    found = []
    for key, value in config.items():
        found.append((*path, key))
        if isinstance(value, dict):
            found += places(value, (*path, key))
    return found


def changed(config: dict[str, Any], path: tuple, value: Any) -> dict[str, Any]:
    head, *rest = path
    return {**config, head: changed(config[head], tuple(rest), value) if rest else value}


def said(folder: Path) -> str | None:
    """The one line with which a folder is refused; None if it is read. Other errors go through."""
    try:
        sf.load_published(folder)
    except sf.SevenfoldError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", kinds("family"))
def test_one_setting_changed(kind, tmp_path):
    name = next(iter(twins_of(kind)))
    published(kind, name, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    draw, refused = random.Random(0), 0
    for _ in range(TRIES):
        place, value = draw.choice(places(config)), draw.choice(WRONG)
        path.write_text(json.dumps(changed(config, place, value)))
        began = time.perf_counter()
        told = said(tmp_path)
        refused += told is not None
        assert told is None or ("\n" not in told and len(told) < 600), (place, value, told)
        assert time.perf_counter() - began < 10, (place, value)
    assert refused > TRIES / 10
