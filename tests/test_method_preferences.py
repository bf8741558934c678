"""What test rows of preference methods cannot say: how their episodes come about."""

from __future__ import annotations

from collections import Counter

import toys
from etude.assembly import build
from etude.methods import find
from etude.methods.preference.refuel import TURN
from etude.rollout.attempts import attempt_tag
from etude.types import Episode, Verdict


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
