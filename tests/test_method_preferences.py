"""What test rows of preference methods cannot say: how their episodes come about."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import toys
from etude.assembly import build
from etude.methods import find
from etude.methods.preference.refuel import TURN
from etude.methods.reward_model.reward_anything import GOLD, ranked
from etude.rollout.attempts import attempt_tag
from etude.tasks import load
from etude.types import Episode, Request, Verdict


def never(answer: str) -> Verdict:
    return Verdict(0.0, False, "no")


def turns_of(episode: Episode) -> list[str]:
    return [s.tag for s in episode.spans if s.sampled]


def dialogues(**settings: object) -> list[tuple[Episode, Episode]]:
    _, stages = build(find("refuel"), {"rollout.turns": 3, **settings})
    groups = toys.play(stages, toys.TablePolicy(0), [toys.task(i, never) for i in range(12)], 4)
    episodes = [e for g in groups for e in g.episodes]
    return list(zip(episodes[::2], episodes[1::2], strict=True))


def test_refuel_parts_two_dialogues_at_one_turn() -> None:
    parted: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    for one, other in dialogues():
        assert one.index == other.index
        assert turns_of(one) == turns_of(other) == [attempt_tag(k + 1) for k in range(len(turns_of(one)))]
        turn = one.notes[TURN]
        assert turn == other.notes[TURN]
        before = one.spans[: [s.tag for s in one.spans].index(turn)]
        assert [s.tokens.tolist() for s in before] == [s.tokens.tolist() for s in other.spans[: len(before)]]
        parted[turn] += 1
        lengths[len(turns_of(one))] += 1
    assert set(parted) == {attempt_tag(k) for k in (1, 2, 3)}
    assert parted[attempt_tag(1)] > parted[attempt_tag(3)]  # expected shares of 48: 11/18, 5/18 and 2/18
    assert set(lengths) == {1, 2, 3}
    assert any(a.tokens.tolist() != b.tokens.tolist() for a, b in dialogues())


def test_refuel_at_the_last_turn_only() -> None:
    for one, _ in dialogues(**{"rollout.branch": "last"}):
        assert one.notes[TURN] == turns_of(one)[-1]


def test_refuel_is_examined_without_branches() -> None:
    recipe = find("refuel")
    _, stages = build(recipe, {**recipe.all_exam, "rollout.turns": 3})
    (group,) = toys.play(stages, toys.TablePolicy(0), [toys.task(0, never)], 2)
    assert [len(turns_of(e)) for e in group.episodes] == [3, 3]


def test_refuel_lets_a_model_play_the_user() -> None:
    _, stages = build(find("refuel"), {"rollout.turns": 2, "rollout.user": "policy", "rollout.branch": "off"})
    (group,) = toys.play(stages, toys.TablePolicy(0), [toys.task(0, lambda a: Verdict(1.0, True))], 2)
    for episode in group.episodes:
        assert len(turns_of(episode)) == 2  # a right answer does not end it


def test_reward_anything_shows_answers_in_a_drawn_order(tmp_path: Path) -> None:
    row = {
        "prompt": "2+2?",
        "principle": "Shorter is better.",
        "responses": ["four of course", "4", "It is 4."],
        "scores": [1, 5, 3],
    }
    (tmp_path / "judge.jsonl").write_text(json.dumps(row) + "\n")
    task = load(f"{tmp_path / 'judge.jsonl'}:check=none").draw(Request(), 0, 0)
    _, stages = build(find("reward_anything"))
    said = '<think>hm</think>{"scores": {"A": 5, "B": 3, "C": 1}, "best-to-worst": ["A", "B", "C"]}'
    sampler = toys.ScriptedSampler(replies=[said] * 8)
    speaker = toys.generator(sampler.policy, sampler)
    (group,) = toys.play(stages, sampler.policy, [task], 8, speaker=speaker)
    assert not group.failed, group.failed[0].failure
    decode = sampler.policy.renderer.decode
    for episode, asked in zip(group.episodes, sampler.asked, strict=True):
        text = decode(asked)
        assert "Shorter is better." in text
        for letter, worth in episode.notes[GOLD].items():
            assert f"Answer {letter}:\n{row['responses'][row['scores'].index(worth)]}" in text
        right = list(episode.notes[GOLD].values()) == [5, 3, 1]
        scores = stages["reward"](replace(episode, text=said))  # braces have no tokens here
        assert (scores["ranking"] == 1) == right
    assert len({tuple(e.notes[GOLD].values()) for e in group.episodes}) > 2


def test_reward_anything_judges_pairs_and_refuses_what_does_not_fit() -> None:
    pair = toys.task(0, meta={"chosen": "4", "rejected": "5"})
    assert ranked(pair) == (["4", "5"], [2.0, 1.0])
    assert ranked(toys.task(0)) == ([], [])
    with pytest.raises(ValueError, match="lists of the same length"):
        ranked(toys.task(0, meta={"responses": ["a", "b"], "scores": [1]}))
