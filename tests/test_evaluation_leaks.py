"""Positive controls of the leak audit: copies, crops, reverse complements and edits are planted, and must be found."""

from __future__ import annotations

import numpy as np
import pytest

from sevenfold.core.part import find
from sevenfold.evaluation.leaks import HASHES, audit, by_containment, by_jaccard, shared
from sevenfold.modality._features import shingles

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def modality(kind: str):
    return find("modality", kind).Config().build()


def found(kind: str, train: list, test: list) -> dict[int, tuple[int, bool]]:
    """Test item → (training item, whether exact)."""
    names = [f"train {i}" for i in range(len(train))], [f"test {i}" for i in range(len(test))]
    return {leak.test: (leak.train, leak.exact) for leak in audit(modality(kind), train, test, names).found}


def letters(draw, alphabet: str, length: int) -> str:
    return "".join(draw.choice(list(alphabet), length))


def edited(draw, text: str, alphabet: str, share: float) -> str:
    places = draw.choice(len(text), round(share * len(text)), replace=False)
    return "".join(letters(draw, alphabet, 1) if i in places else letter for i, letter in enumerate(text))


def words(draw, count: int) -> str:
    return " ".join(draw.choice(VOCABULARY, count))


VOCABULARY = [letters(np.random.default_rng(i), "abcdefghijklmnopqrstuvwxyz", 3 + i % 6) for i in range(400)]


PLANTS = {
    "dna": {
        "copy": lambda draw, x: x,
        "crop": lambda draw, x: x[20:70],
        "other strand": lambda draw, x: x.translate(COMPLEMENT)[::-1],
        "crop of the other strand": lambda draw, x: x.translate(COMPLEMENT)[::-1][30:90],
        "1 % of the bases": lambda draw, x: edited(draw, x, "ACGT", 0.01),
    },
    "protein": {
        "copy": lambda draw, x: x,
        "crop": lambda draw, x: x[20:70],
        "3 % of the residues": lambda draw, x: edited(draw, x, "ACDEFGHIKLMNPQRSTVWY", 0.03),
    },
    "text": {
        "copy": lambda draw, x: x,
        "case and spaces": lambda draw, x: x.upper().replace(" ", "  "),
        "a word more": lambda draw, x: x + " indeed",
        "two letters": lambda draw, x: edited(draw, x, "abc", 2 / len(x)),
    },
    "image": {
        "copy": lambda draw, x: x,
        "noise": lambda draw, x: (x + draw.normal(0, 2, x.shape)).clip(0, 255).astype(np.uint8),
        "brighter": lambda draw, x: (x * 1.03).clip(0, 255).astype(np.uint8),
    },
    "series": {
        "copy": lambda draw, x: x,
        "noise": lambda draw, x: (x + draw.normal(0, 0.02, x.shape)).astype(np.float32),
    },
}
MAKE = {
    "dna": lambda draw: letters(draw, "ACGT", 120),
    "protein": lambda draw: letters(draw, "ACDEFGHIKLMNPQRSTVWY", 120),
    "text": lambda draw: words(draw, 25),
    "image": lambda draw: draw.integers(0, 256, (8, 8, 1)).astype(np.uint8),
    "series": lambda draw: draw.normal(size=64).cumsum().astype(np.float32),
}
CASES = [(kind, plant) for kind, plants in PLANTS.items() for plant in plants]


@pytest.mark.parametrize(("kind", "plant"), CASES, ids=str)
def test_what_is_planted_is_found(kind, plant):
    """1 % of the test items are made from training items: at least 95 % of them over ten tries are found, each with the item that it is
    from, and nothing else."""
    draw = np.random.default_rng(0)
    right = wrong = 0
    for _ in range(10):
        train = [MAKE[kind](draw) for _ in range(60)]
        test = [MAKE[kind](draw) for _ in range(99)]
        planted = {99: int(draw.integers(60))}
        test += [PLANTS[kind][plant](draw, train[from_]) for from_ in planted.values()]
        leaks = found(kind, train, test)
        right += sum(leaks.get(at, (-1,))[0] == from_ for at, from_ in planted.items())
        wrong += len(leaks.keys() - planted.keys())
        if plant == "copy":
            assert all(leaks[at][1] for at in planted)
    assert right >= 0.95 * 10 and wrong == 0


def test_minhash_finds_what_all_pairs_find():
    """Against true Jaccard of all pairs, over texts that share between nothing and all."""
    draw = np.random.default_rng(1)
    train = [words(draw, 20) for _ in range(40)]
    test = [
        " ".join([*x.split()[: int(draw.integers(0, 21))], words(draw, int(draw.integers(1, 6)))]) for x in train * 2
    ]
    a, b = ([shingles(one, 5) for one in some] for some in (train, test))

    def jaccard(x, y):
        return shared(x, y) / (len(x) + len(y) - shared(x, y))

    wanted = {i for i, x in enumerate(b) if max(jaccard(x, y) for y in a) >= 0.8}
    assert 5 < len(wanted) < 75
    assert {leak.test for leak in by_jaccard(a, b, 0)} == wanted


def test_a_k_mer_of_everything_gives_nothing_away():
    """Every sequence begins alike; what is common to all is a fifth of each, so no two are near."""
    draw = np.random.default_rng(2)
    head = letters(draw, "ACGT", 20)
    train, test = ([head + letters(draw, "ACGT", 80) for _ in range(100)] for _ in range(2))
    assert found("dna", train, test) == {}


def test_short_and_odd_items():
    assert found("text", ["ok"], ["ok", "OK", "no"]) == {0: (0, True), 1: (0, False)}
    assert found("dna", ["NNNNNNNNNNNNNNNN"], ["NNNNNNNNNNNNNNNNNN"]) == {}
    same = np.zeros((8, 8, 1), np.uint8)
    assert found("image", [same], [same + np.uint8(1)]) == {}  # training items that do not vary say nothing of distance
    assert by_containment([], [np.arange(3, dtype=np.uint64)]) == []


def test_sizes_are_bounded(monkeypatch):
    """With a hundredth of the hashes, copies and crops of long sequences are found all the same."""
    draw = np.random.default_rng(3)
    train = [letters(draw, "ACGT", 3000) for _ in range(10)]
    test = [x[500:2500] for x in train] + [letters(draw, "ACGT", 2000) for _ in range(10)]
    assert HASHES >= 1_000_000
    monkeypatch.setattr("sevenfold.evaluation.leaks.HASHES", 500)
    assert found("dna", train, test).keys() == set(range(10))
