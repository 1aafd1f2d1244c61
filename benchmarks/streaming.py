"""Tokens from a slow place elsewhere: what a step waits for them, and how many bytes come, while few files are kept here.

pip install fsspec aiohttp
python benchmarks/streaming.py [--tokens 40000000] [--rate 10] [--step 0.02]

A server on this machine gives a prepared set of 40 files at so many MB/s at most. It is read by the trainer's loader in steps that
take `--step` seconds of other work, in three ways: from the disk; through a cache of 8 files, the next ones fetched ahead; and so,
but without fetching ahead.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.core.files import known_by
from sevenfold.core.part import find
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.kept import Far
from sevenfold.data.loader import Order, Samples, load
from sevenfold.data.sharded import write_array
from sevenfold.data.streamed import Streamed
from sevenfold.data.windows import Windows

FILES, KEPT, LENGTH, BATCH = 40, 8, 1024, 16


def written(folder: Path, tokens: int) -> int:
    """A prepared set of random tokens; bytes of its largest file."""
    find("source", "shards").example(folder)
    told = json.loads((folder / "manifest.json").read_text())
    size = tokens // FILES
    shards = []
    for number in range(FILES):
        name = f"train-{number:05d}.npy"
        draw = numpy_generator("streaming", number)
        told["files"][name] = write_array(folder / name, draw.integers(0, 256, size, dtype=np.uint16))._asdict()
        shards.append({"name": name, "tokens": size})
    begins = np.arange(0, size * FILES, 2 * LENGTH)
    for what in ("samples", "documents"):
        write_array(folder / f"train.{what}.npy", begins)
        told["files"][f"train.{what}.npy"] = known_by(folder / f"train.{what}.npy")
    told["train"] = {"samples": len(begins), "documents": len(begins), "tokens": size * FILES, "shards": shards}
    (folder / "manifest.json").write_text(json.dumps(told))
    return int(told["files"]["train-00000.npy"]["size"])


def served(folder: Path, rate: float) -> tuple[str, list[int]]:
    """(the URL of a folder, bytes that were sent), at most `rate` bytes a second."""
    sent = [0]

    class Slow(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            while piece := source.read(1 << 16):
                outputfile.write(piece)
                sent[0] += len(piece)
                time.sleep(len(piece) / rate)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Slow, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}", sent


def laid(path: str, cache: int, group: int) -> Samples:
    source = find("source", "shards").Config(path=path, cache=cache, group=group).build()
    line = source.line(source.split()[0])
    lay = functools.partial(Windows, stream="text", length=LENGTH, seed=0, views=True)
    return Streamed(line, line.files.group, LENGTH, 0, True, lay, functools.partial(Windows.count_of, length=LENGTH))


def waits(data: Samples, step: float) -> list[float]:
    """Seconds that each step of an epoch waits."""
    found, began = [], time.perf_counter()
    for _ in load(data, Order(len(data), BATCH, 0, 0, len(data) // BATCH, arranged=data.arranged), 0):
        found.append(time.perf_counter() - began)
        time.sleep(step)
        began = time.perf_counter()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=40_000_000)
    parser.add_argument("--rate", type=float, default=10, help="MB/s of the server")
    parser.add_argument("--step", type=float, default=0.02, help="seconds of other work in a step")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "set"
        folder.mkdir()
        largest = written(folder, args.tokens)
        url, sent = served(folder, args.rate * 1e6)
        group = KEPT - 3
        ahead = Far.ahead
        for name, path, fetched in (
            ("from the disk", str(folder), True),
            ("streamed", url, True),
            ("streamed, nothing fetched ahead", url, False),
        ):
            os.environ["SEVENFOLD_DATA"] = str(Path(base) / name)
            Far.ahead = ahead if fetched else lambda self, paths: None  # type: ignore[method-assign]
            sent[0], began = 0, time.perf_counter()
            found = waits(laid(path, KEPT * largest, group), args.step)
            took = time.perf_counter() - began
            kept = sum(file.stat().st_size for file in Path(base, name).rglob("train-*.npy"))
            print(
                f"{name:<32} {len(found)} steps in {took:6.1f} s; wait: first {found[0]:.3f} s, median "
                f"{1e3 * statistics.median(found):.2f} ms, 99 % {1e3 * float(np.percentile(found[1:], 99)):.1f} ms, all "
                f"{sum(found):.1f} s; {sent[0] / 1e6:.0f} MB came of {FILES * largest / 1e6:.0f}, {kept / 1e6:.0f} are kept"
            )


if __name__ == "__main__":
    main()
