"""Methods for agents that are taught by traces: what their trajectories hold, turn by turn."""

import pytest

import toys
from etude.assembly import build
from etude.fixtures.worlds import spelling
from etude.methods import find
from etude.rollout.expert import CORRECTION, MOVE, WRONG
from second_attempts import decode, play, trained


def turns(episode) -> list[tuple[str, str]]:
    return [
        (s.tag, decode(s.tokens).strip())
        for s in episode.spans
        if s.role == "assistant" and s.tag != "prompt"
    ]


def test_a_wrong_step_is_stopped_and_the_right_one_is_carried_out() -> None:
    settings = {"group_rollout.warmup_share": 0.0}
    group, signals, sampler, _ = play("step", ["b", "b"], settings, task=spelling())
    _, trace = group.demonstrations
    said = "Wait, the last step is wrong. It should be:\na"
    assert turns(trace) == [(WRONG, "b"), (CORRECTION, said), (MOVE, "b")]
    assert trace.correct
    assert not group.episodes, "a trajectory with a teacher is no attempt"
    assert [(tag, text.strip()) for tag, text, _ in trained(signals[1], "imitation")] == [
        (CORRECTION, said),
        (MOVE, "b"),
    ]
    assert "written: a" in decode(sampler.asked[1]), "b was not carried out"
    assert decode(sampler.asked[1]).count("<end>") == decode(sampler.asked[0]).count("<end>")


def test_a_wrong_answer_is_followed_by_the_tasks_solution() -> None:
    _, signals, *_ = play("step", ["8"], {"group_rollout.warmup_share": 0.0})
    assert [[tag for tag, *_ in trained(s, "imitation")] for s in signals] == [
        ["demonstration"],
        [CORRECTION],
    ]
    assert "8\nWait, the last step is wrong. It should be:\n3+4=7" in decode(signals[1].episode.tokens)


@pytest.mark.parametrize("seed", range(4))
def test_an_expert_errs_on_purpose_and_mends_it(seed: int) -> None:
    word = "abcab"[seed:] + "ba"
    settings = {"group_rollout.error_share": 0.5, "group_rollout.least_errors": 1}
    group, signals, *_ = play("agent_refine", [], settings, task=spelling(word, turns=30))
    (trace,) = group.demonstrations
    world, thought, erred = spelling(word, turns=30).environment(), "That did not help.", False
    for tag, text in turns(trace):
        assert (tag == MOVE) == text.endswith(world.expert())
        assert text.startswith(thought) == (erred and tag == MOVE)
        world.act(text)
        erred = tag == WRONG
    assert world.written == word
    assert {tag for s in signals for tag, *_ in trained(s, "imitation")} == {MOVE}


def test_a_reason_is_written_for_an_action_that_was_drawn() -> None:
    settings = {"group_rollout.explored_turns": 1.0, "group_rollout.explorations": 1}
    group, signals, sampler, _ = play("a3t", ["x", "it is asked for"], settings, task=spelling("a", "a", 1))
    assert [e.correct for e in group.episodes] == [False, True]
    assert "The next action is:\na" in decode(sampler.asked[1])
    assert [trained(s)[0][1].strip() for s in signals] == ["it is asked for\na", "x"]
    group, *_ = play("a3t", ["a"], settings, task=spelling("a", "a", 1))
    assert len(group.episodes) == 1, "what was solved is not explored"


def groups_of(name, settings, tasks):
    """Groups of one episode each, whose random streams differ."""
    recipe, stages = build(find(name), settings)
    policy = toys.TablePolicy(0)
    others = toys.context(policy, auxiliary=recipe.all_auxiliary).auxiliary
    return toys.play(stages, policy, tasks, 1, None, others)


def test_a_judge_is_shown_the_experts_action_and_another() -> None:
    start = toys.ScriptedSampler(replies=["a", "b"])
    others = {"reference": toys.generator(start.policy, start)}
    settings = {"group_rollout.alternatives": 2}
    group, _, sampler, _ = play("act", ["A", "B"], settings, 2, others, task=spelling("a", "ab"))
    asked, again = (decode(tokens) for tokens in sampler.asked)
    assert asked == again, "all judgements of a group answer one question"
    first = "Action A:\na\n\nAction B:\nb" in asked
    assert first or "Action A:\nb\n\nAction B:\na" in asked
    assert [e.reward for e in group.episodes] == ([1.0, 0.0] if first else [0.0, 1.0])


def test_who_always_names_the_first_is_right_half_of_the_time() -> None:
    groups = groups_of("act", {}, [toys.task(i) for i in range(24)])
    asked = [decode(g.episodes[0].spans[0].tokens) for g in groups]
    assert 6 <= sum("Action A:\n3+4=7" in text for text in asked) <= 18


def test_who_learns_to_act_stands_where_the_expert_came() -> None:
    groups = groups_of("act", {"group_rollout.judge_share": 0.0}, [spelling("abc")] * 12)
    begun = {tuple(text for tag, text in turns(g.episodes[0]) if tag == "expert") for g in groups}
    assert begun == {(), ("a",), ("a", "b")}


def test_the_agent_goes_on_from_where_the_expert_failed() -> None:
    expert = toys.ScriptedSampler(replies=list("accccc"))
    others = {"teacher": toys.generator(expert.policy, expert)}
    settings = {"group_rollout.expert": "teacher", "group_rollout.starts": 1}
    group, signals, sampler, stages = play("eef", [*"cccccc", *"<<b"], settings, 1, others, task=spelling())
    (found,) = group.demonstrations
    assert turns(found) == [(MOVE, c) for c in "acc<<b"]
    assert [s.sampled for s in found.spans if s.role == "assistant"] == [False] * 3 + [True] * 3
    assert decode(sampler.asked[6]).count("written") == 4, "it sees what came of the expert's turns"
    assert [[text.strip() for _, text, _ in trained(s, "imitation")] for s in signals] == [list("acc<<b")]
    assert stages["credit"].report()["continued"] == 1.0


def test_a_scripted_expert_follows_its_plan_after_a_slip() -> None:
    settings = {"group_rollout.slips": 1.0, "group_rollout.starts": 0}
    group, *_ = play("eef", ["c"] * 9, settings, 1, task=spelling("abc", turns=9))
    assert not group.demonstrations, "it erred at every turn and gave up"


def test_fragments_are_compared_behind_what_was_said_before_them() -> None:
    """Two rounds: the second goes on from the first again, as the release does; below 'f(a=' the values 1 and 2 part."""
    said = ["f(a=1, b=2)", "f(a=1, b=3)", "A", "f(a=1, b=2)", "f(a=9, b=3)", "D"]
    settings = {"group_rollout.warmup_share": 0.0, "group_rollout.width": 2, "group_rollout.simulations": 2}
    task = toys.task(reference="f(a= 1, b= 2)")
    group, signals, sampler, _ = play("itool", said, settings, task=task)
    assert "The right response:\nf(a= 1, b= 2)" in decode(sampler.asked[2])
    for signal in signals:
        (part,) = trained(signal)
        whole = decode(signal.episode.tokens)
        assert part[0] == "fragment"
        assert whole.endswith(part[1])
        assert not signal.episode.sampled.any()
    assert len(group.demonstrations) % 2 == 0
    group, *_ = play("itool", [], {}, task=task)
    assert [e.player for e in group.demonstrations] == ["demonstration"], "the warm-up"


def test_what_they_need_is_said() -> None:
    assert "answer" in find("step").all_needs
    assert "answer" in find("act").all_needs
