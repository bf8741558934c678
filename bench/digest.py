"""One line of hashes per recipe: what a change that should change nothing has changed.

    python bench/digest.py before.json          # on the old code
    python bench/digest.py --against before.json   # on the new code: exit 1 and the differences, if any

Per recipe: the signals of one batch on an exact table policy, its gradients on-policy and after the policy has moved,
and of four steps of a small model on words of four letters the metrics (names and values), what every token was
credited with, and the weights at the end. The hashes are those of one machine: compare on the machine that made them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np

import conftest  # noqa: F401  (one thread)
import toys
import worlds_of_letters as letters
from etude.errors import Refused, UserError
from etude.methods import catalogue
from etude.report.run import RunDirectory
from etude.train import checkpoint
from etude.train.loop import train
from etude.train.setup import start

CLOCKS = ("time/", "seconds", "rss_mb", "tokens_per_second")


def digest(*values: Any) -> str:
    whole = hashlib.blake2b(digest_size=8)
    for value in values:
        whole.update(
            value.tobytes() if isinstance(value, np.ndarray) else json.dumps(value, sort_keys=True).encode()
        )
    return whole.hexdigest()


def of_lesson(name: str) -> dict[str, str]:
    found = {}
    for drift in (0.0, 0.2):
        lesson = toys.lesson(name, drift=drift)
        found[f"gradient at drift {drift}"] = digest(toys.gradient(lesson).numpy())
        found["signals"] = digest(
            *(
                part
                for s in lesson.signals
                for part in (
                    s.episode.tokens,
                    s.episode.logp,
                    s.advantage,
                    *(v for _, v in sorted(s.weights.items())),
                    *(v for _, v in sorted(s.extras.items())),
                )
            )
        )
    return found


def of_run(name: str, place: Path) -> dict[str, str]:
    brisk = {"curriculum__every": 1} if name in ("pudf", "skill_it", "exp3_flad", "ucb1_flad") else {}
    brisk |= {"curriculum__crowd": 1} if name == "pudf" else {}
    if "teacher" in catalogue()[name].all_needs:
        brisk["run__teacher"] = letters.model(place / "teacher", seed=2)
    settings = {"run__tasks_per_step": 4, "run__oversample": 2, "run__group_size": 4, "run__eval_problems": 0}
    try:
        run = start(letters.plan(place, name, 4, **settings, **brisk), place / "run", letters.words())
        train(run)
    except (UserError, Refused) as refusal:
        return {"refused": digest(str(refusal))}
    run.close()
    written = RunDirectory.open(place / "run")
    metrics = [{k: v for k, v in m.items() if not k.startswith(CLOCKS)} for m in written.metrics()]
    columns = ["step", "tokens", "logp", "advantage", "reward"]
    weights = checkpoint.load(place / "run" / "checkpoints")[1]["learner"]
    return {
        "metrics": digest(metrics),
        "metric values": digest(
            sorted(str(v) for m in metrics for v in m.values() if not isinstance(v, dict))
        ),
        "episodes": digest(written.episodes(columns=columns).to_pylist()),
        "weights": digest(*(t.float().numpy() for t in _tensors(weights))),
    }


def _tensors(state: Any) -> list[Any]:
    if hasattr(state, "numpy"):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [t for part in parts for t in _tensors(part)]


def of(name: str) -> tuple[str, dict[str, str]]:
    with tempfile.TemporaryDirectory() as place:
        return name, of_lesson(name) | of_run(name, Path(place))


def main() -> int:
    names = [n for n in sys.argv[1:] if n in catalogue()] or list(catalogue())
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        now = dict(pool.map(of, names))
    if "--against" not in sys.argv:
        Path(sys.argv[1]).write_text(json.dumps(now, indent=1))
        return 0
    before = json.loads(Path(sys.argv[sys.argv.index("--against") + 1]).read_text())
    different = [
        f"{name}: {what}"
        for name in (n for n in before if n in names or names == list(catalogue()))
        for what in sorted(before[name].keys() | now.get(name, {}).keys())
        if before[name].get(what) != now.get(name, {}).get(what)
    ]
    print("\n".join(different) or f"{len(now)} recipes: nothing differs")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
