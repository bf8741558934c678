"""Conversations of several turns: what an earlier turn has computed is kept, against computing every turn from its beginning.

    python bench/turns.py [--rounds 3] [--conversations 32] [--turns 6]

Conversations go on together after one opening; every turn adds 25 tokens of its own and 12 sampled ones,
about what `number_guess` does. Two contestants take turns in one process: "kept", as used, and "anew", whose
sampler forgets between turns. `ratio` = seconds anew / seconds kept. Writes bench/results/turns.json.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from contestants import middle, ours, shown, write_result

from etude.models.embedded import directory

KINDS = ("kept", "anew")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--conversations", type=int, default=32)
    parser.add_argument("--turns", type=int, default=6)
    a = parser.parse_args()
    child = ours("turns_etude.py", {**vars(a), "model": str(directory())})
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for number in range(a.rounds):
        for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
            found[kind].append(shown(kind, child.turn(kind=kind)))
    child.end()
    facts = {
        kind: {**middle(turns), "prefilled": statistics.median(t["prefilled"] for t in turns)}
        for kind, turns in found.items()
    }
    assert len({t["sum"] for turns in found.values() for t in turns}) == 1, "the replies differ"
    result = {
        "what": f"{a.turns} turns of {a.conversations} conversations",
        "rounds": a.rounds,
        "etude": facts["kept"],
        "peer": {"name": "etude's own sampler, every turn from its beginning", **facts["anew"]},
        "ratio": facts["anew"]["seconds"] / facts["kept"]["seconds"],
    }
    write_result("turns", result)


if __name__ == "__main__":
    main()
