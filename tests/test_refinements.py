"""Answers that are refined, corrected or taken up again: what is asked, what is trained, what was thrown away."""

import toys
from second_attempts import decode, play, trained


def test_a_critic_in_the_loop_is_told_nothing_and_its_refinements_are_learnt_without_it() -> None:
    critic = toys.ScriptedSampler(replies=["line 1 is wrong", "it is right"])
    generators = {"reference": toys.generator(critic.policy, critic)}
    group, signals, sampler, _ = play("critique_in_the_loop", ["5", "7", "27", "8", "6"], None, 3, generators)
    assert [[v.correct for v in e.verdicts] for e in group.episodes] == [
        [False, True],
        [True],
        [False, False],
    ]
    (asked, _) = map(decode, critic.asked)
    assert "whether and where it is wrong" in asked
    assert "too low" not in asked, "nor is it told what the checker said"
    assert "About that answer: line 1 is wrong" in decode(sampler.asked[1])
    assert [trained(s, "imitation") for s in signals] == [
        [("attempt 2", "7", 0.0)],
        [("attempt 1", "27", 0.0)],
    ]
