"""Random windows of tokens from a memory map: ours, as nanoGPT reads them, and PyTorch's loader over the same map.

python benchmarks/windows.py [--tokens 200000000] [--rounds 7]

Each reader gives batches of windows as int64 tensors, at random places of a prepared folder (uint16). They alternate; a figure is
the median over rounds, in million tokens a second, with the least and the most. nanoGPT's reader makes inputs and targets, two
windows for each: it is counted with the tokens of one (as training consumes them) and, in brackets, of both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sevenfold.core.seeds import numpy_generator
from sevenfold.data.line import Line
from sevenfold.data.loader import Order, load
from sevenfold.data.windows import Windows


class OneByOne(Dataset):
    """A window at a time, as most loaders ask for it."""

    def __init__(self, path: Path, length: int):
        self.path, self.length = path, length
        self.values: np.ndarray | None = None

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, place: int) -> torch.Tensor:
        if self.values is None:
            self.values = np.load(self.path, mmap_mode="r")
        start = int(numpy_generator("windows", place).integers(0, len(self.values) - self.length))
        return torch.from_numpy(self.values[start : start + self.length].astype(np.int64))


def readers(path: Path, tokens: int, batch: int, length: int, documents: int) -> dict[str, Callable[[int], None]]:
    """Name → what reads so many batches."""
    one = Windows(Line([path], [tokens], np.zeros(1, np.int64)), "text", length, 0, True)
    begins = np.unique(np.concatenate([[0], numpy_generator("begins").integers(0, tokens, documents)]))
    many = Windows(Line([path], [tokens], begins), "text", length, 0, True)
    values = np.load(path, mmap_mode="r")
    draw = numpy_generator("nanogpt")

    def ours(windows: Windows) -> Callable[[int], None]:
        keys = [[(0, int(p)) for p in draw.integers(0, len(windows), batch)] for _ in range(256)]

        def read(count: int) -> None:
            for step in range(count):
                windows.batch(keys[step % 256])

        return read

    def loaded(count: int) -> None:
        for _ in load(one, Order(len(one), batch, 0, 0, count), 0):
            pass

    def nanogpt(count: int) -> None:
        for _ in range(count):
            places = torch.randint(len(values) - length - 1, (batch,))
            torch.stack([torch.from_numpy(values[i : i + length].astype(np.int64)) for i in places])
            torch.stack([torch.from_numpy(values[i + 1 : i + 1 + length].astype(np.int64)) for i in places])

    def pytorch(count: int) -> None:
        loader = DataLoader(OneByOne(path, length), batch, num_workers=2)
        for step, _ in enumerate(loader, 1):
            if step == count:
                return

    return {
        "ours, one document": ours(one),
        "ours, places and segments of many documents": ours(many),
        "ours, through the loader with its order": loaded,
        "nanoGPT (memmap and stack)": nanogpt,
        "PyTorch DataLoader, 2 workers": pytorch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.npy"
        np.save(path, numpy_generator("tokens").integers(0, 50_000, args.tokens, dtype=np.uint16))
        for batch, length in ((64, 256), (16, 1024), (64, 1024)):
            tried = readers(path, args.tokens, batch, length, args.tokens // 400)
            found: dict[str, list[float]] = {name: [] for name in tried}
            for _ in range(args.rounds):
                for name, read in tried.items():
                    count = 40 if "DataLoader" in name else max(20, (1 << 24) // (batch * length))
                    began = time.perf_counter()
                    read(count)
                    found[name].append(count * batch * length / (time.perf_counter() - began) / 1e6)
            print(f"{batch} windows of {length} tokens")
            for name, rates in found.items():
                both = f" [{2 * statistics.median(rates):,.0f}]" if "nanoGPT" in name else ""
                print(
                    f"  {name:<44} {statistics.median(rates):8,.0f} M tokens/s ({min(rates):,.0f} … {max(rates):,.0f}){both}"
                )


if __name__ == "__main__":
    main()
