"""Point clouds: groups against brute force, invariances measured, files, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sevenfold.blocks.tokenization.point_group import clouds
from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.core.part import find


def tokenizer(**settings):
    made = find("tokenization", "point_group").Config(**settings).build()
    made.fit(clouds(0))
    return made


def by_hand(points, start, centres, k):
    """Farthest points and nearest neighbours, every distance written out."""
    points = [tuple(map(float, p)) for p in sorted(map(tuple, points.tolist()))]
    away = lambda p, q: sum((a - b) ** 2 for a, b in zip(p[:3], q[:3]))  # noqa: E731
    chosen = [max(range(len(points)), key=lambda i: (away(points[i], start), -i))]
    while len(chosen) < centres:
        chosen.append(max(range(len(points)), key=lambda i: (min(away(points[i], points[c]) for c in chosen), -i)))
    return [(points[c], [points[i] for i in sorted(range(len(points)), key=lambda i: (away(points[i], points[c]), i))[:k]]) for c in chosen]  # fmt: skip


def test_groups_equal_brute_force():
    made = tokenizer(centres=7, neighbours=5)
    for cloud in clouds(3)[:4]:
        tokens = made.encode(cloud)
        for (centre, group), vector, place in zip(
            by_hand(cloud, made.mean, 7, 5), tokens.values, tokens.coords, strict=True
        ):
            wanted = (np.array(group) - np.array(centre)) / made.scale
            assert np.abs(vector.reshape(5, 3) - wanted).max() < 1e-5
            assert np.abs(place - (np.array(centre) - made.mean) / made.scale).max() < 1e-5


def test_order_and_duplicates_change_nothing_and_a_turn_only_turns():
    made, cloud = tokenizer(centres=8, neighbours=6), clouds(1)[0]
    tokens = made.encode(cloud)
    again = made.encode(np.concatenate([cloud[::-1], cloud[:9]]))
    assert np.array_equal(tokens.values, again.values) and np.array_equal(tokens.coords, again.coords)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = made.encode(((cloud - made.mean) @ turn.T + made.mean).astype(np.float32))
    wanted = tokens.values.reshape(-1, 6, 3) @ turn.T
    assert np.abs(turned.values.reshape(-1, 6, 3) - wanted).max() < 1e-4
    sizes = [np.linalg.norm(one.values.reshape(-1, 6, 3), axis=2) for one in (tokens, turned)]
    assert np.abs(sizes[0] - sizes[1]).max() < 1e-4


def test_few_points_and_further_numbers():
    made = tokenizer(centres=16, neighbours=8)
    cloud = clouds(2)[0][:3]
    tokens = made.encode(cloud)
    assert tokens.values.shape == (3, 24) and tokens.coords.shape == (3, 3)
    assert sorted(map(tuple, made.decode(*tokens[:2]).round(4).tolist())) == sorted(map(tuple, cloud.round(4).tolist()))
    one = made.encode(cloud[:1])
    assert one.values.shape == (1, 24) and not one.values.any()
    moving = find("tokenization", "point_group").Config(centres=64, neighbours=16).build()
    data = [np.concatenate([c, c[:, :1] * 100 + 7], axis=1) for c in clouds(0)]
    moving.fit(data)
    tokens = moving.encode(data[0])
    assert tokens.values.shape[1] == 64
    assert find("modality", "points").Config().build().error(data[0], moving.decode(*tokens[:2])) < 1e-5


def test_chamfer_distance_is_that_of_every_pair():
    modality, (one, other) = find("modality", "points").Config().build(), clouds(5)[:2]
    away = np.linalg.norm(one[:, None].astype(np.float64) - other[None], axis=2)
    assert abs(modality.error(one, other) - (away.min(1).mean() + away.min(0).mean()) / 2) < 1e-10


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (np.zeros((0, 3)), "empty"),
        (np.zeros((4, 2)), "3 or more"),
        (np.array([[0.0, 1, np.nan]]), "point 0 of the cloud is not finite"),
        (np.full((2, 3), np.inf), "not finite"),
        ("points", "not str"),
        (np.zeros((4, 5)), "have 5 numbers each"),
    ],
)
def test_bad_clouds_are_told(wrong, why):
    with pytest.raises(ValueError, match=why) as caught:
        tokenizer().encode(wrong)
    assert "\n" not in str(caught.value)


def test_a_point_net_reads_a_set():
    net = find("projection", "point_net").Config(hidden=8).build(24, 10).double()
    x = torch.randn(2, 3, 8, 3, dtype=torch.float64)
    mixed = x[:, :, torch.randperm(8)]
    assert torch.equal(net(x.flatten(2)), net(mixed.flatten(2)))
    (w1, w2, w3, w4), (b1, b2, b3, b4) = net.weights, net.biases
    each = [w2 @ (w1 @ p + b1).clamp(min=0) + b2 for p in x[0, 0]]
    whole = torch.stack(each).max(0).values
    wanted = torch.stack([w4 @ (w3 @ torch.cat([whole, h]) + b3).clamp(min=0) + b4 for h in each]).max(0).values
    assert (net(x.flatten(2))[0, 0] - wanted).abs().max() < 1e-10
    with pytest.raises(ConfigError, match="not made of points of 3"):
        find("projection", "point_net").Config().build(25, 10)


def test_clouds_in_files(tmp_path):
    source = find("source", "points")
    points, ptr = np.arange(30, dtype=np.float16).reshape(10, 3), np.array([0, 4, 10])
    np.savez(tmp_path / "a.npz", points=points, ptr=ptr, label=np.array([1, 0], np.uint8), classes=np.array(["a", "b"]))
    made = source.Config(path=str(tmp_path / "a.npz")).build()
    assert (
        len(made) == 2 and made[0]["label"] == "b" and np.array_equal(made[1]["points"], points[4:].astype(np.float32))
    )
    assert source.recognises(tmp_path / "a.npz") > 0.5
    np.savez(tmp_path / "b.npz", points=points, ptr=np.array([0, 40]))
    with pytest.raises(DataError, match="ptr does not rise"):
        source.Config(path=str(tmp_path / "b.npz")).build()
    folder = tmp_path / "clouds"
    folder.mkdir()
    (folder / "a.xyz").write_text("0 0 0\n1 2 3\n")
    (folder / "b.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    (folder / "c.xyz").write_text("1 2\n")
    (folder / "d.xyz").write_text("")
    made = source.Config(path=str(folder)).build()
    assert made[0]["points"].tolist() == [[0, 0, 0], [1, 2, 3]]
    assert made[1]["points"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    for place, why in ((2, "three numbers"), (3, "empty")):
        with pytest.raises(BadSample, match=why):
            made[place]
