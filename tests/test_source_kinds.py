"""Sources of clouds, series, tables and actions: which array is what, which table is a row, episodes in lines, made-up data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.part import find
from sevenfold.data.recognise import recognise
from sevenfold.data.source.cart_pole import GRAVITY, HALF, POLE, TOTAL, pace

DRAW = np.random.default_rng(0)


def make(kind, **config):
    return find("source", kind).Config(**config).build()


# Which array is what


@pytest.mark.parametrize(
    ("array", "kind", "shape"),
    [
        (DRAW.normal(size=(9, 20, 3)), "points", (20, 3)),
        (DRAW.random((9, 20, 3)), "points", (20, 3)),
        (DRAW.normal(size=(9, 24, 5)), "series", (24, 5)),
        (DRAW.normal(size=(9, 24)).astype(np.float32), "series", (24,)),
        (DRAW.integers(0, 99, (9, 24)), "series", (24,)),
        (DRAW.random((9, 24, 5)), "image", (24, 5, 1)),
        (DRAW.integers(0, 255, (9, 20, 3)), "image", (20, 3, 1)),
        (DRAW.random((9, 3, 3)), "image", (3, 3, 1)),
    ],
)
def test_arrays_are_told_by_shape_and_range(tmp_path, array, kind, shape):
    np.savez(tmp_path / "a.npz", it=array, label=np.arange(9) % 3)
    source = make("arrays", path=str(tmp_path / "a.npz"))
    assert source.fields == {"it": kind, "label": "label"}
    item = source[2]["it"]
    assert item.shape == shape
    if kind != "image":
        assert item.dtype == np.float32 and np.allclose(item, array[2])
        assert any(
            f"read as {'clouds of 20 points' if kind == 'points' else 'series of 24'}" in n for n in source.notes
        )


def test_the_recipe_says_what_an_array_is(tmp_path):
    np.savez(tmp_path / "a.npz", x=DRAW.random((9, 20, 3)), y=DRAW.normal(size=(9, 4)))
    path = str(tmp_path / "a.npz")
    assert make("arrays", path=path, fields={"x": "image"})[0]["x"].shape == (20, 3, 1)
    assert make("arrays", path=path, fields={"x": "series", "y": "series"})[0]["y"].shape == (4,)
    assert make("arrays", path=path).fields == {"x": "points"}
    with pytest.raises(DataError, match="'y' cannot be read as 'points'"):
        make("arrays", path=path, fields={"y": "points"})


def test_what_may_be_a_picture_is_not_taken_for_a_series(tmp_path):
    np.save(tmp_path / "a.npy", DRAW.normal(size=(9, 8, 8)))
    with pytest.raises(DataError, match=r"in 0…1: rescale it, or say fields: \{data: series\}") as caught:
        make("arrays", path=str(tmp_path / "a.npy"))
    assert "\n" not in str(caught.value)
    np.savez(tmp_path / "b.npz", image=DRAW.random((9, 8, 8)), vectors=DRAW.normal(size=(9, 64)))
    assert make("arrays", path=str(tmp_path / "b.npz")).fields == {"image": "image"}
    np.save(tmp_path / "c.npy", DRAW.normal(size=(9, 8)))
    with pytest.raises(DataError, match="holds nothing to read.*series"):
        make("arrays", path=str(tmp_path / "c.npy"))


# Which table is a row


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("kind,height\n" + "".join(f"{'ab'[n % 2]},{n}.5\n" for n in range(30)), "rows"),
        ("1.5,2,7\n" * 30, "rows"),
        ("id,text\n" + "".join(f"{n},sentence number {n} of all\n" for n in range(30)), "csv"),
        ("id,height,kind\n" + "".join(f"tree-{n},{n}.5,{'ab'[n % 2]}\n" for n in range(30)), "csv"),
        ("sequence,label\n" + "".join(f"ACGTACGTACGTACGT{'ACGT'[n % 4]},{n % 2}\n" for n in range(30)), "csv"),
        ("smiles,logS\n" + "".join(f"{'C' * (n + 1)}O,{n}.5\n" for n in range(30)), "csv"),
        ("height\n" + "".join(f"{n}.5\n" for n in range(30)), "csv"),
        ("date,load\n" + "".join(f"2020-01-{n + 1:02},{n}\n" for n in range(30)), "series"),
    ],
)
def test_a_table_of_numbers_and_few_words_is_rows_and_any_other_csv(tmp_path, text, kind):
    (tmp_path / "a.csv").write_text(text)
    config = recognise(tmp_path / "a.csv")
    assert config.kind == kind
    if kind == "rows":
        assert any("kind: csv reads a field for each column" in note for note in config.build().notes)


def test_rows_of_a_parquet_file(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"kind": "ab"[n % 2], "height": n / 2 if n % 5 else None, "old": n > 9} for n in range(30)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=7)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, other = (make("rows", path=str(tmp_path / f"a.{ending}")) for ending in ("parquet", "jsonl"))
    assert [one[n] for n in range(30)] == [other[n] for n in range(30)]
    assert one[10] == {"row": {"kind": "a", "height": None, "old": "True"}} and len(one) == 30
    assert make("rows", path=str(tmp_path / "a.parquet"), target="kind", limit=3)[1] == {
        "row": {"height": 0.5, "old": "False"},
        "kind": "b",
    }
    assert recognise(tmp_path / "a.parquet").kind == "parquet"


# Episodes


def test_actions_stand_behind_what_was_seen(tmp_path):
    obs = np.arange(24, dtype=np.float32).reshape(12, 2)
    np.savez(tmp_path / "a.npz", acts=np.arange(10), obs=obs, indices=np.array([4]))
    made = make("rollouts", path=str(tmp_path / "a.npz"), join=True)
    assert made.fields == {"actions": "actions"}
    assert np.array_equal(made[0]["actions"], np.column_stack([obs[:4], np.arange(4)]))
    assert np.array_equal(made[1]["actions"], np.column_stack([obs[5:11], np.arange(4, 10)]))
    np.savez(tmp_path / "b.npz", acts=np.arange(10))
    with pytest.raises(DataError, match="no observations for join"):
        make("rollouts", path=str(tmp_path / "b.npz"), join=True)


def test_steps_in_lines_of_two_agents(tmp_path):
    steps = [([0, 0], "stay"), ([1, 0], [0, 0]), ("stay", [1, 0]), ([0, 0], "stay"), ([1, 0], "stay")]
    lines = [{"trial": n // 3, "joint_action": list(pair), "reward": n} for n, pair in enumerate(steps)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made = make("rollouts", path=str(tmp_path / "a.jsonl"), action="joint_action", episode="trial")
    assert made.fields == {"actions": "actions", "return": "number"}
    assert made[0]["actions"].tolist() == [[1, 0], [2, 1], [0, 2]] and made[1]["actions"].tolist() == [[1, 0], [2, 0]]
    assert made[0]["return"] == 3 and '0 "stay", 1 [0, 0], 2 [1, 0]' in made.notes[0]
    (tmp_path / "a.jsonl").write_text('{"action": 1}\n{"action": [1, 2]}\n')
    with pytest.raises(DataError, match="1 and 2 entries"):
        make("rollouts", path=str(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text('{"action": 1.5}\n{broken\n')
    with pytest.raises(DataError, match=r"a.jsonl:2: is not JSON"):
        make("rollouts", path=str(tmp_path / "a.jsonl"))


# Made-up data


def test_the_cart_gains_the_energy_that_the_push_gives():
    """dE/dt = F v, with E of a cart and a uniform rod of length 2 l (moment of inertia 4/3 m l^2 about its end)."""
    for state, force in zip(DRAW.normal(size=(50, 4)), DRAW.normal(0, 10, 50)):
        _, v, angle, turning = state
        sine, cosine = np.sin(angle), np.cos(angle)
        slope = np.array([
            0.0,
            TOTAL * v + POLE * HALF * turning * cosine,
            -POLE * HALF * v * turning * sine - POLE * GRAVITY * HALF * sine,
            POLE * HALF * v * cosine + 4 / 3 * POLE * HALF**2 * turning,
        ])  # fmt: skip
        assert slope @ pace(state, force) == pytest.approx(force * v, abs=1e-10)


def test_the_pole_stays_up():
    rows = np.stack([make("cart_pole", samples=20, size=200)[index]["actions"] for index in range(20)])
    assert np.abs(rows[:, :, 2]).max() < 0.5 and set(np.unique(rows[:, :, 4])) == {0, 1}


def test_nuclei_are_as_bright_as_the_markers_of_all_cells_together():
    source = make("tissue", samples=60)
    pixels = np.concatenate([source[index]["micrograph"].pixels.reshape(-1, 4) for index in range(60)]).astype(float)
    away = (pixels[:, 0] - 2) - (pixels[:, 1:].sum(1) - 6)
    assert abs(away.mean()) < 4 * away.std() / len(away) ** 0.5
    assert pixels[:, 1:].mean() > 5


def test_a_sound_that_says_an_absurd_rate_is_refused(tmp_path):
    config = find("source", "audio").example(tmp_path)
    file = sorted(tmp_path.rglob("*.wav"))[0]
    head = bytearray(file.read_bytes())
    head[24:28] = (4_000_000_007).to_bytes(4, "little")
    file.write_bytes(head)
    with pytest.raises(BadSample, match="4,000,000,007 samples a second; read are 100 to 768,000"):
        config.build()[0]
    head[24:28] = (767_957).to_bytes(4, "little")  # a prime: the ratio to 8,000 is rounded
    file.write_bytes(head)
    assert len(config.build()[0]["audio"]) == pytest.approx(800 * 8000 / 767_957, abs=1)
