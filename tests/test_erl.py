"""ERL as token rows: what is shown, what is trained, and by how much; its memory; attempts in environments."""

import asyncio
from dataclasses import replace

import pytest

import toys
import worlds_of_letters as letters
from etude.assembly import build
from etude.batch import pack
from etude.credit.attempts import compared, without_help
from etude.errors import UserError
from etude.evaluate.transitions import second_attempt
from etude.methods import find
from etude.methods.self_correction.erl import Reflect
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.second import between_tags
from etude.tasks import load
from etude.types import Message, Request
from second_attempts import attempt_of, decode, plain, play, seven, trained


def test_erl_as_token_rows() -> None:
    """One episode: attempt, reflection, second attempt, each in view of what it should be; and the distilled row."""
    group, signals, sampler, _ = play("erl", ["5", "<prompt>aim higher</prompt>", "7"])
    (episode,) = group.episodes
    assert [(s.role, s.tag, s.sampled, s.restart) for s in episode.spans] == [
        ("user", "prompt", False, False),
        ("assistant", "attempt 1", True, False),
        ("user", "prompt", False, True),
        ("assistant", "reflection", True, False),
        ("user", "prompt", False, True),
        ("assistant", "attempt 2", True, False),
    ]
    assert [v.correct for v in episode.verdicts] == [False, True]
    assert episode.scores == {"reward": 1.0, "first": 0.0, "second": 1.0}
    reflecting, again = decode(sampler.asked[1]), decode(sampler.asked[2])
    assert "q0" in reflecting
    assert "5" in reflecting
    assert "too low" in reflecting
    assert "aim higher\n\nq0" in again
    assert "prompt>" not in again
    assert "Your answer" not in again, "the second attempt sees advice and question, not the first attempt"
    whole, kept = signals
    assert [t for t, _, _ in trained(whole)] == ["attempt 1", "reflection", "attempt 2"]
    assert trained(kept, "distilled") == [("attempt 2", "7", 1.0)]
    assert trained(kept) == []
    batch = pack(signals)
    last = batch.tokens[batch.episode == 1].tolist()
    assert decode(last) == plain() + "7", (
        "the bare question and the second attempt, nothing of the reflection"
    )
    assert not batch.sampled[batch.episode == 1].any(), "it was not sampled under that prompt"
    assert batch.sequences == 4


def test_erl_compares_parts_of_a_kind() -> None:
    """Four episodes: right at once; mended; failed twice; mended. Each kind has its own mean."""
    settings = {"credit.std": False}
    replies = ["7", "1", "r", "7", "2", "r", "2", "3", "r", "7"]
    group, signals, _, _ = play("erl", replies, settings, samples=4)
    assert [e.scores.get("second") for e in group.episodes] == [None, 1.0, 0.0, 1.0]
    wholes, kept = (
        [s for s in signals if "policy" in s.weights],
        [s for s in signals if "distilled" in s.weights],
    )
    assert [trained(s)[0][2] for s in wholes] == [0.75, -0.25, -0.25, -0.25]
    third = round(1 / 3, 3)
    assert [[a for _, _, a in trained(s)[1:]] for s in wholes] == [[], [third] * 2, [-0.667] * 2, [third] * 2]
    assert len(kept) == 2
    assert compared([]) == compared([]) == []


def test_what_worked_gets_likelier_by_its_reward() -> None:
    """The distilled row alone: d loss / d log pi = -max(r_2, 0), on the second attempt and nowhere else."""
    _, (_, kept), sampler, stages = play("erl", ["5", "r", "7"], {"objective.distil_weight": 0.5})
    batch = pack([kept])
    (term,) = [t for t in stages["objective"].terms if t.weight == "distilled"]
    out = sampler.policy.outputs(batch)
    logp = out.logp.detach().requires_grad_()
    (term.coefficient * term.total(toys.replace(out, logp=logp), batch)[0]).backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == (-0.5 * batch.weight("distilled").double()).tolist()
    assert batch.weight("distilled").sum() == 2


@pytest.mark.parametrize("name", ["erl", "rltf_sd"])
def test_what_is_distilled_counts_as_one_among_all(name: str) -> None:
    """One mended attempt of four weighs as much as one of them, not as much as all four."""
    replies = {"erl": ["7", "7", "7", "5", "r", "7"], "rltf_sd": ["7", "7", "7", "5", "c", "7"]}[name]
    _, signals, _, stages = play(name, replies, samples=4)
    assert len(signals) == 5
    batch = pack(signals)
    counts = {
        t.weight: t.count(batch) for t in stages["objective"].terms if t.weight in ("policy", "distilled")
    }
    assert counts == {"policy": 4.0, "distilled": 4.0}
    alone = pack([s for s in signals if "distilled" in s.weights])  # a mini-batch may hold nothing else
    assert {t.count(alone) for t in stages["objective"].terms if t.weight == "distilled"} == {1.0}


def test_erl_parts_can_be_left_untrained() -> None:
    settings = {"credit.train_reflections": False, "credit.train_second": False}
    _, (whole, _), _, _ = play("erl", ["5", "r", "7"], settings)
    assert [t for t, _, _ in trained(whole)] == ["attempt 1"]


def test_erl_remembers_what_worked_from_one_step_to_the_next() -> None:
    group, _, sampler, stages = play("erl", ["5", "<prompt>count on</prompt>", "7"])
    reflect = stages["rollout"]
    assert reflect.memory == ""
    assert "Advice that helped before" not in decode(sampler.asked[1])
    reflect.observe([group], [])
    assert reflect.memory == "count on"
    assert reflect.report() == {"remembers": 1.0}
    fresh = Reflect()
    fresh.load_state_dict(reflect.state_dict())
    sampler.replies = ["4", "<prompt>guess</prompt>", "3"]
    rollouts = GroupRollout(
        toys.task(1, check=seven),
        Request(),
        1,
        toys.generator(sampler.policy, sampler),
        toys.check_runner,
        fresh,
        stages["reward"],
        5,
    )
    failed = asyncio.run(rollouts.group(stages["group_rollout"]))
    assert "Advice that helped before: count on" in decode(sampler.asked[4])
    fresh.observe([failed], [])
    assert fresh.memory == "count on", "advice that did not help replaces nothing"


def test_the_loop_tells_the_memory_and_resumes_it(tmp_path) -> None:
    from etude.train.loop import train
    from etude.train.reopen import resume
    from etude.train.setup import start

    more = {
        "run__tasks_per_step": 4,
        "run__group_size": 4,
        "run__eval_problems": 0,
        "run__checkpoint_every": 2,
    }
    run = start(letters.plan(tmp_path, "erl", 2, **more), tmp_path / "run", letters.words())
    train(run)
    memory = run.rollout.memory
    assert memory, "some second attempt of 32 at a letter out of four is right"
    metrics = run.directory.metrics()[-1]
    run.close()
    again, _ = resume(tmp_path / "run", letters.words())
    assert again.rollout.memory == memory
    again.close()
    ways = [metrics[f"attempts/{w}"] for w in ("right_right", "right_wrong", "wrong_right", "wrong_wrong")]
    assert sum(ways) == pytest.approx(1)
    assert metrics["attempts/first"] == pytest.approx(ways[0] + ways[1])


def test_an_environment_is_tried_twice_with_seeds_of_their_own() -> None:
    """Two walks over one slippery lake; both are credited, every move of them; the ice differs."""
    lake = load("frozen_lake:feedback=hint,slippery=true,size=3,turns=4,holes=0").draw(Request(), 0, 0)
    drawn = []

    def environment(seed: int):
        drawn.append(seed)
        return lake.environment(seed)

    task = toys.replace(lake, environment=environment)
    group, signals, sampler, _ = play("erl", ["up"] * 4 + ["r"] + ["up"] * 4, task=task)
    (episode,) = group.episodes
    assert len(set(drawn)) == 2
    assert attempt_of(episode).max() == 2
    assert [t for t, _, _ in trained(signals[0])] == ["attempt 1"] * 4 + ["reflection"] + ["attempt 2"] * 4
    assert "Your walk: turn 1: up to row" in decode(sampler.asked[4]), (
        "the trace is what the policy reflects on"
    )
    alone = without_help(episode, "attempt 2")
    assert alone is not None
    assert [s.tag for s in alone.spans if s.role == "assistant"] == ["attempt 2"] * 4
    assert not alone.sampled.any()
    assert decode(alone.spans[0].tokens) == decode(episode.spans[0].tokens), (
        "the question as it is asked at first"
    )


@pytest.mark.parametrize(
    ("said", "advice"),
    [("<prompt> a b </prompt>", "a b"), ("so: <PROMPT>a", "a"), ("no tags", "no tags"), ("", "")],
)
def test_advice_is_read_leniently(said: str, advice: str) -> None:
    assert between_tags(said) == advice


def test_wordings_are_settings() -> None:
    settings = {
        "rollout.ask": "{question}|{answer}|{feedback}",
        "rollout.again": "{question}\n\nHint: {advice}",
    }
    _, _, sampler, _ = play("erl", ["5", "r", "7"], settings)
    assert decode(sampler.asked[1]) == plain("q0|5|too low")
    assert decode(sampler.asked[2]) == plain("q0\n\nHint: r")
    with pytest.raises(UserError, match=r"its fields are \{question\}, \{advice\}"):
        build(find("erl"), {"rollout.again": "{wisdom}"})


def test_hints_may_join_the_feedback() -> None:
    for number, told in ((0, "too low"), (1, "too low Hint: add"), (9, "too low Hint: 3+4")):
        settings = {"rollout.hint": number, "rollout.again": "{feedback}", "rollout.critic": "feedback"}
        assert decode(play("rltf_sd", ["5", "7"], settings)[2].asked[1]) == plain(told)


def test_eval_reflects_in_the_words_of_training() -> None:
    """`etude eval --again reflect` asks what ERL asks while it remembers nothing."""
    replies = ["5", "<prompt>aim higher</prompt>", "7"]
    trained_with = play("erl", replies)[2].asked
    sampler = toys.ScriptedSampler(replies=list(replies))
    rollouts = GroupRollout(
        toys.task(check=seven),
        Request(),
        1,
        toys.generator(sampler.policy, sampler),
        toys.check_runner,
        second_attempt("reflect"),
        build(find("erl"))[1]["reward"],
        5,
    )
    asyncio.run(rollouts.group(build(find("erl"))[1]["group_rollout"]))
    assert [decode(a) for a in sampler.asked] == [decode(a) for a in trained_with]


def test_the_question_is_the_last_message() -> None:
    task = replace(toys.task(check=seven), prompt=(Message("system", "s0"), Message("user", "q0")))
    _, _, sampler, _ = play("erl", ["5", "<prompt>aim higher</prompt>", "7"], task=task)
    for asked in sampler.asked[1:]:
        assert "q0" in decode(asked)
        assert decode(asked).count("s0") == 1, "the system message stays as it is"
