"""Making the policy answer before it is done, to see how sure it is by then."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import numpy as np

from etude.rollout.probe import Most, Separator, branches, noting, step_cuts
from etude.settings import Setting
from etude.types import Array, Episode


def answered_early(
    separator: Separator = "\n",
    most: Most = 16,
    probes: Annotated[int, Setting("answers drawn after each step", low=1)] = 5,
    tokens: Annotated[int, Setting("longest answer drawn", "tokens", low=1)] = 10,
    temperature: Annotated[float, Setting("temperature of the answers", low=0.01, high=10)] = 0.6,
    ask: Annotated[str, Setting("what makes the model answer at once")] = "**Final Answer** \\boxed{",
):
    """Attempts; in groups whose outcomes differ, with the confidence of answers forced after each step (notes
    `cuts`, `lead`, `confidence`)."""

    async def gather(table: Any) -> list[Episode]:
        tokenizer = table.voice.renderer.tokenizer
        lead = tokenizer.encode(ask)

        async def look(episode: Episode) -> dict[str, Any]:
            cuts = step_cuts(tokenizer, episode, separator, most)
            how = {"max_tokens": tokens, "temperature": temperature}
            drawn = await asyncio.gather(
                *(branches(table, episode, cut, probes, lead, **how) for cut in cuts)
            )
            sure = [[confidence(p.spans[-1].logp) for p in players] for players in drawn]
            return {"cuts": cuts, "lead": lead.tolist(), "confidence": [float(np.mean(s)) for s in sure]}

        episodes = await table.plays(range(table.samples))
        rewards = [e.reward for e in episodes if not e.failure]
        return await noting(table, episodes, look) if len(set(rewards)) > 1 else episodes

    return gather


def confidence(logp: Array | None) -> float:
    """exp(-mean H_l), each entropy H_l read from the token drawn there: -log p is an unbiased reading of it."""
    return float(np.exp(np.mean(logp))) if logp is not None and len(logp) else 0.0
