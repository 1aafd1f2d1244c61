"""Cells: the three encodings against their definitions, genes that nobody knows, AnnData files, and a recipe."""

import re
import sys

import numpy as np
import pytest

from sevenfold.core.cell import Cell, Genes
from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.core.part import find
from sevenfold.data.recognise import recognise
from sevenfold.data.source._files import within_memory
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe

KINDS = ("gene_rank", "gene_bin", "gene_value")


def made(kind, cells=None, **config):
    tokenizer = find("tokenization", kind).Config(**config).build()
    tokenizer.fit(find("tokenization", kind).example(3) if cells is None else cells)
    return tokenizer


def cells_of(seed=0, cells=30, genes=25):
    draw = np.random.default_rng(seed)
    counts = draw.poisson(draw.gamma(0.6, 4.0, (cells, genes)))
    counts[:, 0] += 1
    names = Genes(f"G{number:02}" for number in range(genes))
    return counts, [Cell(names, np.flatnonzero(row), row[row > 0].astype(np.float32)) for row in counts]


def test_ranks_are_those_of_the_definition_computed_gene_by_gene() -> None:
    counts, cells = cells_of()
    share = 10_000 * counts / counts.sum(1, keepdims=True)
    medians = np.array([np.median(column[column > 0]) for column in share.T])
    tokenizer = made("gene_rank", cells)
    np.testing.assert_allclose(tokenizer.medians, medians, rtol=1e-12)
    for row, cell in zip(share, cells):
        strength = [(row[gene] / medians[gene], gene) for gene in range(len(row)) if row[gene] > 0]
        wanted = [f"G{gene:02}" for _, gene in sorted(strength, key=lambda pair: (-pair[0], pair[1]))]
        assert [tokenizer.piece(int(id)) for id in tokenizer.encode(cell).values] == wanted
    short = made("gene_rank", cells, most=3)
    assert (short.encode(cells[0]).values == tokenizer.encode(cells[0]).values[:3]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_depth_and_the_order_of_genes_change_no_token(kind) -> None:
    tokenizer, (counts, cells) = made(kind, cells_of()[1]), cells_of(1)
    draw = np.random.default_rng(0)
    for row, cell in zip(counts, cells):
        tokens = tokenizer.encode(cell)
        order = draw.permutation(len(row))
        turned = Genes(f"G{gene:02}" for gene in order)
        for other in (Cell(cell.genes, cell.at, 3 * cell.counts), Cell(turned, np.arange(len(row)), row[order] * 1.0)):
            again = tokenizer.encode(other)
            assert (again.values == tokens.values).all()
            np.testing.assert_allclose(again.coords, tokens.coords, rtol=1e-6)


def test_bins_are_the_quantiles_of_the_cell_where_there_are_no_ties() -> None:
    """Counted as the paper's code does, with numpy's own quantiles: how many of B - 1 edges a value reaches."""
    draw = np.random.default_rng(2)
    names = Genes(f"G{number:03}" for number in range(100))
    cells = [Cell(names, np.arange(100), draw.permutation(100) + draw.random() + 1.0) for _ in range(4)]
    tokenizer = made("gene_bin", cells, bins=51)
    for cell in cells:
        edges = np.quantile(cell.counts, np.linspace(0, 1, 50))
        tokens = tokenizer.encode(cell)
        assert (tokens.values == np.digitize(cell.counts[tokens.coords[:, 0]], edges * (1 - 1e-12))).all()
        assert tokens.values.min() == 1
        assert tokens.values.max() == 50


def test_equal_counts_are_shared_out_over_their_bins_and_the_same_each_time() -> None:
    cell = Cell.of({f"G{number}": 1 for number in range(200)} | {"H": 5})
    tokenizer = made("gene_bin", [cell], bins=12)
    first, again = tokenizer.encode(cell), tokenizer.encode(cell)
    assert (first.values == again.values).all()
    counted = np.bincount(first.values, minlength=12)
    assert counted[0] == 0
    assert (counted[1:11] >= 19).all()
    assert first.values[first.coords[:, 0] == tokenizer.genes.places["H"]] == 11
    other = made("gene_bin", [cell], bins=12, seed=1)
    assert (other.encode(cell).values != first.values).any()


def test_values_come_back_up_to_the_depth() -> None:
    _, cells = cells_of()
    tokenizer = made("gene_value", cells)
    for cell in cells:
        tokens = tokenizer.encode(cell)
        back = tokenizer.decode(tokens.values, tokens.coords).named
        total = sum(cell.named.values())
        assert back.keys() == cell.named.keys()
        np.testing.assert_allclose(
            [back[g] for g in cell.named], [1e4 * c / total for c in cell.named.values()], rtol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_gene_never_seen_is_left_out_and_told(kind) -> None:
    tokenizer = made(kind, cells_of()[1])
    known, mixed = Cell.of({"G00": 4, "G03": 2}), Cell.of({"G00": 4, "NEW2": 1, "G03": 2, "NEW1": 3})
    assert (tokenizer.encode(mixed).values == tokenizer.encode(known).values).all()
    share, unknown = tokenizer.coverage([known, mixed])
    assert share == pytest.approx(12 / 16)
    assert unknown == [("NEW1", 3 / 16), ("NEW2", 1 / 16)]
    with pytest.raises(ValueError, match=r"none of the 1 genes of the cell, such as 'ENSG1', is one of the 25 known"):
        tokenizer.encode(Cell.of({"ENSG1": 4}))
    modality = find("modality", "cells").Config(tokenizer=tokenizer.config).build()
    modality.tokenizer = tokenizer
    facts = modality.summary([known, mixed])
    assert facts["counts of genes that the tokenizer knows"] == "75.00%"
    assert facts["unknown genes, by their share of counts"].startswith("2: NEW1 18.75%")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("count", "why"), [(np.nan, "'B' is nan"), (-1.5, "'B' is -1.5.*not centred"), (np.inf, "'B' is inf")]
)
def test_counts_that_are_none_are_named(kind, count, why) -> None:
    with pytest.raises(ValueError, match=why) as error:
        made(kind).encode(Cell.of({"A": 1, "B": count}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("at", "why"), [([2, 0, 2], "'GENE3' stands twice"), ([0, 1, 40], "places 0 … 39, not 0 … 40")]
)
def test_cells_whose_places_are_wrong(kind, at, why) -> None:
    genes = Genes(f"GENE{number}" for number in range(1, 41))
    with pytest.raises(ValueError, match=why):
        made(kind).encode(Cell(genes, np.array(at), np.ones(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_without_a_count(kind) -> None:
    with pytest.raises(ValueError, match="expresses no gene"):
        made(kind).encode(Cell.of({"GENE1": 0, "GENE2": 0}))
    with pytest.raises(ValueError, match="named twice"):
        Genes(["A", "B", "A"])
    whole = made("gene_bin", zeros=True)
    assert not whole.encode(Cell.of({"GENE1": 0})).values.any()


def test_cells_are_never_packed() -> None:
    with pytest.raises(ConfigError, match="not laid end to end"):
        find("modality", "cells").Config(pack=True).build()


def test_a_typed_cell() -> None:
    modality = find("modality", "cells").Config().build()
    assert modality.typed("CD3D 5, LYZ 2").named == {"CD3D": 5, "LYZ": 2}
    with pytest.raises(ValueError, match="is not a gene and its count"):
        modality.typed("CD3D")


# AnnData


def written(path, counts, obs=None, var=None, **more):
    anndata, pandas = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    counts = np.asarray(counts, np.float32)
    obs = pandas.DataFrame(obs or {}, index=[f"cell{row}" for row in range(len(counts))])
    var = pandas.DataFrame(**(var or {"index": [f"G{gene}" for gene in range(counts.shape[1])]}))
    made = anndata.AnnData(counts, obs, var, layers=more.get("layers"))
    if "raw" in more:
        made.raw = anndata.AnnData(np.asarray(more["raw"], np.float32), obs, var)
    made.write_h5ad(path)
    return find("source", "h5ad").Config(path=str(path))


def test_dense_and_sparse_layers_and_columns(tmp_path) -> None:
    from scipy import sparse

    counts = np.array([[0, 3, 1], [2, 0, 0], [1, 1, 1]], np.float32)
    obs = {"type": ["a", "b", None], "age": [1.0, np.nan, 3.0], "name": ["x", "y", "z"]}
    source = written(tmp_path / "a.h5ad", counts * 0 + 9, obs, layers={"counts": sparse.csr_matrix(counts)}).build()
    assert source.fields == {"cells": "cells", "type": "label", "age": "number"}
    assert source.notes == ["left out, as nearly every cell has another value: name"]
    assert source[0]["cells"] == Cell.of({"G1": 3, "G2": 1})
    assert source[1].keys() == {"cells", "type"}
    assert recognise(tmp_path / "a.h5ad").kind == "h5ad"
    assert source.config.replace(layer="X").build()[0]["cells"] == Cell.of({"G0": 9, "G1": 9, "G2": 9})
    with pytest.raises(DataError, match="there is no 'count'; did you mean 'counts'"):
        source.config.replace(layer="count").build()
    with pytest.raises(DataError, match="data.columns: obs has no 'kind'"):
        source.config.replace(columns=("kind",)).build()
    with pytest.raises(DataError, match="largest_bytes"):
        source.config.replace(largest_bytes=8).build()


def test_centred_and_logged_values_are_brought_back(tmp_path) -> None:
    counts = np.array([[1, 3, 0], [2, 0, 7], [1, 1, 1]], np.float32)
    config = written(tmp_path / "a.h5ad", counts - counts.mean(0), raw=np.log1p(counts))
    source = config.build()
    np.testing.assert_allclose(list(source[1]["cells"].named.values()), [2, 7], rtol=1e-6)
    assert [bool(re.search("centred|undone", note)) for note in source.notes] == [True, True]
    with pytest.raises(DataError, match="X holds negative numbers .* name the layer"):
        written(tmp_path / "b.h5ad", counts - counts.mean(0)).build()


def test_symbols_are_taken_for_numbers(tmp_path) -> None:
    index, symbols = ["ENSG1", "ENSG2", "ENSG3"], {"feature_name": ["CD3D", "LYZ", "LYZ"]}
    source = written(tmp_path / "a.h5ad", np.eye(3), var={"data": symbols, "index": index}).build()
    assert source.genes.names == ("CD3D", "LYZ", "LYZ.2")
    assert "stand more than once" in source.notes[0]


def test_bad_cells_and_bad_files(tmp_path) -> None:
    counts = np.array([[1, 3, 0], [0, 0, 0], [1, np.nan, 1], [1, 1, 1]], np.float32)
    source = written(tmp_path / "a.h5ad", counts).build()
    with pytest.raises(BadSample, match=r"a\.h5ad: cell 1: expresses no gene"):
        source[1]
    with pytest.raises(BadSample, match="cell 2: the count of gene 'G1' is nan"):
        source[2]
    (tmp_path / "b.h5ad").write_bytes((tmp_path / "a.h5ad").read_bytes()[:700])
    with pytest.raises(DataError, match=r"b\.h5ad: cannot be read as \.h5ad") as error:
        find("source", "h5ad").Config(path=str(tmp_path / "b.h5ad")).build()
    assert "\n" not in str(error.value)


def test_bins_and_values_train_with_the_positions_they_are_meant_for(tmp_path) -> None:
    """scGPT's two: bins with a table of genes, and genes with a network of their values."""
    for kind, position in (("gene_bin", {"kind": "learned", "size": 60}), ("gene_value", "coordinate_mlp")):
        changes = {"streams.cells.tokenizer": kind, "trunks.enc.position": position, "train.steps": 3}
        ready = prepare(read_recipe("tiny_cells", [f"{k}={v}" for k, v in changes.items()]))
        batch = ready.model.tokenize([{"cells": sample["cells"]} for sample in ready.samples(4)])
        assert np.isfinite(float(ready.objective(batch).mean.detach()))
        assert ready.recipe.streams["cells"].length == 32


def test_expression_is_what_scikit_learn_would_make_of_the_counts() -> None:
    from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

    counts, cells = cells_of()
    logged = FunctionTransformer(np.log1p).transform(1e4 * Normalizer("l1").transform(counts.astype(float)))
    plain, scaled = made("expression", cells), made("expression", cells, scaled=True)
    found = np.concatenate([plain.encode(cell).values for cell in cells])
    np.testing.assert_allclose(found, logged, rtol=1e-6)
    found = np.concatenate([scaled.encode(cell).values for cell in cells])
    np.testing.assert_allclose(found, StandardScaler().fit_transform(logged).clip(-10, 10), atol=1e-5)
    for tokenizer in (plain, scaled):
        back = [tokenizer.decode(tokenizer.encode(cell).values) for cell in cells]
        for row, cell in zip(counts, back):
            wanted = {f"G{gene:02}": 1e4 * row[gene] / row.sum() for gene in np.flatnonzero(row)}
            assert cell.named == pytest.approx(wanted, rel=1e-3)


def test_expression_of_a_cell_with_genes_in_another_order_and_unknown_ones() -> None:
    _, cells = cells_of()
    tokenizer, cell = made("expression", cells, scaled=True, genes=20), cells[3]
    assert tokenizer.features == 20
    turned = Genes([*reversed(cell.genes.names), "OTHER"])
    other = Cell(turned, np.array([turned.places[name] for name in cell.named]), np.array(list(cell.named.values())))
    np.testing.assert_allclose(tokenizer.encode(other).values, tokenizer.encode(cell).values, rtol=1e-6)
    more = Cell(turned, np.append(other.at, turned.places["OTHER"]), np.append(other.counts, other.counts.sum()))
    halved = made("expression", cells, genes=20)
    whole, half = (np.expm1(halved.encode(one).values) for one in (cell, more))
    np.testing.assert_allclose(whole, 2 * half, rtol=1e-4)  # the sum is over all genes, known or not


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
def test_a_library_is_refused_memory_beyond_what_is_allowed():
    with within_memory(64 << 20):
        assert np.ones(1 << 20).sum() == 1 << 20
        with pytest.raises(MemoryError):
            np.empty(1 << 29)  # 4 GiB: more than a process may have lying about
    assert np.empty(1 << 29).size == 1 << 29


def test_a_matrix_whose_places_lead_out_of_it_is_damaged(tmp_path):
    h5py = pytest.importorskip("h5py")
    config = find("source", "h5ad").example(tmp_path)
    with h5py.File(config.path, "r+") as file:
        rows = file["X/indptr"]
        rows[len(rows) // 2] = 10**6
    with pytest.raises(DataError, match="is damaged"):
        config.build()
