"""Several processes: what they learn is what one learns, whatever the objective; runs go on with any number of them."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sevenfold as sf
from ranks import CASES
from sevenfold.assembly.spread import check_spread
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.ranks import Ranks
from sevenfold.core.rooms import kinds
from sevenfold.data.loader import Order
from sevenfold.training.estimate import estimate, shape
from sevenfold.training.hardware import Hardware
from sevenfold.training.parallel import Parallel, joined, shards
from sevenfold.training.parallel.layout import layouts, unshared
from sevenfold.training.parallel.tensor import cut
from sevenfold.training.parallel.watch import Beat, told
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import device_of, read_recipe
from sevenfold.training.stop import Preempted

pytestmark = pytest.mark.xdist_group("ranks")
WITHIN = 1e-10
RECIPE = {
    "data": {"kind": "digits", "limit": 120},
    "streams": {"text": {"kind": "text", "field": "caption", "pack": False}},
    "trunks": {
        "lm": {"inputs": ["text"], "width": 32, "depth": 2, "mask": {"causal": True}, "block": {"mixer": {"heads": 2}}}
    },
    "objective": {"kind": "next_token"},
    "train": {"steps": 12, "batch": 8, "save_every": 4, "evaluate_every": 6, "precision": "fp32"},
}


def started(processes: int, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Some processes that torchrun starts."""
    run = ["-W", "ignore", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *command]
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **env}
    return subprocess.run([sys.executable, *run], capture_output=True, text=True, timeout=600, env=environment)


def stopped_alone(folder: Path) -> None:
    with pytest.raises(Preempted):
        sf.train(
            copy.deepcopy(RECIPE), folder, say=quiet, bar=False, on_look=lambda *_: os.kill(os.getpid(), signal.SIGTERM)
        )


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found in all cases of ranks.py."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    stopped_alone(folder / "rows_alone")
    for kind in ("shares", "heads"):
        shutil.copytree(folder / "rows_alone", folder / f"{kind}_alone")
    ended = started(2, str(Path(__file__).with_name("ranks.py")), str(folder / "found.json"), str(folder))
    assert (folder / "found.json").is_file(), ended.stderr[-3000:]
    return {"folder": folder, "said": ended.stdout, **json.loads((folder / "found.json").read_text())}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same run of one process, never stopped."""
    return sf.train(copy.deepcopy(RECIPE), tmp_path_factory.mktemp("one") / "run", say=quiet, bar=False)


def case(found, name):
    assert "error" not in found[name], found[name]["error"]
    return found[name]


@pytest.mark.parametrize("kind", kinds("objective"))
def test_two_processes_learn_what_one_learns(found, kind):
    """In float64, three steps on the same rows: loss, gradient norm, every parameter and buffer."""
    for name, error in case(found, f"objectives/{kind}").items():
        assert error < WITHIN, (name, error)


@pytest.mark.parametrize("kind", CASES["lacking"][1])
def test_so_they_do_where_one_has_nothing_to_learn_from(found, kind):
    """Its rows lack the caption, or the label: it has no gradient for some weights, and takes part all the same."""
    for name, error in case(found, f"lacking/{kind}").items():
        assert error < WITHIN, (name, error)


@pytest.mark.parametrize("kind", CASES["in_pieces"][1])
def test_so_they_do_with_batches_in_pieces(found, kind):
    for name, error in case(found, f"in_pieces/{kind}").items():
        assert error < WITHIN, (name, error)


@pytest.mark.parametrize("kind", CASES["shares"][1])
def test_so_they_do_with_weights_in_shares(found, kind):
    for name, error in case(found, f"shares/{kind}").items():
        assert error < WITHIN, (name, error)


@pytest.mark.parametrize("kind", CASES["spread"][1])
def test_so_they_do_with_the_tokens_of_a_row_spread(found, kind):
    """And with weights in shares besides."""
    for name, error in case(found, f"spread/{kind}").items():
        assert error < WITHIN, (name, error)


@pytest.mark.parametrize("kind", CASES["places"][1])
def test_spread_tokens_know_where_they_stand(found, kind):
    facts = case(found, f"places/{kind}")
    assert facts["x"] < WITHIN and facts["size"] > 0.1


@pytest.mark.parametrize("kind", CASES["heads"][1])
def test_so_they_do_where_they_share_heads_and_channels(found, kind):
    """And with weights in shares and batches in pieces besides. What cannot be cut (a recurrence) is whole on each, and what is
    dropped between blocks is the same on all."""
    facts = case(found, f"heads/{kind}")
    assert facts["cut"] >= 4
    for name, error in facts["errors"].items():
        assert error < WITHIN, (name, error)


@pytest.mark.parametrize(("kind", "share"), [("rows", 1.0), ("shares", 0.5), ("heads", 0.71), ("both", 0.5)])
def test_each_has_its_share_and_a_checkpoint_knows_nothing_of_it(found, kind, share):
    """What is written in one layout is read in every other one."""
    layout = case(found, f"layout/{kind}")
    assert all(layout["same"].values()) and len(layout["same"]) == 4 and layout["tensors"] > 20
    assert layout["share"] == pytest.approx(share, abs=0.01)


def test_parts_of_a_tensor_that_overlap_are_refused(found, tmp_path):
    """One that is moved onto another one, or out of the whole: the sum of sizes is that of the whole, and there is a hole."""
    shutil.copytree(found["folder"] / "layout_heads/checkpoints/step-00000001/model", tmp_path / "model")

    def like(name, shape, dtype):
        return torch.empty(shape, dtype=dtype)

    whole = shards.read(tmp_path / "model", like, Ranks(), {})
    path = sorted((tmp_path / "model").iterdir())[-1]
    with safe_open(path, "pt") as opened:
        facts, tensors = opened.metadata(), load_file(path)
    places = json.loads(facts["DCP_SHARDING_INFO"])
    name = next(name for name, place in places.items() if place["saved_offsets"][0] >= len(tensors[name]))
    assert len(tensors[name]) < len(whole[name])
    for first in (0, -len(tensors[name]), len(whole[name])):
        places[name]["saved_offsets"][0] = first
        save_file(tensors, path, facts | {"DCP_SHARDING_INFO": json.dumps(places)})
        with pytest.raises(CheckpointError, match=f"the parts of '{name}' do not make it"):
            shards.read(tmp_path / "model", like, Ranks(), {})


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_cannot_be_read_is_counted_by_all_and_rows_are_shared_out_anew(found, workers):
    """A process is left without a row in the first step."""
    both = case(found, f"holes/{workers}")
    assert both["found"]["bad"] == both["wanted"]["bad"] != []
    assert both["found"]["held_out"]["loss"] == pytest.approx(both["wanted"]["held_out"]["loss"], abs=WITHIN)
    for name, value in both["wanted"]["state"].items():
        assert both["found"]["state"][name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("kind", CASES["torn"][1])
def test_what_only_one_of_those_with_the_same_rows_can_read(found, kind):
    """All take the rows of the one that read most; what one of them could not read is listed."""
    both = case(found, f"torn/{kind}")
    assert {where for where, _ in both["found"]["bad"]} == {f"item {place}" for place in both["holes"]}
    assert both["found"]["held_out"]["loss"] == pytest.approx(both["wanted"]["held_out"]["loss"], abs=WITHIN)
    for name, value in both["wanted"]["state"].items():
        assert both["found"]["state"][name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize(("kind", "lost"), [("first", [0, 1]), ("own", [0, 1, 4, 5]), ("all", [*range(6)])])
def test_held_out_batches_of_which_a_process_can_read_nothing(found, kind, lost):
    """With weights in shards a process that has nothing makes its forward passes with the others, for which they would wait."""
    both = case(found, f"unseen/{kind}")
    assert both["bad"] == [f"item {place}" for place in lost]
    assert both["found"] == pytest.approx(both["wanted"], abs=WITHIN)
    assert bool(both["found"]) is (kind != "all")


def test_a_loss_that_is_no_number_on_one_process_is_left_out_on_all(found):
    first, second = case(found, "nan/last")["all"]
    assert first["skipped"] == second["skipped"] == 1
    assert first["state"] == second["state"]


@pytest.mark.parametrize("kind", ["rows", "shares", "heads"])
def test_a_signal_to_one_stops_all_and_the_run_goes_on_bitwise(found, kind):
    facts = case(found, f"elastic/{kind}")
    assert facts["code"] == 128 + signal.SIGTERM
    assert facts["bitwise"]


@pytest.mark.parametrize("kind", ["rows", "shares", "heads"])
def test_a_run_goes_on_with_another_number_of_processes(found, one, kind, tmp_path):
    facts = case(found, f"elastic/{kind}")
    assert facts["loss"] == pytest.approx(one.loss, rel=1e-6)
    assert facts["other"] == pytest.approx(one.loss, rel=1e-6), "one process, then two"
    shutil.copytree(found["folder"] / f"{kind}_stopped", tmp_path / "run")
    went_on = sf.train(tmp_path / "run", resume=True, overrides=["parallel.tensor=1"], say=quiet, bar=False)
    assert went_on.loss == pytest.approx(one.loss, rel=1e-6), "two processes, then one"
    losses = [record["loss"] for record in one.log if "loss" in record]
    assert facts["logged"] == pytest.approx(losses, rel=1e-6)


def test_muon_turns_whole_matrices_of_which_each_has_a_share(found):
    for name, error in case(found, "turned/next_token+grouped").items():
        assert error < WITHIN, (name, error)


@pytest.mark.parametrize("kind", CASES["sent"][1])
def test_what_is_sent_is_what_the_plan_says(found, kind):
    """A decoder; a position that learns what it adds to scores; cross-attention to a memory."""
    facts = case(found, f"sent/{kind}")
    assert facts["rows, rows"] == facts["rows"]
    assert facts["rows, shard"] == 1.5 * facts["rows"]
    assert facts["heads, tensor 2"] == facts["heads"]


def test_the_plan_of_many():
    """More processes: shares get smaller, what rows need does not; nobody is busier than he is."""
    made = prepare(read_recipe(copy.deepcopy(RECIPE)))
    alone = estimate(made.objective, shape(made), made.recipe.train, "bf16", Hardware.named("h100"))
    few, many = ({way.way: way for way in layouts(alone, Hardware.named("h100"), count, 4, 2)} for count in (8, 1024))
    both = "shard, sequence 4, tensor 2"
    assert list(few) == ["rows", "shard", "tensor 2", "shard, tensor 2", "shard, sequence 4", both]
    assert few["rows"].memory == many["rows"].memory == alone.peak
    assert many["shard"].memory < few["shard"].memory < few["rows"].memory > few["tensor 2"].memory
    assert few[both].memory < few["shard, sequence 4"].memory < few["shard"].memory
    assert few["shard, tensor 2"].memory < few["shard"].memory
    assert all(0 < way.efficiency <= 1 and way.seconds > 0 for way in (*few.values(), *many.values()))
    assert few["shard, sequence 4"].efficiency < 1 > few["tensor 2"].efficiency, "nothing hides what these send"
    assert "tensor 3" not in [way.way for way in layouts(alone, Hardware.named("h100"), 9, 1, 3)], "of two heads"


@pytest.mark.parametrize(
    ("trunk", "adapter", "said"),
    [
        ({"block": {"mixer": {"heads": 2}}}, {"kind": "lora"}, r"lm.blocks.0.mixer cannot be cut"),
        (
            {"block": {"mixer": {"heads": 2}, "projection": {"kind": "partial_bias"}}},
            None,
            "lm.blocks.0.mixer cannot be cut",
        ),
        ({"block": {"mixer": {"heads": 1}}}, None, "lm.blocks.0.mixer cannot be cut"),
        (
            {"block": {"mixer": {"heads": 3, "head_width": 8}}},
            None,
            "lm.blocks.0.mixer is of 3 equal parts, which 2 does not divide",
        ),
        (
            {"block": {"mixer": "min_gru", "nonlinearity": None}},
            None,
            "no block of this model has a part that can be cut",
        ),
        ({"block": {"mixer": {"heads": 2}}}, None, ""),
    ],
)
def test_the_plan_offers_what_a_run_takes(trunk, adapter, said):
    recipe = copy.deepcopy(RECIPE)
    recipe["trunks"]["lm"] |= trunk
    made = prepare(read_recipe(recipe | ({"adapter": adapter} if adapter else {})))
    alone = estimate(made.objective, shape(made), made.recipe.train, "fp32", Hardware.named("h100"))
    assert unshared(alone, 2).endswith(said) and bool(unshared(alone, 2)) == bool(said)
    ways = [way.way for way in layouts(alone, Hardware.named("h100"), 8, 1, 2)]
    assert ("tensor 2" in ways) is (not said)
    with pytest.raises(ConfigError) if said else nullcontext():
        cut(made.objective, Ranks(0, 2))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_sample_once_and_in_the_same_order(size):
    whole = list(Order(37, 8, 3, 2, 9))
    parts = [list(Order(37, 8, 3, 2, 9, part=(rank, size))) for rank in range(size)]
    assert [sum(step, []) for step in zip(*parts)] == whole


def test_who_is_waited_for():
    before = [Beat(4, "fit.py:9 (fit)", True, 1), Beat(4, "text.py:88 (read)", False, 1), Beat(4, "", True, 1)]
    after = [beat._replace(said=beat.said + 1) for beat in before]
    assert "rank 1 stands at text.py:88 (read) (after step 4); waiting for it: 0, 2" in told(before, after, 30)
    assert "rank 1 says nothing any more" in told(before, [after[0], before[1], after[2]], 30)


def test_a_run_that_stands_still_names_who_it_waits_for(tmp_path):
    recipe = copy.deepcopy(RECIPE) | {"parallel": {"patience": 2.0}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    script = tmp_path / "stands.py"
    script.write_text(
        "import json, os, sys, time\n"
        "import sevenfold as sf\n"
        "from sevenfold.objective.next_token import NextToken\n"
        "inner, calls = NextToken.forward, [0]\n"
        "def forward(self, *given):\n"
        "    calls[0] += self.training\n"
        "    if calls[0] == 3 and os.environ['RANK'] == '1':\n"
        "        time.sleep(100)\n"
        "    return inner(self, *given)\n"
        "NextToken.forward = forward\n"
        f"sf.train(json.load(open({str(tmp_path / 'recipe.json')!r})), {str(tmp_path / 'run')!r}, bar=False)\n"
    )
    ended = started(2, str(script))
    assert ended.returncode != 0
    assert "no step for 2 s: rank 1 stands at" in ended.stderr, ended.stderr[-2000:]
    assert "waiting for it: 0" in ended.stderr


def test_the_command_line_of_two_processes(found):
    """One run folder; an error has the exit code of one."""
    assert case(found, "command/train")["codes"] == [[0, 2, 2], [0, 2, 2]]
    assert sf.load(found["folder"] / "command") is not None
    assert found["said"].count("/report.html") == 1


def test_what_cannot_be_shared_is_said_once_and_before_a_run_is_begun(found):
    first, second = case(found, "command/train")["refused"]
    assert "2 processes cannot share the 1 heads of" in first and "set parallel.tensor=1" in first
    assert second == "" and not (found["folder"] / "refused").exists()


def test_what_cannot_be_shared_out(monkeypatch):
    for asked in (Parallel(sequence=2), Parallel(tensor=2)):
        with pytest.raises(ConfigError, match="needs more than one process"), joined(asked, device_of("cpu")):
            pass
    monkeypatch.setenv("WORLD_SIZE", "6")
    for asked in (Parallel(sequence=4), Parallel(tensor=4), Parallel(sequence=2, tensor=2)):
        with pytest.raises(ConfigError, match="6 processes.* start a multiple of 4"), joined(asked, device_of("cpu")):
            pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    recurrent = copy.deepcopy(RECIPE)
    recurrent["trunks"]["lm"]["block"] = {"mixer": "min_gru"}
    with pytest.raises(ConfigError, match="parallel.sequence: 'min_gru'"):
        check_spread(prepare(read_recipe(recurrent)).model)
    with pytest.raises(ConfigError, match="train.batch"):
        Order(10, 2, 0, 0, 3, part=(0, 4))


@pytest.mark.parametrize(
    ("trunk", "adapter", "said"),
    [
        ({"block": {"mixer": {"heads": 4, "kv_heads": 2}}}, None, "3 processes cannot share the 2 kv_heads of .*mixer"),
        ({"block": {"mixer": {"heads": 1}}}, None, "3 processes cannot share the 1 heads of .*mixer"),
        (
            {"block": {"mixer": "min_gru", "nonlinearity": None}},
            None,
            "no block of this model has a part that can be cut",
        ),
        ({"block": {"mixer": {"heads": 3, "head_width": 8}}}, {"kind": "lora"}, "qkv .*has 'lora.A' beside it"),
    ],
)
def test_what_cannot_be_cut(trunk, adapter, said):
    recipe = copy.deepcopy(RECIPE)
    recipe["trunks"]["lm"] |= trunk
    made = prepare(read_recipe(recipe | ({"adapter": adapter} if adapter else {})))
    with pytest.raises(ConfigError, match=f"parallel.tensor: .*{said}"):
        cut(made.objective, Ranks(0, 3))
