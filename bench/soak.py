"""Does memory stay flat? Peak resident size over 500 training steps.

    python bench/soak.py [--steps 500] [--model tiny] [--warm-up 100]

`--model tiny` trains a small model on words (half a minute); `--model smollm2` the embedded one on sums. Growth is the
peak at the end against the peak after `--warm-up` steps (by then the libraries' caches of prepared products are full)
and must stay under 2 %: the bench fails otherwise. Records,
health and checkpoints are written as in any run. Writes bench/results/soak.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path

from contestants import ours, write_result

ALLOWED = 0.02
SUMS = {"run.tasks_per_step": "4", "run.group_size": "4", "run.max_tokens": "12", "update.lr": "1e-6"}
WORDS = {"run.tasks_per_step": "8", "run.group_size": "8", "run.max_tokens": "8", "update.lr": "1e-4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="tiny")
    parser.add_argument("--warm-up", type=int, default=100)
    a = parser.parse_args()
    if not 0 < a.warm_up < a.steps:
        parser.error(f"--warm-up lies between 1 and {a.steps - 1}; got {a.warm_up}")
    with tempfile.TemporaryDirectory() as place:
        job = {
            "place": place,
            "steps": a.steps,
            "model": "smollm2",
            "tasks": "chain_sum:max_terms=2",
            "set": SUMS,
        }
        if a.model == "tiny":
            job |= {**_words(Path(place)), "set": WORDS}
        child = ours("soak_etude.py", job)
        found = child.turn()
        child.end()
    peaks, seconds = found["peaks_mb"], found["seconds"]
    growth = peaks[-1] / peaks[a.warm_up - 1] - 1
    result = {
        "what": f"peak resident memory over {a.steps} steps, {a.model}",
        "etude": {"seconds": seconds, "peak_mb": peaks[-1], "after_warm_up_mb": peaks[a.warm_up - 1]},
        "growth": growth,
        "allowed": ALLOWED,
        "warm_up": a.warm_up,
        "peaks_mb": peaks[:: max(1, a.steps // 50)],
    }
    print(
        f"{peaks[a.warm_up - 1]:.0f} MB after {a.warm_up} steps, {peaks[-1]:.0f} MB at the end: {growth:+.2%}"
    )
    write_result("soak" if a.model == "tiny" else f"soak-{a.model}", result)
    if growth > ALLOWED:
        raise SystemExit(f"memory grew by {growth:.1%}; at most {ALLOWED:.0%} is allowed")


def _words(place: Path) -> dict[str, str]:
    """A tiny model, and the task of answering with a word's first letter."""
    from etude.models.tiny import tiny_directory

    tiny_directory(place / "model", "abcd")
    rows = [{"prompt": "".join(w), "answer": w[0]} for w in itertools.product("abcd", repeat=4)]
    (place / "words.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return {"model": str(place / "model"), "tasks": str(place / "words.jsonl")}


if __name__ == "__main__":
    main()
