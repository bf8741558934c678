"""Answers that are refined, corrected or taken up again: what is asked, what is trained, what was thrown away."""

import toys
from etude.methods import find
from second_attempts import decode, plain, play, trained


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


def test_a_mixture_is_sampled_run_by_run_after_what_it_holds_already() -> None:
    settings = {"group_rollout.own_share": 1.0, "group_rollout.ramp_share": 0.0}
    group, (signal,), sampler, _ = play("scheduled_sampling", ["8+1"], settings)
    assert decode(signal.episode.tokens) == plain() + "3+4=7"
    read = signal.extras["read"].astype(int)
    assert decode(read) == plain() + "8+17", (
        "three tokens, the end of its reply, and the rest of the solution"
    )
    assert decode(sampler.asked[0]) == plain()
    assert not group.episodes
    replies = ["a", "b", "c", "d", "e"]
    _, (signal,), sampler, _ = play(
        "scheduled_sampling", list(replies), {**settings, "group_rollout.own_share": 0.5}
    )
    read = signal.extras["read"].astype(int)
    assert len(sampler.asked) > 1, "several runs"
    for asked in sampler.asked:
        assert asked.tolist() == read[: len(asked)].tolist()


def test_a_correction_is_the_solution_in_training_and_the_policys_own_in_an_examination() -> None:
    group, signals, sampler, _ = play("reference_correction", ["5", "8"], None, 2)
    assert [trained(s, "imitation") for s in signals] == [
        [("demonstration", "3+4=7", 0.0)],
        [("attempt 2", "3+4=7", 0.0)],
        [("attempt 2", "3+4=7", 0.0)],
    ]
    assert "too low" not in decode(signals[1].episode.tokens)
    assert [len(e.verdicts) for e in group.episodes] == [1, 1], "the solution is not counted as an attempt"
    group, _, sampler, _ = play(
        "reference_correction", ["5", "7"], dict(find("reference_correction").all_exam)
    )
    assert [v.correct for v in group.episodes[0].verdicts] == [False, True]
    assert "There might be an error above" in decode(sampler.asked[1])
