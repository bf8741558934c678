"""Episodes as token rows: what was sampled is what is trained, whatever the turns."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import toys
from etude.batch import pack, unpack
from etude.credit.group import constant
from etude.models import tiny as tiny_models
from etude.rollout.basic import retry, single
from etude.rollout.conversation import Conversation, Generator
from etude.rollout.demonstrate import demonstrate
from etude.rollout.group_rollout import GroupRollout
from etude.sampling.protocol import Sample
from etude.text import tokenizer as tokenizers
from etude.text.chat_template import Renderer
from etude.types import Message, Request, SamplingParams, Verdict


def tokenizer_where_two_are_not_one():
    """ "he" + "llo" decodes to "hello", which encodes as one token."""
    with tempfile.TemporaryDirectory() as place:
        words = ["hello", "he", "llo", *"abcdefghijklmnopqrstuvwxyz .?!'T"]
        return tokenizers.read(tiny_models.tiny_directory(Path(place) / "m", words))


class Stubborn:
    """Always answers with the two tokens, never with the one."""

    def __init__(self, tokenizer) -> None:
        self.tokens = [tokenizer.backend.token_to_id(w) for w in ("he", "llo", "<end>")]

    async def sample(self, prompt, params, key) -> Sample:
        return Sample(np.array(self.tokens, np.int32), np.array([-1, -2, -3], np.float32), "end", 7)


async def wrong(task, answer) -> Verdict:
    assert answer == "hello"
    return Verdict(0.0, False, "no")


def test_trained_tokens_are_the_sampled_ones_over_five_turns() -> None:
    known = tokenizer_where_two_are_not_one()
    sampler = Stubborn(known)
    assert known.encode("hello").tolist() != sampler.tokens[:2], "the trap is set"
    generator = Generator(sampler, Renderer(known), SamplingParams())
    conversation = Conversation(toys.task(), generator, wrong, key=1)
    episode = asyncio.run(retry(attempts=5)(toys.task(), conversation))
    sampled = episode.tokens[episode.sampled]
    assert sampled.tolist() == sampler.tokens * 5
    batch = pack([constant(episode, 1.0)])
    assert batch.tokens[batch.needed].tolist() == sampler.tokens * 5
    assert batch.behaviour[batch.needed].tolist() == [-1.0, -2.0, -3.0] * 5
    assert batch.sequences == 1, "one conversation, one sequence"
    assert len(episode.verdicts) == 5
    assert episode.policy_version == 7


def play(rollout, replies, task=None, **more):
    sampler = toys.ScriptedSampler(replies=list(replies), **more)
    task = task or toys.task()

    async def check_runner(task, answer):
        return Verdict(float(answer == "7"), answer == "7", "too low")

    conversation = Conversation(task, toys.generator(sampler.policy, sampler), check_runner, key=1)
    return asyncio.run(rollout(task, conversation)), sampler


def rows(episode) -> list[tuple[str, bool, str]]:
    decode = toys.tokenizer().decode
    return [(s.role, s.sampled, decode(s.tokens)) for s in episode.spans]


def test_retry_as_token_rows() -> None:
    episode, sampler = play(retry(3), ["5", "7"])
    assert rows(episode) == [
        ("user", False, "q0"),
        ("assistant", True, "5"),
        ("user", False, "too low"),
        ("assistant", True, "7"),
    ]
    assert episode.correct
    second = sampler.asked[1]
    first = sampler.asked[0]
    assert second[: len(first)].tolist() == first.tolist(), "the later prompt extends the earlier tokens"


def test_a_reply_cut_by_length_is_closed_before_the_next_turn() -> None:
    episode, _ = play(retry(2), ["5", "7"], ends=False)
    stop = toys.tokenizer().stops[0]
    between = episode.spans[2].tokens
    assert stop in between.tolist(), "the template closes the turn that the policy did not"
    assert not episode.spans[2].sampled


def test_hints_are_there_when_sampling_and_absent_when_training() -> None:
    async def hinted(task, conversation):
        conversation.user("q hint", instead="q")
        await conversation.check(await conversation.reply())
        return conversation.done()

    episode, sampler = play(hinted, ["7"])
    render = toys.generator(sampler.policy).renderer
    assert sampler.asked[0].tolist() == render.prompt([Message("user", "q hint")]).tolist()
    batch = pack([constant(episode, 1.0)])
    trained = batch.tokens.tolist()
    plain = render.prompt([Message("user", "q")]).tolist()
    assert trained == plain + episode.tokens[episode.sampled].tolist()
    assert batch.needed.tolist() == [False] * len(plain) + [True] * int(episode.sampled.sum())


def test_rewritten_history_starts_a_sequence_of_the_same_episode() -> None:
    episode, _ = play(retry(2), ["5", "7"])
    spans = list(episode.spans)
    spans[2] = replace(spans[2], restart=True)
    cut = replace(episode, spans=tuple(spans))
    batch = pack([constant(cut, 0.5)])
    assert batch.sequences == 2
    assert int(batch.episode.max()) == 0
    from etude.objective.terms import per_episode

    active = batch.weight("policy") != 0
    assert per_episode.count(batch, active) == 1, "counted once"
    whole = pack([constant(episode, 0.5)])
    assert float(whole.advantage.sum()) == float(batch.advantage.sum())


def test_fork_shares_what_was_said_and_nothing_after() -> None:
    async def forked(task, conversation):
        conversation.user(task.prompt)
        await conversation.reply()
        branches = [conversation.fork(i) for i in range(2)]
        for branch in branches:
            branch.user("again")
            await branch.check(await branch.reply())
        return [b.done() for b in branches]

    episodes, _ = play(forked, ["5", "6", "7"])
    a, b = (rows(e) for e in episodes)
    assert a[:2] == b[:2]
    assert (a[-1][2], b[-1][2]) == ("6", "7")


def test_demonstration_is_not_sampled_and_ends_like_a_reply() -> None:
    async def shown(task, conversation):
        return demonstrate(task, conversation)

    episode, sampler = play(shown, [])
    assert episode.demonstration
    assert not episode.sampled.any()
    assert sampler.asked == []
    assert episode.tokens[-1] == toys.tokenizer().stops[0]
    assert rows(episode)[-1] == ("assistant", False, "3+4=7")


def test_single_counts_one_verdict() -> None:
    episode, _ = play(single(), ["7"])
    assert (len(episode.verdicts), episode.correct, episode.stop) == (1, True, "end")


def test_unpack_undoes_pack() -> None:
    episode, _ = play(retry(3), ["5", "6", "7"])
    other = replace(episode, task=toys.task(1))
    signals = [constant(e, float(i + 1)) for i, e in enumerate((episode, other, episode))]
    batch = pack(signals)
    for back, signal in zip(unpack(batch.advantage, batch, signals), signals, strict=True):
        assert back.tolist() == signal.advantage.tolist()
    assert torch.equal(batch.group.unique(), torch.tensor([0, 1]))


def test_taking_up_an_episode_in_the_middle() -> None:
    episode, _ = play(retry(2), ["54", "7"])
    first = len(episode.spans[0])
    sampler = toys.ScriptedSampler(replies=["7"])

    async def check_runner(task, answer):
        return Verdict(1.0, True)

    rollouts = GroupRollout(
        toys.task(),
        Request(),
        1,
        toys.generator(sampler.policy, sampler),
        check_runner,
        single(),
        lambda e: {"reward": 1.0},
        key=3,
    )
    conversation = rollouts.resume_from(episode, first + 1, index=0)
    text = asyncio.run(conversation.reply())
    assert text == "57", "the reply continues the kept part"
    assert sampler.asked[0].tolist() == episode.tokens[: first + 1].tolist()
    assert conversation.done().sampled.tolist() == [False] * (first + 1) + [True, True]


def test_a_world_is_played_to_its_end() -> None:
    """FrozenLake by someone who knows the way: the solution's moves, one a turn, reach the goal."""
    from etude.tasks import load

    task = load("frozen_lake:size=3").draw(Request(), 0, 0)
    moves = task.environment().solve()
    sampler = toys.ScriptedSampler(replies=list(moves))

    async def never(task, answer):
        raise AssertionError("a world judges itself")

    conversation = Conversation(task, toys.generator(sampler.policy, sampler), never, key=1)
    episode = asyncio.run(single()(task, conversation))
    assert episode.correct
    assert sum(s.sampled for s in episode.spans) == len(moves)
    assert [s.tag for s in episode.spans if s.sampled] == ["move"] * len(moves)


def test_a_world_is_demonstrated_turn_by_turn() -> None:
    """The tokens are those of a player who gives the winning replies; only nobody sampled them."""
    from etude.rollout.demonstrate import solution
    from etude.tasks import load

    task = load("number_guess:highest=20").draw(Request(), 4, 0)
    moves = task.environment().solve()
    assert len(moves) > 2
    sampler = toys.ScriptedSampler(replies=list(moves))
    generator = toys.generator(sampler.policy, sampler)
    played = asyncio.run(single()(task, Conversation(task, generator, wrong, key=1)))
    shown = solution(task, generator.renderer)
    assert played.correct
    assert shown.tokens.tolist() == played.tokens.tolist()
    assert not shown.sampled.any()
    assert shown.verdicts == played.verdicts
    tagged = np.concatenate([np.full(len(s), s.tag == "demonstration") for s in shown.spans])
    assert (tagged == played.sampled).all()

    without = replace(task, environment=Played(task.environment))
    assert solution(without, generator.renderer).tokens.tolist() == shown.tokens.tolist()


class Played:
    """A world that does not know its solution: the reference has it, a reply a line."""

    def __init__(self, make) -> None:
        self.make = make

    def __call__(self, seed: int = 0):
        environment = self.make(seed)
        return type("World", (), {"observe": environment.observe, "act": environment.act})
