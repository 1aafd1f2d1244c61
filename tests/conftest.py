"""For all tests: one thread each, here and in the processes that they start; which of them one worker of xdist has to itself."""

from __future__ import annotations

import os

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file goes to one worker, which then makes what its tests share once; files with the most tests go first. The thousands of
    test_rooms.py share nothing: they are handed out one by one at the end, so that all workers end together."""
    for item in items:
        if item.path.name != "test_rooms.py" and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
