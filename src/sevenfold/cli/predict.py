"""What an adapted or supervised model says of every sample of a file: classes with probabilities, labels, numbers.

sevenfold predict runs/probe digits -o predictions.csv

The ending of the output says how it is written: .csv, .jsonl or .parquet (needs the extra `parquet`). Columns: where (file and
offset), the prediction under the name of the target, and a probability for every class (p_CLASS). Samples that cannot be
read are left out and counted.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path
from typing import Any

from sevenfold.core.errors import ConfigError, need_extra
from sevenfold.core.files import write_atomic

ENDINGS = (".csv", ".jsonl", ".parquet")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="an adapted or supervised run, a published classifier, or the id of one"
    )
    parser.add_argument(
        "data", metavar="DATA", help="a file or folder, or the kind of a source that needs none (digits)"
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="where to: .csv, .jsonl or .parquet")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="samples at a time (default: 64)")


def run(args: argparse.Namespace) -> int:
    from sevenfold.adaptation.predict import predict

    out = Path(args.out)
    if out.suffix not in ENDINGS:
        raise ConfigError(f"{out}: the ending says how to write; known: {', '.join(ENDINGS)}")
    if args.batch < 1:
        raise ConfigError(f"--batch: at least 1, not {args.batch}")
    found = predict(args.run, args.data, args.batch)
    rows = [
        {"where": where, found.target: _plain(value), **_scores(found, place)}
        for place, (where, value) in enumerate(zip(found.where, found.values))
    ]
    _write(out, rows)
    print(f"{len(rows):,} predictions of {found.target!r}: {out}")
    if found.bad:
        print(f"{len(found.bad):,} samples could not be read, the first is {found.bad[0][0]}: {found.bad[0][1]}")
    return 0


def _scores(found: Any, place: int) -> dict[str, float]:
    if found.classes is None or found.scores[place].ndim > 1:
        return {}
    return {f"p_{name}": float(f"{score:.6g}") for name, score in zip(found.classes, found.scores[place])}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ";".join(map(str, value))
    return value.item() if hasattr(value, "item") else value


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    if out.suffix == ".parquet":
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            need_extra("pyarrow", "parquet", error)
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        write_atomic(out, file.getvalue())
    elif out.suffix == ".jsonl":
        write_atomic(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(out, text.getvalue())
