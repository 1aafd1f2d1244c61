"""What is to be predicted later is not learned from."""

from __future__ import annotations

import pytest

import sevenfold as sf
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.training.pretrain import planned


@pytest.fixture
def trees(tmp_path):
    lines = [f"{('oak', 'elm', 'fir')[n % 3]},{(n * 7) % 90}.5,{n % 3 * 4 + n % 2}" for n in range(300)]
    (tmp_path / "trees.csv").write_text("\n".join(["species,height,leaves", *lines, ""]))
    return tmp_path / "trees.csv"


def test_a_column_of_a_table(trees, tmp_path):
    """Rows without it; the card finds it. Without --target, the card says how it is left out."""
    run = sf.pretrain(trees, 0.02, tmp_path / "run", target="species", say=lambda line: None, bar=False)
    assert run.recipe.data.target == "species"
    card = sf.evaluate(tmp_path / "run", target="species")
    assert card.rows and "species" not in run.recipe.streams
    sf.pretrain(trees, 0.02, tmp_path / "whole", say=lambda line: None, bar=False)
    with pytest.raises(ConfigError, match="'species' is a column of the rows that the model reads.*--target species"):
        sf.evaluate(tmp_path / "whole", target="species")
    with pytest.raises(DataError, match="no column 'specie'.*species"):
        planned(trees, 0.02, target="specie")


def test_a_field(tmp_path):
    """A field is left out whatever it looks like."""
    lines = [f"the tree number {n} is tall,ACGTACGTTGCA{'ACGT'[n % 4] * 20}" for n in range(200)]
    (tmp_path / "pairs.csv").write_text("\n".join(["words,bases", *lines, ""]))
    learned = {
        target: set(planned(tmp_path / "pairs.csv", 0.02, target=target).recipe.streams) for target in (None, "bases")
    }
    assert learned == {None: {"bases"}, "bases": {"words"}}
    with pytest.raises(ConfigError, match="target: .*has no field 'word'.*words"):
        planned(tmp_path / "pairs.csv", 0.02, target="word")
