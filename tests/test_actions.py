"""Actions: mixed columns, several rates, real times, files, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import KBinsDiscretizer

from sevenfold.core.errors import CheckpointError, DataError
from sevenfold.core.part import find

DRAW = np.random.default_rng(0)
MIXED = [np.stack([DRAW.integers(0, 4, 50), DRAW.normal(size=50)], axis=1) for _ in range(6)]


def fitted(raws=MIXED, **settings):
    made = find("tokenization", "action_bin").Config(**settings).build()
    made.fit(raws)
    return made


@pytest.mark.parametrize(("quantiles", "strategy"), [(False, "uniform"), (True, "quantile")])
def test_bins_are_those_of_scikit_learn(quantiles, strategy):
    every = np.concatenate(MIXED)
    method = {"quantile_method": "linear"} if quantiles else {}
    twin = KBinsDiscretizer(16, encode="ordinal", strategy=strategy, subsample=None, **method).fit(every[:, 1:])
    made = fitted(bins=16, quantiles=quantiles)
    ids = made.encode(MIXED[0]).values.reshape(-1, 2)
    assert np.array_equal(ids[:, 0], MIXED[0][:, 0])
    assert np.array_equal(ids[:, 1] - 4, twin.transform(MIXED[0][:, 1:])[:, 0])
    assert np.allclose(made.decode(ids.reshape(-1))[:, 1], twin.inverse_transform((ids[:, 1:] - 4).astype(float))[:, 0])


def test_discrete_actions_come_back_and_continuous_ones_nearly():
    made = fitted(bins=256)
    tokens = made.encode(MIXED[1])
    back = made.decode(*tokens[:2])
    assert np.array_equal(back[:, 0], MIXED[1][:, 0])
    width = np.ptp(np.concatenate(MIXED)[:, 1]) / 256
    assert np.abs(back[:, 1] - MIXED[1][:, 1]).max() <= width / 2 + 1e-6
    outside = made.encode(np.array([[0, 99.0], [1, -99.0]])).values
    assert outside[1] == made.size - 3 and outside[3] == 4


def test_several_rates_and_real_times():
    raw = MIXED[0].copy()
    raw[1::2, 1] = np.nan
    tokens = fitted(step=0.05).encode(raw)
    assert len(tokens.values) == 75
    assert np.allclose(tokens.coords[tokens.coords[:, 1] == 0, 0], np.arange(50) * 0.05)
    assert np.allclose(tokens.coords[tokens.coords[:, 1] == 1, 0], np.arange(0, 50, 2) * 0.05)
    timed = [np.insert(one, 0, np.cumsum(DRAW.uniform(0.1, 1, 50)), axis=1) for one in MIXED]
    made = fitted(timed, time=0)
    tokens = made.encode(timed[2])
    assert len(tokens.values) == 100 and np.array_equal(np.unique(tokens.coords[:, 0]), timed[2][:, 0])
    back = made.decode(*tokens[:2])
    assert np.allclose(back[:, 0], timed[2][:, 0]) and np.array_equal(back[:, 1], timed[2][:, 1])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (np.zeros((0, 2)), "empty"),
        (np.array([[0, np.inf]]), "infinite"),
        (np.full((2, 2), np.nan), "none at all"),
        (np.zeros((2, 3)), "3 numbers a step"),
        (np.array([[7.0, 0.0]]), "action 7 of column 0 was not in the training data; known: 0, 1, 2, 3"),
        ("left", "not str"),
    ],
)
def test_bad_actions_are_told(wrong, why):
    with pytest.raises(ValueError, match=why) as caught:
        fitted().encode(wrong)
    assert "\n" not in str(caught.value)


def test_times_that_do_not_grow_and_damaged_files_are_told(tmp_path):
    timed = np.array([[0.0, 1.0], [0.0, 2.0]])
    with pytest.raises(ValueError, match="does not grow"):
        fitted([np.array([[0.0, 1.0], [1.0, 2.0]])], time=0).encode(timed)
    made = fitted()
    made.save(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(file.read_text().replace('"edges": [0.5', '"edges": [9.5'))
    with pytest.raises(CheckpointError, match="not in order"):
        made.config.build().restore(tmp_path)


def test_rollouts_are_cut_where_episodes_end(tmp_path):
    source = find("source", "rollouts")
    obs = np.arange(24, dtype=np.float32).reshape(12, 2)
    np.savez(tmp_path / "a.npz", acts=np.arange(10), obs=obs, rews=np.ones(10), indices=np.array([4]))
    made = source.Config(path=str(tmp_path / "a.npz")).build()
    assert [len(made[index]["actions"]) for index in (0, 1)] == [4, 6]
    assert made[1]["actions"][0, 0] == 4 and np.array_equal(made[1]["observations"], obs[5:]) and made[1]["return"] == 6
    pieces = source.Config(path=str(tmp_path / "a.npz"), length=3).build()
    assert [len(pieces[index]["actions"]) for index in range(len(pieces))] == [3, 1, 3, 3]
    assert np.array_equal(pieces[1]["observations"], obs[3:5])
    for change, why in (({"indices": np.array([40])}, "does not rise"), ({"obs": obs[:11]}, "11 observations")):
        np.savez(tmp_path / "b.npz", **{"acts": np.arange(10), "obs": obs, "indices": np.array([4]), **change})
        with pytest.raises(DataError, match=why):
            source.Config(path=str(tmp_path / "b.npz")).build()
