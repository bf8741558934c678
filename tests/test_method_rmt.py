"""RMT: thoughts before the tokens of a text."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toys
import worlds_of_letters as letters
from etude import seeds
from etude.assembly import build
from etude.credit.imitate import tagged
from etude.methods import find
from etude.methods.imitation_and_rl.rmt import EntropyScored, bins, spots
from etude.train.setup import start
from etude.types import Request
from lessons import groups_of, rollouts


def test_places_are_drawn_by_rank_of_entropy() -> None:
    entropy = np.array([5.0, 1, 3, 0, 4, 2])
    for third, places in enumerate(({3, 1}, {5, 2}, {4, 0})):
        chances = np.eye(3)[third]
        drawn = {spots(entropy, 6, 1, chances, np.random.default_rng(i))[0] for i in range(50)}
        assert drawn == places
    assert {spots(None, 3, 1, np.eye(3)[0], np.random.default_rng(i))[0] for i in range(50)} == {0, 1, 2}
    assert np.allclose(bins(0.6, 0.7, 0.3, 0.7, 0.0), [0.6, 0.2, 0.2])
    assert np.allclose(bins(0.6, 0.7, 0.3, 0.7, 1.0), [0.15, 0.15, 0.7])


def test_think_then_guess_as_token_rows() -> None:
    _, stages = build(find("rmt"), {"group_rollout.budget_start": 4})
    sampler = toys.ScriptedSampler(replies=["hm", "4"], ends=False)
    spoken = rollouts(stages, sampler.policy, sampler, samples=1)
    spoken.task = replace(spoken.task, meta={"entropy": np.array([0.0, 0, 9, 0, 0, 0])})
    for late in range(20):  # until the draw falls on the token of highest entropy
        sampler.replies, sampler.asked = ["hm", "4"], []
        spoken.key = seeds.key("spot", late)
        group = asyncio.run(spoken.group(stages["group_rollout"]))
        if group.episodes[0].notes["spot"] == 2:
            break
    (episode,), (shown_text,) = group.episodes, group.demonstrations
    decode = toys.tokenizer().decode
    rows = [(s.tag, s.sampled, decode(s.tokens)) for s in episode.spans]
    assert rows[0][2].startswith("q0\n\nContinue the text. Think in at most 4 tokens")
    assert rows[1:] == [
        ("prefix", False, "3+<think>"),
        ("thought", True, "hm"),
        ("prefix", False, "</think>"),
        ("guess", True, "4"),
    ]
    assert episode.correct
    assert (episode.notes["thought"], episode.notes["budget"]) == (2, 4)
    assert episode.reward == pytest.approx(0.8 + 0.2 * 0.5)
    signals = stages["credit"]([group], None)
    read = next(s for s in signals if s.episode is shown_text)
    text = tagged(shown_text, "demonstration")
    assert read.weights["imitation"][text].tolist() == [1, 1, 0, 1, 1, 1], "the rest is read"


def test_a_thought_may_be_twice_its_budget() -> None:
    _, _, groups = groups_of("rmt", {"group_rollout.budget_start": 2})
    thoughts = [e.notes["thought"] for g in groups for e in g.episodes]
    assert max(thoughts) == 4
    guesses = [len(s) for g in groups for e in g.episodes for s in e.spans if s.tag == "guess"]
    assert set(guesses) == {1}
    _, stages = build(find("rmt"), {"group_rollout.budget_start": 5, "group_rollout.budget_least": 2})
    for progress, budget in ((0.0, 5), (0.5, 2), (1.0, 2)):  # 5, 5 sqrt(0.2) = 2.2, 1
        late = asyncio.run(
            rollouts(stages, toys.TablePolicy(), progress=progress).group(stages["group_rollout"])
        )
        assert {e.notes["budget"] for e in late.episodes} == {budget}


def test_rmt_compares_thoughts_about_the_same_token() -> None:
    stages, _, groups = groups_of("rmt", {"group_rollout.positions": 3})
    signals = stages["credit"](groups, None)
    for group in groups:
        for spot in {e.notes["spot"] for e in group.episodes}:
            mine = [e for e in group.episodes if e.notes["spot"] == spot]
            rewards = np.array([e.reward for e in mine])
            found = [s.advantage[-1] for s in signals if any(s.episode is e for e in mine)]
            assert len(rewards) == 4
            assert np.allclose(found, (rewards - rewards.mean()) / (rewards.std() + 1e-4), atol=1e-5)


def test_texts_are_scored_by_the_start(tmp_path: Path) -> None:
    more = {"run__tasks_per_step": 3, "run__eval_problems": 0}
    run = start(letters.plan(tmp_path, "rmt", 1, **more), tmp_path / "run", letters.words())
    requests = EntropyScored().next(3, run.context)
    drawn = [run.tasks.draw(Request(), i, run.context.seed) for i in range(3)]
    run.close()
    assert [r.task.key for r in requests] == [t.key for t in drawn]
    assert all(len(r.task.meta["entropy"]) == 2 and r.task.meta["entropy"].min() > 0 for r in requests)
