"""Tables: quantile bins against ranks, missing and unknown cells, files, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from sevenfold.core.errors import BadSample, CheckpointError, DataError
from sevenfold.core.part import find

DRAW = np.random.default_rng(0)
ROWS = [{"kind": "abc"[n % 3], "size": float(DRAW.normal()), "age": n % 7} for n in range(300)]


def fitted(rows=ROWS, **settings):
    made = find("tokenization", "row").Config(**settings).build()
    made.fit(rows)
    return made


def test_bins_hold_equally_many_rows():
    """300 different sizes in 10 bins: the bin is the tenth in which the rank is."""
    sizes = np.array([row["size"] for row in ROWS])
    made = fitted(bins=10)
    ids = np.array([made.encode(row).values[1] for row in ROWS])
    assert np.array_equal(ids - ids.min(), sizes.argsort().argsort() // 30)


def test_cells_come_back():
    made = fitted(bins=16)
    for row in ROWS[:20]:
        tokens = made.encode(row)
        assert tokens.coords[:, 0].tolist() == [0, 1, 2]
        back = made.decode(*tokens[:2])
        assert (back["kind"], back["age"]) == (row["kind"], row["age"])
        assert made.encode(back).values.tolist() == tokens.values.tolist()
    assert made.piece(int(made.encode(ROWS[0]).values[0])) == "kind=a"


def test_order_of_columns_missing_and_unknown_cells():
    made = fitted()
    row = ROWS[3]
    assert made.encode(dict(reversed(row.items()))).values.tolist() == made.encode(row).values.tolist()
    lost = made.encode({"kind": None, "age": float("nan")}).values
    assert [made.piece(int(id)) for id in lost] == ["kind=missing", "size=missing", "age=missing"]
    strange = made.encode({"kind": "zebra", "size": "large", "age": 1e9})
    assert made.unknown(strange.values).tolist() == [True, True, False]
    assert made.decode(strange.values)["kind"] == "<unknown>"
    modality = find("modality", "table").Config().build()
    modality.tokenizer = made
    assert modality.summary([{"kind": "zebra"}, {"kind": "zebra"}])["never trained on"] == "kind='zebra' 2"


def test_rare_words_are_unknown():
    rows = [{"word": word} for word in ["a"] * 5 + ["b"] * 3 + ["c"]]
    made = fitted(rows, categories=2)
    assert made.columns["word"] == ["a", "b"] and made.unknown(made.encode({"word": "c"}).values).all()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({}, "a row is a dict"),
        ({"kind": float("inf")}, "must be finite"),
        ({"kind": [1]}, "is list, not a word"),
        ({"knid": "a"}, "did you mean 'kind'"),
        ("row", "a row is a dict"),
    ],
)
def test_bad_rows_are_told(wrong, why):
    with pytest.raises(ValueError, match=why) as caught:
        fitted().encode(wrong)
    assert "\n" not in str(caught.value)


def test_what_is_typed_is_a_row():
    modality = find("modality", "table").Config().build()
    wanted = {"kind": "a", "size": 1.5}
    assert modality.typed("kind=a, size=1.5") == modality.typed('{"kind": "a", "size": 1.5}') == wanted
    with pytest.raises(ValueError, match="column=value"):
        modality.typed("hello")


def test_damaged_files_are_told(tmp_path):
    made = fitted()
    made.save(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    whole = file.read_text()
    for change, why in (('["a", "b", "c"]', '["a", "a"]'), ('"name": "age"', '"name": "kind"')):
        file.write_text(whole.replace(change, why))
        with pytest.raises(CheckpointError, match=r"twice|no name of its own"):
            made.config.build().restore(tmp_path)


def test_rows_of_a_file(tmp_path):
    path = tmp_path / "a.csv"
    words = "a long sentence that is different in every row, number"
    path.write_text("species,mass,note\n" + "".join(f"{'xy'[n % 2]},{n if n % 4 else 'NA'},{words} {n}\n" for n in range(40)).replace(", number", ""))  # fmt: skip
    source = find("source", "rows")
    made = source.Config(path=str(path)).build()
    assert made[0]["row"] == {"species": "x", "mass": None} and made[1]["row"] == {"species": "y", "mass": 1.0}
    assert (
        made.notes[-1] == f"{path}: left out: 'note'" and "kind: csv" in made.notes[0] and source.recognises(path) == 0
    )
    labelled = source.Config(path=str(path), target="species").build()
    assert labelled.fields == {"row": "table", "species": "label"} and labelled[1] == {
        "row": {"mass": 1.0},
        "species": "y",
    }
    with pytest.raises(BadSample, match="'mass' is missing"):
        source.Config(path=str(path), target="mass").build()[0]
    with pytest.raises(DataError, match="did you mean 'species'"):
        source.Config(path=str(path), target="specie").build()
    lines = tmp_path / "a.jsonl"
    lines.write_text(
        "".join(f'{{"a": {n}, "b": {"null" if n == 2 else chr(34) + "xy"[n % 2] + chr(34)}}}\n' for n in range(20))
    )
    assert source.Config(path=str(lines)).build()[2] == {"row": {"a": 2.0, "b": None}}
