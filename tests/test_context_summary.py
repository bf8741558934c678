"""Where a conversation is full its oldest turns may be summed up: by the policy, in a reply that is trained, or by a second model."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import worlds_of_letters as letters
from etude.batch import pack
from etude.errors import UserError
from etude.fixtures.inference import Reply, Script, Spoken
from etude.report.turns import screen
from etude.rollout.attempts import attempt
from etude.rollout.conversation import Conversation, Generator
from etude.rollout.full import DROP_OLDEST, FULL, LEFT_OUT, SUMMARISE, SUMMARY, SUMMED_UP
from etude.tasks import TaskSet, load
from etude.tools.kit import Kit
from etude.train.config import Plan
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start
from etude.types import Request, SamplingParams, Signal, Task, Verdict
from test_context_full import row_of
from test_resume import facts, same_weights
from test_tools_in_conversation import talk

ROOMS, LIMIT = 24, 700


class Rooms:
    """Rooms, of which each says that it was seen."""

    def __init__(self, seed: int = 0) -> None:
        self.seen = 0

    def observe(self) -> str:
        return "Room 0."

    def act(self, text: str) -> tuple[str, Verdict | None]:
        self.seen += 1
        return f"Room {self.seen}. " + "." * 30, None if self.seen < ROOMS else Verdict(1.0, True)


TASK = Task("Count the rooms.", letters.First("a"), environment=Rooms)


class Two(Script):
    """Answers turns with "on", and every request for a summary with the next of `summaries`."""

    def __init__(self, *summaries: str) -> None:
        super().__init__([])
        self.summaries = list(summaries)

    async def sample(self, prompt: Any, params: Any, key: int, **more: Any) -> Any:
        asks = Spoken().decode(prompt.tolist()).endswith("left to do.<assistant>")
        self.replies = [Reply(self.summaries.pop(0) if asks else "on")]
        return await super().sample(prompt, params, key, **more)


def played(sampler: Any, limit: int, summariser: Generator | None = None, longest: int = 40) -> Conversation:
    policy = Generator(
        sampler,
        Spoken(),  # type: ignore[arg-type]
        SamplingParams(max_tokens=10),
        limit=limit,
        when_full=SUMMARISE,
        summary_tokens=longest,
        summariser=summariser,
    )
    talk = Conversation(TASK, policy, _never, 0)
    asyncio.run(attempt(talk, TASK.prompt, 1, tag="move"))
    return talk


async def _never(task: Task, answer: str) -> Verdict:
    raise AssertionError("a world judges itself")


def test_the_oldest_turns_are_summed_up_and_the_summary_stands_for_them() -> None:
    one = Two("Rooms 0 to 3 hold nothing.", "Rooms 0 to 5 hold nothing.", "And so on.", "End.")
    talk = played(one, LIMIT)
    assert talk.verdicts[-1].correct
    events = talk.notes[SUMMED_UP]
    assert len(events) == 4 - len(one.summaries) >= 2
    assert LEFT_OUT not in talk.notes
    asked = [a for a in one.asked if "Sum it up" in a]
    assert "[user] Room 1. " in asked[0]
    assert "(before that, summed up) Rooms 0 to 3 hold nothing." in asked[1]
    after = one.asked[one.asked.index(asked[0]) + 1]
    assert after.startswith(
        "<user>Count the rooms.\n\nRoom 0.\n\n(The earlier turns, summed up: Rooms 0 to 3 hold nothing.)"
    )
    assert "Room 1." not in after
    assert sum(map(len, talk.spans[-2:])) <= LIMIT
    shown = screen([row_of(talk)])
    turn, messages, tokens = events[0]
    assert f"before reply {turn + 1}: {messages} earlier messages summed up in {tokens} tokens" in shown
    assert "[assistant: summary]" in shown


def test_token_rows_of_a_summary_by_the_policy() -> None:
    """It is a sequence of its own: what asks for it is not trained, its words are, as sampled; so are all replies, once."""
    talk = played(Two("Nothing so far.", "Nothing.", "No.", "End."), LIMIT)
    episode = talk.done()
    spans = episode.spans
    at = [i for i, s in enumerate(spans) if s.tag == SUMMARY]
    for i in at:
        asked, said, after = spans[i - 1 : i + 2]
        assert (asked.role, asked.restart, asked.sampled) == ("user", True, False)
        assert (said.role, said.sampled, after.restart, after.sampled) == ("assistant", True, True, False)
        assert said.logp is not None
    assert sum(s.sampled for s in spans) == ROOMS + len(at)
    batch = pack([Signal(episode, np.ones(len(episode.tokens), np.float32))])
    assert batch.sequences == 1 + 2 * len(at)
    words = Spoken()
    rows = [
        "".join(
            words.decode([int(t)]) if s else "."
            for t, s in zip(batch.tokens[on], batch.sampled[on], strict=True)
        )
        for number in range(batch.sequences)
        for on in [batch.sequence == number]
    ]
    assert rows[1].strip(".").startswith("Nothing so far")
    assert set(rows[0].replace("on", "")) <= {".", words.decode([0])}
    assert "Sum it up" not in "".join(rows)


def test_a_second_models_summary_is_seen_in_the_record_and_never_trained() -> None:
    teacher = Two("They are empty.", "Still empty.", "Empty.", "End.")
    writer = Generator(teacher, Spoken(), SamplingParams(), "teacher", limit=LIMIT)  # type: ignore[arg-type]
    talk = played(Two(), LIMIT, writer)
    assert talk.verdicts[-1].correct
    assert len(teacher.asked) == len(talk.notes[SUMMED_UP]) >= 2
    made = [s for s in talk.spans if s.tag == SUMMARY]
    assert len(made) == 2 * len(teacher.asked)
    assert all(s.hidden and not s.sampled and s.logp is None for s in made)
    batch = pack([Signal(talk.done(), np.ones(sum(map(len, talk.spans)), np.float32))])
    assert int(batch.sampled.sum()) == sum(len(s) for s in talk.spans if s.sampled)
    assert batch.sequences == 1 + len(teacher.asked)


def test_where_a_summary_has_no_room_the_oldest_turns_are_left_out() -> None:
    talk = played(Two(), 260, longest=250)
    assert talk.notes[LEFT_OUT]
    assert SUMMED_UP not in talk.notes
    assert talk.verdicts[-1].correct


class Letters(Rooms):
    """The same for a tokenizer of four letters; won where the last reply begins with an a."""

    def observe(self) -> str:
        return "abcd"

    def act(self, text: str) -> tuple[str, Verdict | None]:
        self.seen += 1
        right = text.startswith("a")
        return "dcba" * 4, None if self.seen < 16 else Verdict(float(right), right)


def tasks() -> TaskSet:
    names = ["".join(word) for word in itertools.product("abcd", repeat=2)]
    return TaskSet.of(
        [
            Task(name, letters.First("a"), environment=Letters, meta={"environment_key": name})
            for name in names
        ]
    )


def plan(place: Path, steps: int, **more: Any) -> Plan:
    changes = {
        "run__eval_problems": 0,
        "run__tasks_per_step": 2,
        "run__group_size": 4,
        "run__context": 250,
        "run__checkpoint_every": 1,
        "run__when_full": SUMMARISE,
        "run__summary_tokens": 3,
    }
    return letters.plan(place, "grpo", steps, **{**changes, **more})


def test_a_run_with_summaries_resumes_exactly(tmp_path: Path) -> None:
    whole = start(plan(tmp_path, 2), tmp_path / "whole", tasks())
    whole.on_step = lambda step, metrics: (
        shutil.copytree(tmp_path / "whole", tmp_path / "half") if step == 2 else None
    )
    train(whole)
    whole.close()
    rows = whole.directory.episodes().to_pylist()
    assert all(SUMMED_UP in row["notes"] for row in rows if row["origin"] == "group")
    assert any(s["tag"] == SUMMARY and s["sampled"] for row in rows for s in row["spans"])
    again, warnings = resume(tmp_path / "half", tasks())
    assert (again.context.step, warnings) == (1, [])
    train(again)
    again.close()
    assert facts(tmp_path / "whole") == facts(tmp_path / "half")
    assert same_weights(tmp_path / "whole", tmp_path / "half")


def test_summaries_of_a_second_model_are_charged_to_it(tmp_path: Path) -> None:
    other = letters.model(tmp_path / "teacher", seed=2)
    run = start(plan(tmp_path, 1, run__summariser="teacher", run__teacher=other), tmp_path / "run", tasks())
    train(run)
    run.close()
    teacher = run.context.auxiliary["teacher"].meter.flops
    assert teacher > 0
    assert run.directory.metrics()[-1]["flops"] > run.learner.policy.meter.flops
    assert run.directory.metrics()[-1]["errors"] == 0


def test_a_summariser_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="teacher needs"):
        start(plan(tmp_path, 1, run__summariser="teacher"), tmp_path / "run", tasks())


@pytest.mark.parametrize("policy", [DROP_OLDEST, SUMMARISE])
def test_calls_and_their_results_are_left_out_together(policy: str) -> None:
    """In a world that is played by calls: what is kept begins with a call, and its result follows."""
    task = load("house:level=1,turns=30,commands=tools").draw(Request(), 0, 0)
    one: Any = task.environment(0)
    there = next(c for c in one.actions() if c.startswith("go to")).removeprefix("go to ")
    replies = [f"<go>{room}</go>" for room in [there, one.room] * 15]
    conversation, _ = talk(replies, Kit(), task)
    sampler: Any = conversation.generator.sampler
    asked = sampler.sample

    async def sample(prompt: Any, params: Any, key: int, **more: Any) -> Any:
        if Spoken().decode(prompt.tolist()).endswith("left to do.<assistant>"):
            sampler.replies.insert(0, Reply("Nothing yet."))
        return await asked(prompt, params, key, **more)

    sampler.sample = sample
    params = SamplingParams(max_tokens=30)
    conversation.generator = replace(
        conversation.generator, limit=3500, when_full=policy, params=params, summary_tokens=40
    )
    verdict, _ = asyncio.run(attempt(conversation, task.prompt, 1))
    assert verdict.feedback.startswith("You did not manage it"), "it was played to its end"
    assert conversation.notes[LEFT_OUT if policy == DROP_OLDEST else SUMMED_UP]
    assert [m.role for m in conversation.messages][:3] == ["user", "assistant", "tool"]
    assert len(conversation.context) <= 3500
    assert FULL not in conversation.notes
