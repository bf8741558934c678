"""Running text for claims of DITTO and RMT, and what a policy makes of it: how much greedy decoding repeats itself, and
how well the policy predicts text that it has not seen.

The text is what Python carries with it about its own language (`pydoc_data.topics`), so it differs a little from one
version of Python to the next.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

SHOWN, TOLD = 2, 5  # sentences of a passage that are its prompt; sentences that follow
CONTINUED = 128  # tokens of a greedy continuation
GRAM = 4
HELD = 40  # passages to be examined on


def sentences(prose: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?]) (?=[A-Z])", prose) if len(s) > 20]


def passages() -> list[tuple[str, str]]:
    """(beginning, continuation) of passages of seven sentences of prose. No sentence is used twice: topics contain one
    another, and what is examined may not have been trained on."""
    from pydoc_data.topics import topics

    found, used = [], set[str]()
    for text in topics.values():
        prose = [p for p in re.split(r"\n\s*\n", re.sub(r"[*`]+", "", text)) if re.search(r"\w[.:]\s*$", p)]
        whole = " ".join(" ".join(p.split()) for p in prose if not p.startswith("  "))
        said = [s for s in dict.fromkeys(sentences(whole)) if s not in used]
        used.update(said)
        for at in range(0, len(said) - SHOWN - TOLD + 1, SHOWN + TOLD):
            parts = said[at : at + SHOWN], said[at + SHOWN : at + SHOWN + TOLD]
            found.append((" ".join(parts[0]), " ".join(parts[1])))
    return found


def lines() -> str:
    """The passages as the lines of a task file."""
    rows = [
        {"prompt": f"Go on with this text.\n\n{begun}", "answer": rest, "reference": rest}
        for begun, rest in passages()
    ]
    return "\n".join(map(json.dumps, rows))


def repeated(tokens: Sequence[int]) -> float:
    """The share of a text's 4-grams that were in it before (seq-rep-4, arXiv 1908.04319)."""
    grams = [tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def measured(policy: Any, settings: Any, held: Sequence[Any]) -> dict[str, float]:
    """`repeated` of greedy continuations, in percent; nats per token of the true ones, and the share of their tokens
    that are the likeliest one, in percent (`predicted`)."""
    from etude.batch import pack, unpack
    from etude.credit.imitate import shown as imitated
    from etude.evaluate.run import attempt
    from etude.rollout.conversation import Generator
    from etude.rollout.demonstrate import solution
    from etude.sampling.engine import sampler_for
    from etude.types import Group, Request, Task, Verdict

    async def never_asked(task: Task, answer: str) -> Verdict:
        return Verdict(0.0, False)

    params = replace(settings.sampling, greedy=True, max_tokens=CONTINUED)
    generator = Generator(
        sampler_for(policy, settings.rows), policy.renderer, params, "policy", settings.context
    )
    groups = asyncio.run(attempt(generator, never_asked, held, 1, 0))
    written = [e.spans[-1].tokens.tolist() for g in groups for e in g.episodes]

    true = [solution(task, policy.renderer) for task in held]
    shown = [Group(t, (), Request(t), (), (e,)) for t, e in zip(held, true, strict=True)]
    signals = imitated(shown)
    batch = pack(signals, settings.sampling)
    out = policy.score(batch, frozenset({"hidden"}))
    likeliest = (out.logits(batch.needed).argmax(-1) == batch.tokens[batch.needed]).float()
    hits = out.logp.new_zeros(len(out.logp)).masked_scatter(batch.needed, likeliest)

    def said(values: Any) -> np.ndarray:
        rows = zip(unpack(values, batch, signals), signals, strict=True)
        return np.concatenate([row[s.weights["imitation"] > 0] for row, s in rows])

    return {
        "repeated": 100 * float(np.mean([repeated(w) for w in written])),
        "nats": -float(said(out.logp).mean()),
        "predicted": 100 * float(said(hits).mean()),
    }
