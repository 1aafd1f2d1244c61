"""Every file of every room keeps its contract. Nothing here names a part: a new file is found, and checked, by itself."""

from __future__ import annotations

import pytest

from sevenfold import conformance
from sevenfold.core.rooms import ROOMS, kinds

CASES = [
    pytest.param(room, kind, name, id=f"{room}-{kind}-{name}")
    for room in ROOMS
    for kind in kinds(room)
    for name in conformance.checks_for(room)
]


@pytest.mark.parametrize(("room", "kind", "name"), CASES)
def test_contract(room, kind, name):
    result = conformance.check(room, kind, name)
    assert result.ok, result.message
    if result.skipped_why:
        pytest.skip(result.skipped_why)
