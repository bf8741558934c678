"""Tools in a conversation: what is trained, what it costs, how the policy is told, and that a slow tool holds nobody up."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np

from etude.fixtures.inference import Reply, Script, Spoken
from etude.rollout.attempts import attempt
from etude.rollout.basic import single
from etude.rollout.conversation import Conversation, Generator
from etude.tasks.check import Number
from etude.tasks.isolate import Pool
from etude.text.tool_calls import TAGS, Call, Offer
from etude.tools import shipped, spec
from etude.tools.kit import CALLS, Kit
from etude.tools.tool import tool
from etude.types import Episode, SamplingParams, Task, Verdict
from test_tools import TASK, kit, run


class Speaking(Spoken):
    """A renderer that has tools, as tags."""

    stops = (7,)

    def offer(self, tools: Any, syntax: str = "auto") -> Offer:
        return Offer(tuple(tools), TAGS)

    def prompt(self, messages: Any, asks: int = 0, tools: Offer | None = None) -> Any:
        return super().prompt(tools.told(messages) if tools else messages, asks)

    def extend(self, before: Any, new: Any, ended: bool = True, asks: int = 0, tools: Any = None) -> Any:
        return self.prompt(new), False


def talk(replies: list[str], made: Kit, task: Task = TASK) -> tuple[Conversation, Script]:
    script = Script([Reply(r) for r in replies])

    async def check(of: Task, answer: str) -> Verdict:
        return of.check(answer)

    speaker = Generator(script, Speaking(), SamplingParams(max_tokens=500), kit=made)  # type: ignore[arg-type]
    return Conversation(task, speaker, check, 0), script


def test_a_question_is_answered_with_a_call_and_its_result_is_not_trained() -> None:
    conversation, script = talk(["<calculator>3 * 4</calculator>", "It is 12"], kit("calculator"))
    episode = asyncio.run(single()(TASK, conversation))
    assert isinstance(episode, Episode)
    assert episode.correct
    assert "calculator>expression</calculator>: The value" in script.asked[0]
    assert [(s.role, s.tag, s.sampled) for s in episode.spans] == [
        ("user", "prompt", False),
        ("assistant", "attempt", True),
        ("tool", "result", False),
        ("assistant", "attempt", True),
    ]
    letters = Spoken()
    rows = "".join(
        letters.decode([t]) if on else "." for t, on in zip(episode.tokens, episode.sampled, strict=True)
    )
    assert rows.lstrip(".") == "<calculator>3 * 4</calculator>" + "." * len(episode.spans[2]) + "It is 12"
    assert "12" in letters.decode(episode.spans[2].tokens)
    assert not np.any(episode.logp[~episode.sampled])
    assert [c["result"] for c in episode.notes[CALLS]] == ["12"]


def test_replies_are_counted_and_the_last_is_said() -> None:
    call = "<calculator>1+1</calculator>"
    conversation, script = talk([call] * 5, kit("calculator", turns=3))
    episode = asyncio.run(single()(TASK, conversation))
    assert isinstance(episode, Episode)
    assert episode.stop == "turns"
    assert sum(s.sampled for s in episode.spans) == 3
    assert "answer now" in script.asked[2]
    assert "answer now" not in script.asked[1]
    assert not episode.correct


def test_a_critique_is_no_attempt() -> None:
    conversation, script = talk(["<calculator>1+1</calculator>", "12"], kit("calculator"))
    conversation.user("What is wrong with it?")
    assert asyncio.run(conversation.reply("critique")) == "<calculator>1+1</calculator>"
    assert "calculator>expression" not in script.asked[0]
    conversation.new_context(TASK.prompt)
    asyncio.run(conversation.reply("attempt 2"))
    assert "calculator>expression" in script.asked[1]


class Shop:
    """A world that is ended by a call."""

    def __init__(self) -> None:
        self.over, self.bought = False, ""
        self.tools = [self.buy]

    def buy(self, what: str) -> str:
        """Buys something."""
        self.over, self.bought = True, what
        return "bought"

    def observe(self) -> str:
        return "There are pears."

    def act(self, text: str) -> tuple[str, Verdict | None]:
        right = self.bought == "pears"
        return ("", Verdict(float(right), right)) if self.over else ("Buy something.", None)


def test_a_world_offers_tools_of_its_own() -> None:
    task = Task("Buy pears.", Number("0"), environment=lambda seed: Shop())
    conversation, script = talk(
        ["Hm.", "<calculator>1+1</calculator>", "Two.", "<buy>pears</buy>"], kit("calculator"), task
    )
    verdict, _ = asyncio.run(attempt(conversation, task.prompt, 1))
    assert verdict.correct
    assert "<buy>what</buy>: Buys something." in script.asked[0]
    assert [c["name"] for c in conversation.done().notes[CALLS]] == ["calculator", "buy"]


def test_a_slow_tool_holds_nobody_up() -> None:
    """The other conversation has ended before the tool of the first gives anything."""
    ended = threading.Event()

    def slow(x: str) -> str:
        return str(ended.wait(5))

    made = Kit([shipped.Fixed("slow", tool(slow, slow=True))])
    first, _ = talk(["<slow>a</slow>", "12"], made)
    second, _ = talk(["12"], made)

    async def both() -> Episode:
        async def quick() -> None:
            await single()(TASK, second)
            ended.set()

        found, _ = await asyncio.gather(single()(TASK, first), quick())
        assert isinstance(found, Episode)
        return found

    assert asyncio.run(both()).notes[CALLS][0]["result"] == "True"


def test_the_tools_of_the_page_work(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "agents.md").read_text()
    (block,) = re.findall(r"```python\n(# mine.py.*?)```", page, re.S)
    (tmp_path / "mine.py").write_text(block)
    mine = f"{tmp_path}/mine.py"
    with Pool(known=spec.users_own(f"{mine}:price,{mine}:Basket")) as pool:
        both = kit(f"{mine}:price,{mine}:Basket", pool)
        said = run(both, Call("price", {"item": "pear", "number": 2}), Call("put", {"item": "fig"}))
        assert said == ["0.8", '["fig"]']
        assert run(both, Call("put", {"item": "plum"})) == ['["plum"]']
        assert "KeyError" in run(both, Call("price", {"item": "car"}))[0]
