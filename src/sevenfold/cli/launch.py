"""Write a job script that trains a recipe on a cluster, and goes on when it is stopped.

sevenfold launch recipes/gpt.yaml data.path=speeches/ --slurm --nodes 4 --gpus 8 --time 24h --out runs/gpt
sbatch runs/gpt.sbatch

Slurm warns the job two minutes before its time is up (SIGUSR1): the run is saved, the job asks to be queued again, and
goes on where it was. A job that is preempted, or whose machine fails, Slurm queues again itself. Nothing is submitted here.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

from sevenfold.core.errors import ConfigError

WARNED = 120
"""Seconds before the end at which Slurm warns."""
SCRIPT = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
{resources}
#SBATCH --time={time}
#SBATCH --signal=B:USR1@{warned}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={out}.%j.log
{more}
set -u
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
step() {{
  srun --kill-on-bad-exit=1 {python} -m torch.distributed.run --nnodes={nodes} --nproc-per-node={each} \\
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}" --rdzv-endpoint="$head:$((20000 + SLURM_JOB_ID % 20000))" \\
    --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \\
    -m sevenfold train "$@"
}}

# A run that has begun goes on; its folder knows the recipe.
if [ -f {out}/recipe.yaml ]; then set -- {out} --resume; else set -- {recipe} --out {out}; fi
step "$@" &
child=$!
warned=0
trap 'warned=1; scancel --signal=USR1 "$SLURM_JOB_ID.0"' USR1
while true; do
  wait "$child"; code=$?
  kill -0 "$child" 2>/dev/null || break   # a trap ends `wait` too: then wait again
done
case "$warned:$code" in
  0:0|1:0) exit 0 ;;
  1:*) scontrol requeue "$SLURM_JOB_ID" ;;   # stopped after saving: go on in the next one
  *) exit "$code" ;;
esac
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a YAML file, or the name of a recipe that comes with the package")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="dotted fields of the recipe to change")
    parser.add_argument("--slurm", action="store_true", required=True, help="a script for sbatch")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (default 1)")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="GPUs of each, 0: on its CPUs (default 8)")
    parser.add_argument(
        "--time", default="24h", metavar="TIME", help="how long one job may take: 30m, 24h, 2d (default 24h)"
    )
    parser.add_argument("--out", metavar="DIR", help="the run folder (default: runs/NAME), where all machines see it")
    parser.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="one more line for Slurm: partition=gpu, account=…",
    )
    parser.add_argument(
        "--python", default="python", metavar="PATH", help="which Python the machines have sevenfold in"
    )


def run(args: argparse.Namespace) -> int:
    from sevenfold.training.recipe import read_recipe

    read_recipe(args.recipe, args.overrides)  # what is wrong with it is said now, and not in the queue
    out = Path(args.out or Path("runs") / Path(args.recipe).stem)
    script = out.with_name(f"{out.name}.sbatch")
    text = written(args, out)
    if script.exists():
        raise ConfigError(f"{script}: exists already: choose another --out, or remove it")
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(text, encoding="utf-8")
    print(f"{script}: submit it with: sbatch {shlex.quote(str(script))}")
    return 0


def written(args: argparse.Namespace, out: Path) -> str:
    """The script."""
    from sevenfold.training.units import seconds_of

    if args.nodes < 1 or args.gpus < 0:
        raise ConfigError("--nodes: at least 1; --gpus: at least 0")
    for option in args.sbatch:
        if not re.fullmatch(r"[a-z-]+(=[\w.,:/@+-]+)?", option):
            raise ConfigError(f"--sbatch: an option of sbatch without its dashes, partition=gpu, not {option!r}")
    seconds = int(seconds_of(args.time, "--time"))
    if seconds <= 2 * WARNED:
        raise ConfigError(f"--time: more than {2 * WARNED} s, as {WARNED} s of it are for saving")
    hours, rest = divmod(seconds, 3600)
    resources = (
        f"#SBATCH --gpus-per-node={args.gpus}\n#SBATCH --cpus-per-task={8 * args.gpus}"
        if args.gpus
        else "#SBATCH --exclusive"
    )
    return SCRIPT.format(
        name=shlex.quote(out.name),
        nodes=args.nodes,
        each=args.gpus or 1,
        resources=resources,
        time=f"{hours}:{rest // 60:02d}:{rest % 60:02d}",
        warned=WARNED,
        out=shlex.quote(str(out)),
        more="".join(f"#SBATCH --{option}\n" for option in args.sbatch),
        python=shlex.quote(args.python),
        recipe=" ".join(map(shlex.quote, [args.recipe, *args.overrides])),
    )
