"""Structures: geometry against biotite, codes that turning does not change, chains with gaps, PDB and mmCIF files."""

import gzip

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sevenfold.core.backbone import bonded, chain_of, dihedral, frames_of, rmsd, superposed, torsions
from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.core.part import find
from sevenfold.data.loader import Items
from sevenfold.data.recognise import recognise
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe


def chains(count=20, size=40, seed=0):
    source = find("source", "folds").Config(samples=max(count, 3), size=size, seed=seed).build()
    return [source[index]["structure"].astype(np.float64) for index in range(count)]


def made(raws=None, **config):
    tokenizer = find("tokenization", "backbone").Config(**config).build()
    tokenizer.fit(chains() if raws is None else raws)
    return tokenizer


def turn_of(draw):
    turn, _ = np.linalg.qr(draw.standard_normal((3, 3)))
    return turn * np.sign(np.linalg.det(turn))


def atom_array(atoms):
    structure = pytest.importorskip("biotite.structure")
    found = structure.AtomArray(3 * len(atoms))
    found.coord = atoms.reshape(-1, 3)
    found.chain_id[:] = "A"
    found.res_id = np.repeat(np.arange(1, len(atoms) + 1), 3)
    found.res_name[:] = "ALA"
    found.atom_name = np.tile(["N", "CA", "C"], len(atoms))
    found.element = np.tile(["N", "C", "C"], len(atoms))
    return found


def test_torsions_are_biotites_and_come_back_from_a_chain() -> None:
    structure = pytest.importorskip("biotite.structure")
    draw = np.random.default_rng(0)
    angles = draw.uniform(-np.pi, np.pi, (30, 3))
    atoms = chain_of(angles)
    found = torsions(atoms)
    np.testing.assert_allclose(np.exp(1j * found[1:, 0]), np.exp(1j * angles[1:, 0]), atol=1e-10)
    np.testing.assert_allclose(np.exp(1j * found[:-1, 1:]), np.exp(1j * angles[:-1, 1:]), atol=1e-10)
    wanted = np.stack(structure.dihedral_backbone(atom_array(atoms)), 1)
    np.testing.assert_allclose(np.exp(1j * found[1:-1]), np.exp(1j * wanted[1:-1]), atol=1e-4)  # biotite: float32
    a, b, c, d = draw.standard_normal((4, 50, 3))
    np.testing.assert_allclose(dihedral(a, b, c, d), structure.dihedral(a, b, c, d), atol=1e-5)


def test_superposition_is_scipys_and_biotites() -> None:
    """scipy in float64, biotite in float32."""
    structure = pytest.importorskip("biotite.structure")
    draw = np.random.default_rng(0)
    for _ in range(10):
        fixed = draw.standard_normal((20, 3)) * [1, 2, 3]
        moving = (fixed * [1, 1, draw.choice([-1, 1])] + 0.3 * draw.standard_normal((20, 3))) @ turn_of(draw) + 5
        best, _ = Rotation.align_vectors(fixed - fixed.mean(0), moving - moving.mean(0))
        found = superposed(moving, fixed)
        np.testing.assert_allclose(found, best.apply(moving - moving.mean(0)) + fixed.mean(0), atol=1e-10)
        wanted, _ = structure.superimpose(fixed, moving)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert rmsd(moving, fixed) == pytest.approx(float(structure.rmsd(fixed, wanted)), abs=1e-5)


def test_frames_are_those_of_algorithm_21() -> None:
    draw = np.random.default_rng(1)
    atoms = draw.standard_normal((40, 3, 3))
    frames = frames_of(atoms)
    for (n, ca, c), frame in zip(atoms, frames):
        e1 = (c - ca) / np.linalg.norm(c - ca)
        e2 = (n - ca) - e1 * (e1 @ (n - ca))
        e2 = e2 / np.linalg.norm(e2)
        np.testing.assert_allclose(frame, [*np.stack([e1, e2, np.cross(e1, e2)]).T, ca], atol=1e-12)
        assert np.linalg.det(frame[:3]) == pytest.approx(1)
    atoms[3, 0] = np.nan
    atoms[5] = np.arange(3)[:, None]  # on a line
    assert not frames_of(atoms)[[3, 5]].any()


def test_turning_and_moving_changes_no_token_and_mirroring_does() -> None:
    tokenizer, draw = made(), np.random.default_rng(2)
    for atoms in chains(10, 60, seed=1):
        tokens = tokenizer.encode(atoms)
        for _ in range(5):
            turn, move = turn_of(draw), 50 * draw.standard_normal(3)
            moved = tokenizer.encode(atoms @ turn.T + move)
            assert (moved.values == tokens.values).all()
            wanted = np.concatenate([turn @ tokens.frames[:, :3], tokens.frames[:, 3:] @ turn.T], 1)
            np.testing.assert_allclose(moved.frames, wanted, atol=1e-4)
        mirrored = tokenizer.encode(atoms * [1, 1, -1])
        assert (mirrored.values[1:] != tokens.values[1:]).mean() > 0.8


def test_codes_are_real_steps_and_more_of_them_are_nearer() -> None:
    raws, others = chains(30, 30), chains(10, 30, seed=5)
    modality = find("modality", "structure").Config().build()
    errors = []
    for size in (4, 32, 256, 4096):
        tokenizer = made(raws, size=size)
        back = [tokenizer.decode(tokenizer.encode(atoms).values) for atoms in others]
        errors.append(np.mean([modality.error(atoms, other) for atoms, other in zip(others, back)]))
        for other in back:  # bonds are those of training chains, not averages of them
            np.testing.assert_allclose(np.linalg.norm(other[1:, 0] - other[:-1, 2], axis=1), 1.329, atol=1e-3)
    assert all(a > b for a, b in zip(errors, errors[1:]))
    whole = made(raws, size=4096)
    for atoms in raws[:5]:
        assert modality.error(atoms, whole.decode(whole.encode(atoms).values)) < 1e-3


def test_missing_atoms_and_breaks() -> None:
    tokenizer, atoms = made(), chains(1, 20, seed=3)[0]
    atoms[4, 2] = np.nan
    atoms[12:] += 30
    tokens = tokenizer.encode(atoms)
    assert [tokenizer.piece(int(id)) for id in tokens.values[[0, 4, 5, 12]]] == ["begin", "missing", "begin", "begin"]
    assert (tokens.values[[3, 6, 13]] > 1).all()
    assert not tokens.frames[4].any()
    assert bonded(atoms).sum() == 20 - 4
    back = tokenizer.decode(tokens.values)
    assert np.isnan(back[4]).all()
    assert np.isfinite(np.delete(back, 4, axis=0)).all()
    modality = find("modality", "structure").Config().build()
    assert 0 < modality.error(atoms, back) < 3
    assert modality.plain(atoms)[4] == "?"
    tokenizer.fit([atoms])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (np.full((5, 3, 3), np.nan), "none of 5 residues has all of N, CA and C"),
        (np.zeros((5, 3)), r"not one of shape \[5, 3\]"),
        (np.zeros((0, 3, 3)), "not one of shape"),
        (np.full((5, 3, 3), np.inf), "residue 0 .* further than"),
        ("ACDE", "not str"),
    ],
)
def test_what_is_no_structure(wrong, why) -> None:
    with pytest.raises(ValueError, match=why) as error:
        made().encode(wrong)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="two whole residues in a row"):
        made([chains(1, 20)[0][::2]])


def test_structures_are_never_packed() -> None:
    with pytest.raises(ConfigError, match="not laid end to end"):
        find("modality", "structure").Config(pack=True).build()


# Files


def line(serial, atom, residue, number, at, chain="A", altloc=" ", occupancy=1.0, record="ATOM"):
    xyz = "".join(f"{value:8.3f}" for value in at)
    return (
        f"{record:<6}{serial:5d}  {atom:<3}{altloc}{residue} {chain}{number:4d}    {xyz}{occupancy:6.2f}  0.00"
        f"           {atom[0]}"
    )


def test_models_chains_places_and_missing_atoms_of_a_pdb_file(tmp_path) -> None:
    pytest.importorskip("biotite")
    atoms = chains(1, 14)[0]
    lines, serial = ["REMARK   2 RESOLUTION.    1.80 ANGSTROMS."], 0
    for model in (0, 1):
        lines.append(f"MODEL     {model + 1:4d}")
        for chain in "AB":
            for number, residue in enumerate(atoms, 1):
                name = "MSE" if number == 2 else "GLY"
                for atom, at in zip(("N", "CA", "C"), residue):
                    serial += 1
                    record = "HETATM" if name == "MSE" else "ATOM"
                    if number == 3 and atom == "CA":  # two places, the likelier one is right
                        lines.append(line(serial, atom, name, number, at + 5, chain, "A", 0.3))
                        lines.append(line(serial, atom, name, number, at + 100 * model, chain, "B", 0.7))
                    elif not (number == 5 and atom == "C" and chain == "B"):
                        lines.append(line(serial, atom, name, number, at + 100 * model, chain, record=record))
        lines += [line(serial + 1, "O", "HOH", 99, [0, 0, 0], "W", record="HETATM"), "ENDMDL"]
    with gzip.open(tmp_path / "x.pdb.gz", "wt") as file:
        file.write("\n".join([*lines, "END"]) + "\n")
    source = recognise(tmp_path / "x.pdb.gz").build()
    assert len(source) == 2
    assert source.where(1).endswith("x.pdb.gz: chain B")
    first, second = source[0], source[1]
    assert first["protein"] == "GM" + 12 * "G"
    assert first["resolution"] == 1.8
    np.testing.assert_allclose(first["structure"], atoms, atol=6e-4)
    assert np.argwhere(np.isnan(second["structure"]).any(2)).tolist() == [[4, 2]]
    assert made().encode(second["structure"]).values[4] == 1


def test_mmcif_reads_as_pdb_does(tmp_path) -> None:
    pdbx = pytest.importorskip("biotite.structure.io.pdbx")
    atoms = chains(1, 14)[0]
    file = pdbx.CIFFile()
    pdbx.set_structure(file, atom_array(atoms))
    file.write(tmp_path / "x.cif")
    sample = recognise(tmp_path).build()[0]
    np.testing.assert_allclose(sample["structure"], atoms, atol=6e-4)
    assert sample["protein"] == "A" * 14
    assert "resolution" not in sample


def test_a_bad_file_among_good_ones_is_counted(tmp_path) -> None:
    find("source", "structures").example(tmp_path)
    (tmp_path / "chain20.cif").write_text("data_x\nloop_\nnothing\n")
    bare = [line(number, "CA", "GLY", number, [number, 0, 0]) for number in range(1, 13)]
    (tmp_path / "chain21.pdb").write_text("\n".join(bare) + "\n")
    source = recognise(tmp_path).build()
    assert len(source) == 12
    with pytest.raises(BadSample, match=r"chain20\.cif: cannot be read as mmCIF"):
        source[10]
    with pytest.raises(BadSample, match=r"chain21\.pdb: chain A: no residue has all of N, CA and C"):
        source[11]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.pdb").write_text("REMARK nothing\n")
    with pytest.raises(DataError, match="a.pdb") as error:
        find("source", "structures").Config(path=str(tmp_path / "other" / "a.pdb")).build()
    assert "\n" not in str(error.value)


def test_what_is_written_is_read_again(tmp_path) -> None:
    pytest.importorskip("biotite")
    modality, atoms = find("modality", "structure").Config().build(), chains(1, 14)[0]
    ending, content = modality.file(atoms)
    (tmp_path / f"x{ending}").write_bytes(content)
    np.testing.assert_allclose(modality.typed(str(tmp_path / "x.pdb")), atoms, atol=6e-4)
    with pytest.raises(ValueError, match="there is no such file"):
        modality.typed(str(tmp_path / "none.pdb"))


def test_frames_reach_the_model() -> None:
    ready = prepare(read_recipe("tiny_structure", ["data.samples=20"]))
    assert isinstance(ready.train, Items)
    stream = ready.model.tokenize(ready.samples(3))["structure"]
    assert stream.frames.shape == (*stream.values.shape, 4, 3)
    assert np.isfinite(float(ready.objective({"structure": stream}).mean.detach()))
