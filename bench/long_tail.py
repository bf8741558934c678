"""A batch with one completion of 1,024 tokens among short ones, against the same short ones without it.

    python bench/long_tail.py [--rounds 2] [--rows 32] [--short 320] [--long 1024]

Of `--rows` replies decoded at once, rows that end are given to replies that wait. Three contestants take turns: "with"
the long reply among the short ones (of 16 to 64 tokens, drawn from a fixed seed), "without" it, and "batches": the same
replies, long one included, in batches of `--rows` of which each waits for its longest, as a sampler without refilling
would. Reported: when the last short reply was in (`short_seconds`), and the share of rows in use while replies waited
(`occupancy`). `ratio` = seconds of batches / seconds with refilling; `stall` = short_seconds with the long reply /
without it. Writes bench/results/long_tail.json.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from contestants import middle, ours, shown, write_result

from etude.models.embedded import directory

KINDS = ("with", "without", "batches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--short", type=int, default=320, help="short replies")
    parser.add_argument("--long", type=int, default=1024, help="tokens of the long one")
    a = parser.parse_args()
    if a.long <= 64:
        parser.error(f"--long is longer than the short replies, which have up to 64 tokens; got {a.long}")
    child = ours("long_tail_etude.py", {**vars(a), "model": str(directory())})
    turns: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for number in range(a.rounds):
        for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
            turns[kind].append(shown(kind, child.turn(kind=kind)))
    child.end()
    facts = {kind: _middle(found) for kind, found in turns.items()}
    result = {
        "what": f"{a.short} replies of 16-64 tokens and one of {a.long} through {a.rows} rows",
        "rounds": a.rounds,
        "etude": facts["with"],
        "without_long": facts["without"],
        "peer": {"name": "etude's own sampler, in batches that wait for their longest", **facts["batches"]},
        "ratio": facts["batches"]["seconds"] / facts["with"]["seconds"],
        "stall": facts["with"]["short_seconds"] / facts["without"]["short_seconds"],
    }
    print(
        f"the last short reply: {facts['with']['short_seconds']:.1f} s with the long one among them, "
        f"{facts['without']['short_seconds']:.1f} s without; "
        f"rows in use while any waited: {facts['with']['occupancy']:.1%}"
    )
    write_result("long_tail", result)


def _middle(turns: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("short_seconds", "occupancy", "steps", "mean_rows")
    return {**middle(turns), **{n: statistics.median(t[n] for t in turns) for n in names}}


if __name__ == "__main__":
    main()
