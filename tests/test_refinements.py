"""Answers that are refined, corrected or taken up again: what is asked, what is trained, what was thrown away."""

import re
from dataclasses import replace

import numpy as np
import pytest

import toys
import worlds_of_letters as letters
from etude import seeds
from etude.fixtures.inference import answered
from etude.methods import find
from etude.methods.self_correction import cosc
from etude.tasks.check import NoText
from etude.types import Message, Task
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
    replies = ["abcdef"] * 5  # longer than any run: the rest is not taken
    _, (signal,), sampler, _ = play(
        "scheduled_sampling", list(replies), {**settings, "group_rollout.own_share": 0.5}
    )
    read = signal.extras["read"].astype(int)
    assert len(sampler.asked) > 1, "several runs"
    own = seeds.generator(seeds.key("toy"), "own").random(len(read)) < 0.5
    own &= signal.weights["imitation"] > 0
    own[-1] = False
    letters_read = np.array([decode([token]) in set("abcdef") for token in read])
    assert letters_read.tolist() == own.tolist()
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


def pair_world():
    """A world of two turns, won by saying a, then b."""
    problems = (Task((Message("user", w),), letters.First(w), reference=w) for w in "ab")
    return replace(toys.task(), environment=letters.Pair(*problems), check=NoText("pair"))


def parts(trace) -> list[tuple[str, str]]:
    return [(s.tag, decode(s.tokens).strip()) for s in trace.spans if s.role == "assistant"]


def test_agent_r_takes_a_bad_course_back_and_goes_on_as_the_good_one_went() -> None:
    """Three courses: x b, a b, and, where the tree promised most, after a: y. The policy finds x bad at once."""
    replies = ["x", "b", "a", "b", "y", "it harms. Judgement: Bad"]
    group, signals, sampler, _ = play("agent_r", replies, {"group_rollout.width": 2}, 3, task=pair_world())
    assert [e.correct for e in group.episodes] == [False, True, False]
    assert [e.index for e in group.episodes] == [0, 1, 2]
    assert sampler.asked[4].tolist() == sampler.asked[3].tolist(), (
        "the second turn after a, without asking for a again"
    )
    judging = decode(sampler.asked[5])
    assert "The next action:\nx" in judging
    assert "What came of it:\nb" in judging
    found = sorted(parts(trace) for trace in group.demonstrations)
    assert [[tag for tag, _ in trace] for trace in found] == [
        ["bad", "bad", "revision", "good"],
        ["bad", "revision", "good", "good"],
    ]
    assert [[said for tag, said in trace if tag != "revision"] for trace in found] == [
        ["a", "y", "b"],
        ["x", "a", "b"],
    ]
    good, *traces = signals
    assert [said for _, said, _ in trained(good, "imitation")] == ["a", "b"]
    assert [[tag for tag, _, _ in trained(s, "imitation")] for s in traces] in (
        [["revision", "good"], ["revision", "good", "good"]],
        [["revision", "good", "good"], ["revision", "good"]],
    )
    whole = decode(max((s.episode.tokens for s in traces), key=len))
    assert "ok." in whole


def test_agent_r_cuts_where_it_is_told_to() -> None:
    for cut, bad in (("first", ["x"]), ("end", ["x", "b"])):
        settings = {"group_rollout.cut": cut}
        group, *_ = play("agent_r", ["x", "b", "a", "b"], settings, 2, task=pair_world())
        assert [said for tag, said in parts(group.demonstrations[0]) if tag == "bad"] == bad


def test_a_world_that_does_not_repeat_itself_is_no_tree() -> None:
    class Moody(letters.Pair):
        made = 0

        def __call__(self, seed: int = 0):
            Moody.made += 1
            return Moody(*self.problems)

        def act(self, text: str):
            said, verdict = super().act(text)
            return f"{said}{Moody.made}", verdict

    task = pair_world()
    task = replace(task, environment=Moody(*task.environment.problems))
    with pytest.raises(AssertionError, match="did not say the same again"):
        play("agent_r", ["x", "b", "a", "b", "y"], {"group_rollout.width": 2}, 3, task=task)


def test_pit_is_shown_the_tasks_answer_first_and_then_the_starts() -> None:
    def shown(settings, replies=()) -> tuple:
        start = toys.ScriptedSampler(replies=list(replies))
        generators = {"reference": toys.generator(start.policy, start)}
        group, _, sampler, _ = play("pit", ["7", "6"], settings, 2, generators)
        return group, decode(sampler.asked[0]), start

    group, asked, start = shown({})
    assert not start.asked
    assert "3+4=7" in asked
    assert asked.count("Improve this answer.") == 1
    assert [e.reward for e in group.episodes] == [0.0, -1.0], "the solution was right already"
    group, asked, start = shown({"group_rollout.own_from": 0.0}, ["8"])
    assert decode(start.asked[0]) == plain()
    assert "3+4=7" not in asked
    assert [e.reward for e in group.episodes] == [1.0, 0.0]
    assert group.task.meta["parent"] != group.task.key


def test_pit_is_examined_by_improving_its_own_answer() -> None:
    group, _, sampler, _ = play(
        "pit", ["5", "6", "7"], {"group_rollout.referenced": False, "rollout.improvements": 2}
    )
    assert [v.correct for v in group.episodes[0].verdicts] == [False, False, True]
    assert decode(sampler.asked[2]).count("Improve this answer.") == 2


def test_the_gap_model_reads_the_answer_that_is_improved_on() -> None:
    _, signals, *_ = play("pit_reward", ["7", "5"], None, 2)
    texts = [decode(s.episode.tokens) for s in signals]
    assert [t.split("Improve")[0].count("7") for t in texts] == [0, 1, 0, 1], (
        "behind the worse, itself, itself, the better"
    )
    assert [t.rstrip().endswith("7") for t in texts] == [True, True, False, False]


def test_code_cot_repairs_by_the_error_of_its_own_tests() -> None:
    wrong, right = "```python\ndef f(x):\n    return x\n```", "```python\ndef f(x):\n    return 2*x\n```"
    tests = "```python\nassert f(2) == 4\nf = lambda x: 4\n```"
    found = answered(find("code_cot"), wrong, tests, "```python\ndef f(x) return\n```", right)
    assert found.text == right
    assert "AssertionError: f(2) == 4" in found.asked[2], (
        "and the tests cannot put another program in its place"
    )
    assert "cannot be read" in found.asked[3]
    assert len(answered(find("code_cot"), right, tests).asked) == 2, "nothing to repair"


def test_cosc_reads_outputs_and_learns_all_but_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cosc.output_of("```python\nprint(1)\n```\nNo.\n```python\nprint(3+5)\n```") == "8", (
        "the last program"
    )
    monkeypatch.setattr(cosc, "_BLOCK", re.compile("run (.*)"))  # the tiny tokenizer knows no backtick
    group, (signal,), sampler, _ = play("cosc", ["run 3+5", "No.\nRevise.", "run 3+4", "It is 7"])
    assert "The output:\n8\n" in decode(sampler.asked[1])
    assert "Write the program anew." in decode(sampler.asked[2])
    assert group.episodes[0].correct
    assert [tag for tag, _, _ in trained(signal, "imitation")] == [
        "program 1",
        "conclusion 1",
        "program 2",
        "conclusion 2",
    ]
    group, _, sampler, _ = play("cosc", ["run 1", "7\nRevise."], {"rollout.programs": 1})
    assert [v.correct for v in group.episodes[0].verdicts] == [False], (
        "the last conclusion is judged, whatever it says"
    )
    group, signals, sampler, _ = play("cosc", ["7", "5"])
    assert "There was no program to run." in decode(sampler.asked[1])
    assert not signals, "a chain that ends wrong"
    assert group.episodes[0].notes["programs"] == [1]


def test_glore_keeps_what_was_sound_and_marks_the_first_bad_step() -> None:
    """A wrong draft of three steps: of two continuations from the first the second ends right, from the second none does."""
    replies = ["3+4\n3+5\n8", "6", "x\n7", "8", "9"]
    group, signals, sampler, _ = play("glore_refiner", replies, {"group_rollout.probes": 2}, 1)
    noted = group.episodes[0].notes["steps"]
    assert [bool(tokens) for tokens in noted["verified"]] == [True, False]
    assert [decode(asked).rsplit("\n", 1)[-1] for asked in sampler.asked[1:3]] == ["", ""], (
        "after whole steps"
    )
    assert [trained(s, "imitation") for s in signals] == [[("refined", "3+4\nx\n7", 0.0)]] * 2
    whole, local = (decode(s.episode.tokens) for s in signals)
    assert "[BAD]" not in whole
    assert "3+4\n[BAD] 3+5\n8" in local or "3+4\nBAD 3+5\n8" in local


def test_a_stepwise_reward_model_learns_from_continuations_and_an_outcome_model_from_the_end() -> None:
    replies = ["3+4\n3+5\n8", "3+4\n7", "7", "8"]
    _, signals, *_ = play("sorm", replies, {"group_rollout.probes": 1, "credit.balanced": False}, 2)
    labels = [(decode(s.episode.tokens).removeprefix(plain()), float(s.extras["label"][-1])) for s in signals]
    assert labels == [("3+4\n", 1), ("3+4\n3+5\n", 0), ("3+4\n3+5\n8", 0), ("3+4\n", 1), ("3+4\n7", 1)]
    (stop,) = toys.TablePolicy().renderer.stops[:1]
    assert [s.episode.tokens.tolist().count(stop) for s in signals] == [2] * 5, (
        "each ends as the prompt and a reply do"
    )
    _, signals, *_ = play("sorm", ["3+4\n3+5\n8"], {"group_rollout.probes": 0})
    assert [float(s.extras["label"][-1]) for s in signals] == [0, 0, 0]
