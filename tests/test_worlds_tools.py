"""Worlds whose commands are tools: played by calls, several of one reply too, and imitated as calls; the results are not trained."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.credit.imitate import shown, tagged
from etude.evaluate.players import play
from etude.fixtures.inference import Reply, Script
from etude.rollout.attempts import attempt
from etude.rollout.conversation import Conversation, Generator
from etude.rollout.demonstrate import DEMONSTRATED, solution
from etude.tasks import load, self_test
from etude.tasks.worlds import commands
from etude.tasks.worlds.commands import written
from etude.text.chat_template import Renderer
from etude.text.tool_calls import HERMES, TAGS, Call
from etude.tools.kit import CALLS, Kit
from etude.types import Group, Request, SamplingParams, Task
from test_tools import NATIVE, renderer
from test_tools_in_conversation import Speaking, talk

WORLDS = ("house", "shop", "encyclopedia", "sheet")  # of the fifth a command runs programs
CALLING = NATIVE.replace(
    "{% else %}{{ '<' + m.role + '>' + m.content + '<end>' }}{% endif %}",
    "{% else %}{{ '<' + m.role + '>' + (m.content or '') }}{% for c in m.tool_calls or [] %}"
    "{{ '<tool_call>' + (c.function | tojson) + '</tool_call>' }}{% endfor %}{{ '<end>' }}{% endif %}",
)


def a_task(world: str, level: int = 0, **more: Any) -> Task:
    settings = "".join(f",{name}={value}" for name, value in {"commands": "tools", **more}.items())
    return load(f"{world}:level={level}{settings}").draw(Request(), 0, 0)


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_is_played_by_calls(world: str) -> None:
    task = a_task(world, 1)
    one: Any = task.environment()
    calls = [one.as_call(command) for command in one.solve()]
    conversation, script = talk(
        [TAGS.write([c], [t.schema for t in tools(task)]) for c in calls], Kit(), task
    )
    verdict, _ = asyncio.run(attempt(conversation, task.prompt, 1))
    assert verdict.correct
    episode = conversation.done()
    assert [written(Call(c["name"], c["arguments"])) for c in episode.notes[CALLS]] == list(
        map(written, calls)
    )
    assert not any(c["failed"] for c in episode.notes[CALLS])
    assert "Act by calling tools" in script.asked[0]
    assert "reply with" not in script.asked[0]
    assert [s.role for s in episode.spans] == ["user", "assistant", *["tool", "assistant"] * (len(calls) - 1)]
    assert not np.any(np.concatenate([np.full(len(s), s.sampled) for s in episode.spans if s.role == "tool"]))


def tools(task: Task) -> Any:
    session = Kit().session(task, 0, task.environment(0))
    assert session is not None
    return session.tools.values()


def test_several_calls_of_one_reply_are_turns_one_after_another() -> None:
    task = a_task("house", 1, turns=40)
    one: Any = task.environment()
    calls = [one.as_call(command) for command in one.solve()]
    beyond = Call("go", {"room": "attic"})

    class Hermes(Speaking):
        def offer(self, tools: Any, syntax: str = "auto") -> Any:
            return Renderer.offer(renderer_of_letters, tools, "hermes")

    renderer_of_letters: Any = type(
        "R", (), {"tokenizer": type("T", (), {"knows_tools": False, "template": None})}
    )
    script = Script([Reply(HERMES.write([*calls, beyond], []))])
    speaker = Generator(script, Hermes(), SamplingParams(max_tokens=5000))  # type: ignore[arg-type]
    conversation = Conversation(task, speaker, _never, 0)
    verdict, _ = asyncio.run(attempt(conversation, task.prompt, 1))
    assert verdict.correct
    record = conversation.done().notes[CALLS]
    assert len(record) == len(calls) + 1
    assert record[-2]["result"] == "You have done it."
    assert record[-1]["result"] == "It is over: nothing more can be done."


async def _never(task: Task, answer: str) -> Any:
    raise AssertionError("a world judges itself")


def test_the_turns_of_a_world_come_on_top_of_the_calls_of_a_run() -> None:
    """30 doors are gone through by calls although run.turns is 8 and run.tool_calls 16; the 31st reply is one too many."""
    task = a_task("house", 1, turns=30)
    one: Any = task.environment()
    rooms = [c for c in one.actions() if c.startswith("go ")]
    there, back = rooms[0], f"go to {one.room}"
    replies = [f"<go>{c.removeprefix('go to ')}</go>" for c in [there, back] * 15]
    conversation, script = talk(replies, Kit(), task)
    verdict, _ = asyncio.run(attempt(conversation, task.prompt, 1))
    assert not verdict.correct
    assert not script.replies
    assert not any(c["failed"] for c in conversation.done().notes[CALLS])
    assert not any("answer now" in asked for asked in script.asked)


def test_words_are_understood_too_and_cost_a_turn() -> None:
    task = a_task("house", turns=2)
    conversation, _ = talk(["open everything", "I wait."], Kit(), task)
    verdict, text = asyncio.run(attempt(conversation, task.prompt, 1))
    assert (verdict.correct, text) == (False, "open everything\nI wait.")
    assert play("expert", a_task("house"))[0].correct
    self_test(a_task("house"))


@pytest.mark.parametrize("world", [*WORLDS, "bugs"])
def test_every_command_of_an_expert_has_a_call_that_stands_for_it(world: str) -> None:
    for i in range(6):
        task = load(f"{world}:level=2,commands=tools").draw(Request(), i, 0)
        one: Any = task.environment()
        forms = {form.__name__: form for form in one.forms}
        for command in one.solve():
            call = one.as_call(command)
            assert forms[call.name](**call.arguments) == command
        named = [one.as_call(c) for c in one.offered()]
        assert None not in named
        assert all(written(c) in one.observe() for c in named)


def test_the_first_form_that_fits_is_meant() -> None:
    one: Any = a_task("sheet").environment()
    assert one.as_call("answer 5") == Call("answer", {"value": "5"})
    assert one.as_call("SELECT 5") == Call("query", {"sql": "SELECT 5"})
    assert a_task("house", commands="words").environment().as_call("open box") is None  # type: ignore[attr-defined]
    shop: Any = a_task("shop").environment()
    assert commands.call_of(shop.forms, "open 12") == Call("open", {"number": 12})


@pytest.mark.parametrize(("template", "syntax"), [(CALLING, "hermes"), (NATIVE, "hermes"), (None, "tags")])
def test_a_demonstration_calls_as_the_model_would(template: str | None, syntax: str, tmp_path: Path) -> None:
    """Token rows: the calls and their ends are imitated, and nothing that was said to the model."""
    task = a_task("house", 1)
    made = renderer(tmp_path / "m", template)
    episode = solution(task, made)
    assert episode.verdict is not None
    assert episode.correct
    one: Any = task.environment()
    wanted = [one.as_call(command) for command in one.solve()]
    offer = made.offer([t.schema for t in tools(task)])
    assert offer.syntax.name == syntax
    replies = [s for s in episode.spans if s.role == "assistant"]
    assert [offer.calls(made.decode(s.tokens)) for s in replies] == [[c] for c in wanted]
    if template == CALLING:
        assert made.decode(replies[0].tokens).startswith('<tool_call>{"name": ')
    (signal,) = shown([Group(task, (), Request(), (), (episode,))])
    trained = signal.weights["imitation"] > 0
    assert np.array_equal(trained, tagged(episode, DEMONSTRATED))
    ends = np.cumsum([len(s) for s in episode.spans])
    for span, end in zip(episode.spans, ends, strict=True):
        row = trained[end - len(span) : end]
        assert row.all() if span.role == "assistant" else not row.any()
    text = made.tokenizer.decode(episode.tokens[~trained], special=True)
    assert "You are in the" in text
