"""Second attempts as token rows: who said what, what of it is trained, and by how much."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from etude.rollout.speakers import Remote, Speaker

import toys
import worlds_of_letters as letters
from etude import seeds
from etude.batch import pack
from etude.credit.attempts import compared, without_help
from etude.errors import UserError
from etude.evaluate.transitions import second_attempt, transitions
from etude.methods import build, find
from etude.methods.self_correction.lemma import FIX
from etude.methods.self_correction.rise_editing import close_enough
from etude.rollout.conversation import Generator
from etude.rollout.edits import subtle_error
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.second import Reflect, between_tags
from etude.tasks import load
from etude.types import Message, Request, SamplingParams, Verdict


def decode(tokens) -> str:
    return toys.tokenizer().decode(tokens)


def seven(answer: str) -> Verdict:
    right = answer.strip().endswith("7")
    return Verdict(float(right), right, "" if right else "too low")


def play(name, replies, settings=None, samples=1, others=None, task=None, context=None):
    """One group of a recipe whose policy says `replies`, player after player: (group, signals, sampler, stages)."""
    recipe, stages = build(find(name), settings or {})
    policy = toys.TablePolicy(0, dict(stages["objective"].heads))
    sampler = toys.ScriptedSampler(policy=policy, replies=list(replies))
    where = context or toys.context(policy, auxiliary=recipe.all_auxiliary)
    speaker = toys.generator(policy, sampler)
    rollouts = GroupRollout(
        task or toys.task(check=seven),
        Request(),
        samples,
        speaker,
        toys.check_runner,
        stages["rollout"],
        stages["reward"],
        seeds.key("toy"),
        generators=others or {},
    )
    group = asyncio.run(rollouts.group(stages["group_rollout"]))
    assert not group.failed, group.failed[0].failure
    signals = stages["credit"]([group], where)
    return group, signals, sampler, stages


def trained(signal, row="policy") -> list[tuple[str, str, float]]:
    """(tag, text, advantage) of every span of which any token has a weight in `row`."""
    found, start = [], 0
    for span in signal.episode.spans:
        on = signal.weights.get(row, np.zeros(len(signal.advantage)))[start : start + len(span)]
        if on.any():
            assert on.all(), "a part is trained whole"
            mine = signal.advantage[start : start + len(span)]
            found.append((span.tag, decode(span.tokens), round(float(mine[0]), 3)))
        start += len(span)
    return found


def attempt_of(episode) -> np.ndarray:
    """int64[T]: the number of the attempt that each token belongs to as the policy's own word; 0 elsewhere."""
    rows = []
    for span in episode.spans:
        name, _, number = span.tag.partition(" ")
        rows.append(np.full(len(span), int(number) if name == "attempt" and number.isdigit() else 0))
    return np.concatenate(rows)


def plain(text: str = "q0") -> str:
    return decode(toys.TablePolicy().renderer.prompt([Message("user", text)]))


# ---- ERL ---------------------------------------------------------------------------------------------


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
    assert not batch.sampled[batch.episode == 1].any(), "nobody sampled it under that prompt"
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
    _, (_, kept), sampler, stages = play("erl", ["5", "r", "7"], {"objective.distil": 0.5})
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
    settings = {"credit.reflections": False, "credit.seconds": False}
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
    from etude.train.setup import resume, start

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


def test_a_world_is_tried_twice_with_a_luck_of_its_own() -> None:
    """Two walks over one slippery lake; both are credited, every move of them; the ice differs."""
    lake = load("frozen_lake:feedback=hint,slippery=true,size=3,turns=4,holes=0").draw(Request(), 0, 0)
    lucks = []

    def environment(seed: int):
        lucks.append(seed)
        return lake.environment(seed)

    task = toys.replace(lake, environment=environment)
    group, signals, sampler, _ = play("erl", ["up"] * 4 + ["r"] + ["up"] * 4, task=task)
    (episode,) = group.episodes
    assert len(set(lucks)) == 2
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


# ---- who speaks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("who", "companion"), [("start", "reference"), ("teacher", "teacher")])
def test_another_may_reflect_and_is_not_trained(who: str, companion: str) -> None:
    other = toys.ScriptedSampler(replies=["<prompt>listen</prompt>"])
    generators = {companion: toys.generator(other.policy, other)}
    group, signals, sampler, stages = play("erl", ["5", "7"], {"rollout.speaker": who}, others=generators)
    assert stages["rollout"].reads == {companion}
    (episode,) = group.episodes
    reflection = next(s for s in episode.spans if s.tag == "reflection")
    assert (decode(reflection.tokens), reflection.sampled) == ("<prompt>listen</prompt>", False)
    assert [t for t, _, _ in trained(signals[0])] == ["attempt 1", "attempt 2"]
    assert "listen\n\nq0" in decode(sampler.asked[1])
    assert len(other.asked) == 1


def test_a_frozen_start_is_loaded_when_it_is_to_speak(tmp_path) -> None:
    from etude.train.setup import start

    more = {"run__eval_problems": 0, "rollout__speaker": "start"}
    run = start(letters.plan(tmp_path, "erl", 1, **more), tmp_path / "run", letters.words())
    assert set(run.generators) == {"reference"}
    run.close()
    with pytest.raises(UserError, match=r"a second model \(--set run\.teacher=NAME\)"):
        start(letters.plan(tmp_path, "erl", 1, rollout__speaker="teacher"), tmp_path / "no", letters.words())
    with pytest.raises(UserError, match="it must read http://HOST/v1#MODEL"):
        start(letters.plan(tmp_path, "erl", 1, rollout__speaker="remote"), tmp_path / "no", letters.words())


class Chat(BaseHTTPRequestHandler):
    asked: list = []  # noqa: RUF012
    fail = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Chat.asked.append((self.path, body, self.headers.get("Authorization")))
        broken, Chat.fail = Chat.fail > 0, Chat.fail - 1
        self.send_response(503 if broken else 200)
        self.end_headers()
        said = {"choices": [{"message": {"content": "<prompt>from afar</prompt>"}}]}
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_) -> None: ...


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch):
    Chat.asked, Chat.fail = [], 0
    server = HTTPServer(("127.0.0.1", 0), Chat)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    yield f"http://127.0.0.1:{server.server_port}/v1#tiny"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_remote_model_may_reflect(chat: str) -> None:
    settings = {"rollout.speaker": "remote", "rollout.address": chat}
    group, signals, sampler, _ = play("erl", ["5", "7"], settings)
    assert "from afar\n\nq0" in decode(sampler.asked[1])
    assert [t for t, _, _ in trained(signals[0])] == ["attempt 1", "attempt 2"]
    ((path, body, secret),) = Chat.asked
    assert (path, body["model"], body["max_tokens"], secret) == (
        "/v1/chat/completions",
        "tiny",
        6,
        "Bearer sesame",
    )
    assert body["messages"][-1]["role"] == "user"
    assert "too low" in body["messages"][-1]["content"]
    assert group.episodes[0].notes["reflection"] == "from afar"


def test_a_remote_model_is_asked_again_and_then_the_episode_fails(chat: str) -> None:
    speaker = Speaker("remote", chat)
    assert speaker.remote is not None
    speaker.remote.pause = 0.0
    Chat.fail = 2
    said = asyncio.run(speaker.remote([Message("user", "?")], SamplingParams(greedy=True), 1))
    assert (said, len(Chat.asked)) == ("<prompt>from afar</prompt>", 3)
    assert Chat.asked[0][1]["temperature"] == 0.0
    Chat.fail = 9
    with pytest.raises(Exception, match="did not answer") as caught:
        asyncio.run(speaker.remote([Message("user", "?")], SamplingParams(), 1))
    assert caught.value.failure.where == "sampler"
    with pytest.raises(UserError, match="it must read"):
        Remote("localhost:8000")


# ---- SCoRe, UFO, RISE: one conversation --------------------------------------------------------------


def score_rows(progress: float, settings=None):
    policy = toys.TablePolicy()
    context = toys.context(policy, progress=progress)
    group, signals, sampler, _ = play("score", ["5", "7", "7", "7"], settings, samples=2, context=context)
    return group, signals, sampler


def test_score_asks_again_whether_right_or_wrong_and_does_not_say() -> None:
    group, _, sampler = score_rows(0.0)
    assert [[v.correct for v in e.verdicts] for e in group.episodes] == [[False, True], [True, True]]
    for asked in sampler.asked[1::2]:
        assert "There might be an error above" in decode(asked)
        assert "too low" not in decode(asked)
    assert not any(s.restart for e in group.episodes for s in e.spans), "one conversation"


def test_score_stage_one_rewards_second_attempts_and_holds_first_ones() -> None:
    _, signals, _ = score_rows(0.2, {"credit.baseline": False})
    assert [trained(s) for s in signals] == [[("attempt 2", "7", 1.0)], [("attempt 2", "7", 1.0)]]
    for signal in signals:
        kl = {round(float(k), 3) for k in signal.weights["kl"][attempt_of(signal.episode) == 1]}
        assert kl == {0.11}
        assert {round(float(k), 3) for k in signal.weights["kl"][attempt_of(signal.episode) == 2]} == {0.01}
        assert not signal.weights["kl"][attempt_of(signal.episode) == 0].any()


def test_score_stage_two_rewards_both_and_progress_tenfold() -> None:
    _, signals, _ = score_rows(0.5, {"credit.baseline": False})
    mended, kept = signals
    assert trained(mended) == [("attempt 1", "5", 0.0), ("attempt 2", "7", 11.0)]
    assert trained(kept) == [("attempt 1", "7", 1.0), ("attempt 2", "7", 1.0)]
    assert {round(float(k), 3) for k in mended.weights["kl"][attempt_of(mended.episode) > 0]} == {0.01}
    _, centred, _ = score_rows(0.5)
    assert [a for _, _, a in trained(centred[0])] == [-0.5, 5.0]


def test_ufo_says_try_again_and_pays_less_for_later_success() -> None:
    group, _, sampler, _ = play("ufo", ["5", "5", "7"])
    (episode,) = group.episodes
    second = decode(sampler.asked[1])
    assert second.startswith(decode(sampler.asked[0]) + "5")
    assert "Incorrect. Please think again.\n\nq0" in second
    assert "too low" not in second
    assert episode.scores["won"] == 0.25
    assert episode.scores["repeated"] == pytest.approx(-0.5 / 3)
    assert episode.scores["reward"] == pytest.approx(0.25 - 0.5 / 3)
    assert len(play("ufo", ["1", "2", "3", "4", "6"])[0].episodes[0].verdicts) == 5


def test_rise_imitates_the_best_last_attempt_with_the_others_in_view() -> None:
    settings = {"rollout.candidates": 3}
    group, signals, sampler, _ = play("rise", ["5", "6", "7", "8"], settings)
    (episode,) = group.episodes
    assert [decode(s.tokens) for s in episode.spans if s.sampled] == ["5", "7"]
    (signal,) = signals
    assert trained(signal, "imitation") == [("attempt 2", "7", 0.0)]
    on = signal.weights["imitation"][attempt_of(episode) == 2]
    assert on == pytest.approx(np.exp(2.5))
    assert decode(sampler.asked[1]).count("q0") == 2, "the question is asked again"
    assert play("rise", ["5", "6", "8", "9"], settings)[1] == [], "no better than before: not imitated"
    everything = play("rise", ["5", "6", "8", "9"], {**settings, "credit.keep": "all"})[1]
    assert float(everything[0].weights["imitation"].max()) == 1.0


def test_rise_may_take_the_improved_turn_from_a_teacher() -> None:
    other = toys.ScriptedSampler(replies=["37"])
    generators = {"teacher": toys.generator(other.policy, other)}
    group, signals, _, _ = play("rise", ["5"], {"rollout.improver": "teacher"}, others=generators)
    assert [v.correct for v in group.episodes[0].verdicts] == [False, True]
    assert trained(signals[0], "imitation") == [("attempt 2", "37", 0.0)]
    assert "5" in decode(other.asked[0]), "the teacher sees the attempt that failed"
    assert not group.episodes[0].spans[-1].sampled


# ---- critiques ---------------------------------------------------------------------------------------


def test_rltf_sd_distils_under_the_bare_prompt_with_its_own_old_probabilities() -> None:
    group, signals, sampler, _stages = play("rltf_sd", ["5", "think", "7"], {"credit.floor": -100})
    whole, kept = signals
    assert [t for t, _, _ in trained(whole)] == ["attempt 1", "attempt 2"], (
        "what the judge says is not reinforced"
    )
    assert "think" in decode(sampler.asked[2])
    assert "Do not give the right answer" in decode(sampler.asked[1])
    assert trained(kept, "distilled") == [("attempt 2", "7", 1.0)]
    batch = pack(signals)
    mine = (batch.episode == 1) & batch.sampled
    expected = sampler.policy.score(batch).logp[mine]
    assert torch.allclose(batch.behaviour[mine].double(), expected, atol=1e-6), "the ratio begins at 1"
    assert float(batch.behaviour[mine][0]) != -1.0, "not as it was sampled, with the critique in view"
    few = play("rltf_sd", ["5", "think", "7"], {"credit.floor": 0})[1][1]
    assert not few.weights["distilled"].any(), "tokens too unlikely without the critique are left out"
    assert group.episodes[0].scores == {"reward": 1.0, "first": 0.0, "second": 1.0}


def test_rltf_takes_form_off_and_discounts_the_second_turn() -> None:
    settings = {"rollout.critic": "feedback", "credit.floor": -100}
    group, signals, _, _ = play("rltf_sd", ["", "7", "7"], settings, samples=2)
    assert [e.scores["first"] for e in group.episodes] == [-0.1, 1.0]
    wholes = [s for s in signals if "policy" in s.weights]
    # R_1 = -0.1 + 0.1 x 1 = 0 and 1: minus their mean
    assert [trained(s)[0][2] for s in wholes] == [-0.5, 0.5]
    (kept,) = [s for s in signals if "distilled" in s.weights]
    assert trained(kept, "distilled")[0][2] == pytest.approx(1 - 0.45)


@pytest.mark.parametrize("critic", ["policy", "start"])
def test_rltf_fm_learns_the_critique_without_what_its_writer_knew(critic: str) -> None:
    other = toys.ScriptedSampler(replies=["think"])
    generators = {"reference": toys.generator(other.policy, other)}
    replies = ["5", "think", "7"] if critic == "policy" else ["5", "7"]
    _group, signals, sampler, _ = play("rltf_fm", replies, {"rollout.critic": critic}, others=generators)
    whole, said = signals
    assert [t for t, _, _ in trained(whole)] == ["attempt 1", "attempt 2"]
    assert trained(said, "imitation") == [("critique", "think", 0.0)]
    text = decode(said.episode.tokens)
    assert "q0" in text
    assert "5" in text
    assert "too low" not in text, "the verdict and the feedback are not in its context"
    judged = decode((sampler if critic == "policy" else other).asked[critic == "policy"])
    assert "too low" in judged


def test_critique_grpo_lets_the_best_refinement_take_a_place() -> None:
    group, signals, sampler, _ = play("critique_grpo", ["1", "4", "2", "7", "3", "6"], samples=3)
    assert "About that answer: too low" in decode(sampler.asked[1])
    (refined,) = [s for s in signals if s.extras["refined"].any()]
    mine = [s for s in signals if s is not refined]
    assert decode(refined.episode.tokens) == plain() + "7"
    assert trained(refined) == [("attempt 2", "7", 0.667)]
    assert [trained(s) for s in mine] == [[("attempt 1", "1", -0.333)], [("attempt 1", "2", -0.333)], []]
    batch = pack(signals)
    assert len(torch.unique(batch.episode[batch.weight("policy") != 0])) == 3, "n in all, as before"
    all_wrong = play("dr_grpo", ["1", "2", "3"], samples=3)[1]
    assert not any(s.advantage.any() for s in all_wrong), "without refinements this group would be silent"
    assert len(group.episodes) == 3


def test_re_rest_stores_repairs_for_the_agent_and_for_the_reflector() -> None:
    group, signals, _sampler, _ = play("re_rest", ["7", "1", "17", "2", "3"], samples=3)
    assert [[v.correct for v in e.verdicts] for e in group.episodes] == [
        [True],
        [False, True],
        [False, False],
    ]
    rows = [trained(s, "imitation") for s in signals]
    assert rows == [
        [("attempt 1", "7", 0.0)],
        [("attempt 2", "17", 0.0)],
        [("attempt 2", "17", 0.0)],
        [("attempt 1", "7", 0.0)],
    ]
    texts = [decode(s.episode.tokens) for s in signals]
    assert texts[1] == plain() + "17", "the agent's repair is stored without the reflection"
    assert "too low" in texts[2]
    assert "An earlier answer:\n2" in texts[3], "what was not repaired is answered with what a sibling said"
    assert texts[3].endswith("7")
    criticised = play("re_rest", ["7", "2", "why", "3"], {"rollout.critic": "policy"}, samples=2)[1]
    assert "About that answer: why" in decode(criticised[-1].episode.tokens), (
        "as the second attempt was asked"
    )
    agent_only = play("re_rest", ["7", "1", "17", "2", "3"], {"credit.reflector": False}, samples=3)[1]
    assert len(agent_only) == 2


def guided(answers=("1",), said="no, 7", **settings):
    other = toys.ScriptedSampler(replies=[said] * len(answers))
    generators = {"reference": toys.generator(other.policy, other)}
    settings = {"group_rollout.begin": 1.0, **{f"group_rollout.{k}": v for k, v in settings.items()}}
    return *play("think_tuning", answers, settings, len(answers), generators), other


def test_think_tuning_writes_the_teacher_into_the_students_turn() -> None:
    group, (signal,), _sampler, _stages, other = guided()
    (episode,) = group.episodes
    stop = toys.tokenizer().stops[0]
    assert [(s.tag, s.sampled) for s in episode.spans] == [
        ("prompt", False),
        ("attempt", True),
        ("guidance", False),
    ]
    student, teacher = episode.spans[1:]
    assert decode(student.tokens) == "1"
    assert stop not in student.tokens.tolist(), "the turn goes on"
    assert decode(teacher.tokens) == "\nno, 7"
    assert teacher.tokens[-1] == stop
    assert episode.correct, "the whole is judged"
    assert [t for t, _, _ in trained(signal)] == ["attempt", "guidance"]
    assert signal.extras["guidance"].sum() == len(teacher)
    assert "A student's answer:\n1" in decode(other.asked[0])


def test_think_tuning_teaches_the_teachers_words() -> None:
    """The gradient reaches guidance tokens, with the weight A where g = 0."""
    _group, signals, sampler, _stages, _ = guided(("1", "2"))
    for signal, sign in zip(signals, (1.0, -1.0), strict=True):
        signal.advantage[:] = np.where(signal.weights["policy"] > 0, sign, 0)
    batch = pack(signals)
    out = sampler.policy.outputs(batch)
    logp = out.logp.detach().requires_grad_()
    (term,) = build(find("think_tuning"), {"objective.slack": 0.0})[1]["objective"].terms
    term.total(toys.replace(out, logp=logp), batch)[0].backward()
    theirs = batch.extras["guidance"] > 0
    assert logp.grad is not None
    usual = theirs & (logp > np.log(1e-3))  # below, the denominator is kept at 0.001
    assert int(usual.sum()) > 8
    assert torch.allclose(logp.grad[usual], -batch.advantage[usual].double(), atol=1e-6)


def test_the_student_may_write_on_after_the_teacher() -> None:
    other = toys.ScriptedSampler(replies=["try more"])
    generators = {"reference": toys.generator(other.policy, other)}
    settings = {"group_rollout.begin": 1.0, "group_rollout.goes_on": True}
    group, (signal,), _, _ = play("think_tuning", ["1", "7"], settings, 1, generators)
    assert [t for t, _, _ in trained(signal)] == ["attempt", "guidance", "attempt"]
    assert group.episodes[0].correct


# ---- mistakes ----------------------------------------------------------------------------------------


def test_mistake_tuning_marks_the_wrong_ones() -> None:
    _, signals, _, _ = play("mistake_tuning", ["1", "7", "2"], samples=3)
    assert [trained(s, "imitation") for s in signals] == [
        [("demonstration", "3+4=7", 0.0)],
        [("attempt 1", "1", 0.0)],
    ]
    right, wrong = (decode(s.episode.tokens) for s in signals)
    assert right == plain() + "3+4=7"
    assert wrong == plain("q0\n\n[INCORRECT RATIONALE]") + "1"


STEPS = {"reference": "2+3=5\n5*2=10\n10-3=7", "answer": "7"}


def test_lemma_goes_wrong_as_the_attempt_did_and_then_right() -> None:
    task = toys.task(check=seven, **STEPS)
    settings = {"group_rollout.own": 1, "group_rollout.injected": 0, "group_rollout.fresh": 0.0}
    group, signals, _, _ = play("lemma", ["2+3=5\n5*2=12\n12-3=9"], settings, task=task)
    assert len(group.demonstrations) == 2
    shown, trace = signals
    assert trained(shown, "imitation") == [("demonstration", STEPS["reference"], 0.0)]
    (_, error, _), (_, correction, _) = trained(trace, "imitation")
    assert error == "2+3=5\n5*2=12\n"
    assert correction == f"\n{FIX}\n5*2=10\n10-3=7"
    assert trace.episode.tokens[-1] == toys.tokenizer().stops[0]
    masked = play("lemma", ["2+3=5\n5*2=12\n12-3=9"], {**settings, "credit.mask": True}, task=task)[1]
    assert [t for t, _, _ in trained(masked[1], "imitation")] == ["correction"]
    again = play("lemma", ["9"], {**settings, "group_rollout.fresh": 1.0}, task=task)[1]
    assert trained(again[1], "imitation")[1][1].endswith("start again.\n" + STEPS["reference"])


def test_lemma_puts_errors_in_by_rule() -> None:
    task = toys.task(check=seven, **STEPS)
    _, signals, _, _ = play("lemma", ["7"], {"group_rollout.injected": 3}, task=task)
    traces = [trained(s, "imitation") for s in signals[1:]]
    assert len(traces) == 3
    for (tag, error, _), (_, correction, _) in traces:
        assert tag == "error"
        steps = error.split("\n")
        right = STEPS["reference"].split("\n")
        assert steps[:-1] == right[: len(steps) - 1]
        assert steps[-1] != right[len(steps) - 1]
        assert correction.endswith("10-3=7")


def test_edits_are_small_and_change_something() -> None:
    for i in range(40):
        edited = subtle_error("12 + 30 = 42, so 42 * 2 = 84", seeds.generator(i))
        assert edited is not None
        assert edited != "12 + 30 = 42, so 42 * 2 = 84"
        assert close_enough("12 + 30 = 42, so 42 * 2 = 84", edited, 0.5)
    assert subtle_error("no number", seeds.generator(0)) is None
    assert not close_enough("12 + 30", "something else entirely", 0.5)
    assert not close_enough("a ", "a", 0.5)


def test_rise_editing_prefers_the_step_at_its_place() -> None:
    replies = ["2+3=5\n5*2=10\n10-3=7", "1"]
    _group, signals, _sampler, _stages = play("rise_editing", replies, samples=2)
    assert [float(s.extras["pair"][0]) for s in signals] == [1, 1, 2, 2]
    chosen, rejected = signals[2:]
    (_, right, up), (_, wrong, down) = trained(chosen)[0], trained(rejected)[0]
    assert (up, down) == (1.0, -1.0)
    assert right.strip() in replies[0].split("\n")
    assert wrong.strip() not in replies[0].split("\n")
    before = decode(chosen.episode.spans[0].tokens)
    assert before == decode(rejected.episode.spans[0].tokens)
    assert (before + right) in plain() + replies[0]
    other = toys.ScriptedSampler(replies=["5*2=11"])
    asked = play(
        "rise_editing",
        [*replies, "2+3=6"],
        {"group_rollout.editor": "policy", "group_rollout.likeness": 0.0},
        samples=2,
    )
    assert "with one subtle error" in decode(asked[2].asked[2])
    assert other.replies


# ---- measuring ---------------------------------------------------------------------------------------


def test_the_four_ways() -> None:
    replies = ["7", "7", "7", "2", "1", "7", "1", "3", "1", "17"]  # first and second, player by player
    found = transitions([play("score", replies, samples=5)[0]])
    assert found == {
        "again": 1.0,
        "first": 0.4,
        "second": 0.6,
        "right_right": 0.2,
        "right_wrong": 0.2,
        "wrong_right": 0.4,
        "wrong_wrong": 0.2,
    }
    assert transitions([play("grpo", ["7", "1"], samples=2)[0]]) == {}
    with pytest.raises(UserError, match="did you mean 'reconsider'"):
        second_attempt("reconsidr")


@pytest.mark.parametrize("way", ["feedback", "reconsider", "reflect"])
def test_eval_measures_second_attempts(way: str, tmp_path) -> None:
    from etude.evaluate.result import EvalResult
    from etude.report.terminal import eval_screen
    from etude.train.measure import Exam, evaluate_model

    held = letters.words().holdout(6, 0)
    exam = Exam("words", held, 2, 0, changes={"precision": "fp32", "max_tokens": "2"}, again=way)
    result = evaluate_model(letters.model(tmp_path), exam)
    facts = result.to_dict()
    assert facts["attempts"]["second"] == pytest.approx(facts["mean"])
    assert EvalResult.from_dict(json.loads(json.dumps(facts))).attempts == facts["attempts"]
    assert "wrong -> right" in eval_screen(facts)
    single = evaluate_model(letters.model(tmp_path), Exam("words", held, 2, 0, changes=exam.changes))
    assert "attempts" not in single.to_dict()


def test_voices_reach_players() -> None:
    speaker = Generator(None, None, SamplingParams())
    stages = build(find("grpo"))[1]
    rollouts = GroupRollout(
        toys.task(),
        Request(),
        1,
        speaker,
        toys.check_runner,
        stages["rollout"],
        stages["reward"],
        1,
        generators={"x": speaker},
    )
    assert rollouts.conversation(0).generators == {"x": speaker}


def test_show_marks_what_is_trained(tmp_path) -> None:
    from etude.cli import run as etude
    from etude.report.turns import chosen, screen, turns
    from etude.train.loop import train
    from etude.train.setup import start

    more = {"run__tasks_per_step": 4, "run__group_size": 4, "run__eval_problems": 0}
    run = start(letters.plan(tmp_path, "erl", 1, **more), tmp_path / "run", letters.words())
    train(run)
    run.close()
    one, kept = chosen(tmp_path / "run", "")
    assert [t["tag"] for t in turns(one) if t["trained"]] == ["attempt 1", "reflection", "attempt 2"]
    assert [t["restart"] for t in turns(one)] == [False, False, True, False, True, False]
    assert [list(t["trained"]) for t in turns(kept)] == [[], ["distilled"]]
    said = screen([one, kept])
    assert said.count("verdict: ") == 2
    assert "made of it by credit, 1 of 1" in said
    assert chosen(tmp_path / "run", one["id"]) == [one, kept]
    alone = chosen(tmp_path / "run", kept["id"])
    assert alone == [kept], "what credit made is not made of itself"
    assert screen(alone).count("verdict: ") == 1
    assert "verdict: right" in screen(alone), "its first attempt is the second"
    assert etude(["show", str(tmp_path / "run"), "--json"]) == 0
    assert etude(["show", str(tmp_path / "run"), "7-0"]) == 2


@pytest.mark.parametrize(
    ("name", "settings", "at_work"),
    [
        ("think_tuning", {"group_rollout.begin": 1.0}, lambda s: s.extras["guidance"].any()),
        ("score", {"credit.first_stage": 0.0}, lambda s: s.advantage[attempt_of(s.episode) == 1].any()),
        ("rise_editing", {"group_rollout.likeness": 0.0}, lambda s: s.extras["pair"][0] == 2),
        (
            "lemma",
            {"group_rollout.injected": 4},
            lambda s: any(p.tag == "correction" for p in s.episode.spans),
        ),
        ("critique_grpo", {}, lambda s: s.extras["refined"].any()),
        ("rltf_sd", {"credit.floor": -100}, lambda s: "distilled" in s.weights),
        ("re_rest", {}, lambda s: any(p.tag == "attempt 2" for p in s.episode.spans)),
    ],
)
def test_the_laws_hold_where_the_method_is_at_work(name: str, settings: dict, at_work) -> None:
    """As in test_laws, for settings under which the part that is the method's own certainly occurs."""
    lesson = toys.lesson(name, settings, tasks=8)
    assert any(at_work(s) for s in lesson.signals)
    whole = toys.gradient(lesson)
    assert whole.norm() > 0
    for cut in (1, 37):
        assert torch.allclose(toys.gradient(lesson, micro_tokens=cut), whole, atol=1e-9)
    without = toys.gradient(lesson, signals=[s for s in lesson.signals if not at_work(s)])
    assert not torch.allclose(without, whole, atol=1e-6), "it changes the gradient"
