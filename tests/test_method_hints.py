"""Hints: sampled with, trained without."""

import numpy as np
import pytest
import torch

import toys
from etude.assembly import build
from etude.batch import pack
from etude.credit.group import constant
from etude.methods import find
from etude.types import Verdict


def lost(answer: str) -> Verdict:
    """Right only where the answer has an even number of letters, and never without a hint of that length."""
    return Verdict(0.0, False)


def test_guide_samples_with_the_hint_and_trains_without() -> None:
    policy = toys.TablePolicy()
    _, stages = build(find("guide"))
    asked = []
    speaker = toys.generator(policy)
    real = speaker.sampler.sample

    async def listening(prompt, params, key):
        asked.append(policy.tokenizer.decode(prompt))
        return await real(prompt, params, key)

    speaker.sampler.sample = listening
    (one,) = toys.play(stages, policy, [toys.task(0, lost)], 3, speaker)
    assert [("add" in text) for text in asked] == [False] * 3 + [True] * 3
    assert len(one.episodes) == 6
    guided = [e for e in one.episodes if e.notes.get("guided")]
    batch = pack([constant(e, 1.0) for e in guided])
    assert "add" not in policy.tokenizer.decode(batch.tokens.numpy())
    out = policy.score(batch)
    ratio = (out.logp - batch.behaviour)[batch.sampled]
    assert ratio.abs().min() > 1e-3, "pi_old(y|x) / pi_old(y|x,h) is not 1"
    for episode in guided:  # the table knows only the token before and the place of a token
        with_hint = np.flatnonzero(episode.sampled) - sum(len(s) for s in episode.spans if s.unseen)
        tokens = episode.tokens
        for place, at_ in zip(with_hint, np.flatnonzero(episode.sampled), strict=True):
            before = tokens[at_ - 1] if place > with_hint[0] else episode.spans[0].tokens[-1]
            logits = policy.logits(torch.tensor([before]), torch.tensor([place])).detach()
            assert float(torch.log_softmax(logits, -1)[0, tokens[at_]]) == pytest.approx(
                episode.logp[at_], abs=1e-5
            )
    assert all(not s.advantage.any() for s in stages["credit"]([one], None)), "nothing was solved"


def test_guide_leaves_solved_tasks_alone() -> None:
    policy = toys.TablePolicy()
    _, stages = build(find("guide"))
    (one,) = toys.play(stages, policy, [toys.task(0, lambda answer: Verdict(1.0, True))], 3)
    assert len(one.episodes) == 3
