"""The job script: what it asks Slurm for, and that it goes on; run with stand-ins for Slurm's own commands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sevenfold.cli import main

STAND_INS = {
    "scontrol": '#!/bin/sh\necho "scontrol $*" >> "$SAID"\n[ "$1" = show ] && echo here || true\n',
    "scancel": '#!/bin/sh\necho "scancel $*" >> "$SAID"\nkill -USR1 $(cat "$SAID.pid")\n',
    "srun": '#!/bin/sh\nshift\necho "srun $*" >> "$SAID"\necho $$ > "$SAID.pid"\nexec "$WORK"\n',
}


def launched(tmp_path, work, begun=False, warn=False):
    """(exit code, what the script said to Slurm) of a job whose training is the shell commands `work`."""
    assert main(["launch", "gpt", "data.path=texts", "--slurm", "--nodes", "2", "--out", str(tmp_path / "run")]) == 0
    for name, text in {**STAND_INS, "work": f"#!/bin/sh\n{work}\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    if begun:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "recipe.yaml").write_text("")
    said = tmp_path / "said"
    said.write_text("")
    path = f"{tmp_path}:{os.environ['PATH']}"
    env = {
        **os.environ,
        "PATH": path,
        "SAID": str(said),
        "WORK": str(tmp_path / "work"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "here",
    }
    job = subprocess.Popen(["bash", str(tmp_path / "run.sbatch")], env=env)
    if warn:
        while not (tmp_path / "ready").exists():
            assert job.poll() is None
        job.send_signal(10)
    return job.wait(timeout=30), said.read_text()


def test_what_it_asks_for(tmp_path, capsys):
    out = tmp_path / "runs" / "mine"
    command = [
        "launch",
        "gpt",
        "data.path=a b",
        "--slurm",
        "--nodes",
        "4",
        "--gpus",
        "2",
        "--time",
        "90m",
        "--out",
        str(out),
    ]
    assert main([*command, "--sbatch", "partition=gpu"]) == 0
    script = (tmp_path / "runs" / "mine.sbatch").read_text()
    for line in (
        "--nodes=4",
        "--gpus-per-node=2",
        "--time=1:30:00",
        "--signal=B:USR1@120",
        "--requeue",
        "--partition=gpu",
    ):
        assert f"#SBATCH {line}\n" in script, line
    assert "--nproc-per-node=2" in script and "'data.path=a b'" in script
    assert subprocess.run(["bash", "-n", str(tmp_path / "runs" / "mine.sbatch")]).returncode == 0
    assert f"sbatch {out}.sbatch" in capsys.readouterr().out
    assert main(command) == 2, "it is there already"


def test_a_run_that_ends_is_not_queued_again(tmp_path):
    code, said = launched(tmp_path, "exit 0")
    assert code == 0 and "requeue" not in said
    assert f"train gpt data.path=texts --out {tmp_path}/run" in said and "--nnodes=2" in said


def test_a_run_that_has_begun_goes_on(tmp_path):
    code, said = launched(tmp_path, "exit 0", begun=True)
    assert code == 0 and f"train {tmp_path}/run --resume" in said


def test_a_run_that_fails_is_not_queued_again(tmp_path):
    code, said = launched(tmp_path, "exit 2")
    assert code == 2 and "requeue" not in said


def test_a_warning_is_handed_on_and_waited_for(tmp_path):
    work = f"""exec {sys.executable} -c '
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(0.3)
    pathlib.Path("{tmp_path}/saved").write_text("")
    sys.exit(1)
signal.signal(signal.SIGUSR1, stop)
pathlib.Path("{tmp_path}/ready").write_text("")
time.sleep(20)
'"""
    code, said = launched(tmp_path, work, warn=True)
    assert (tmp_path / "saved").exists() and "scontrol requeue 7" in said and code == 0


@pytest.mark.parametrize(
    "more", [["--nodes", "0"], ["--time", "1m"], ["--time", "5x"], ["--sbatch", "x; rm -rf"], ["data.kind=nothing"]]
)
def test_what_cannot_be(tmp_path, more, capsys):
    assert main(["launch", "gpt", *more, "--slurm", "--out", str(tmp_path / "run")]) == 2
    assert not list(tmp_path.iterdir())
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
