"""STE: a model learns what a tool is for by imagining requests, trying to fulfil them, and looking back.

LLMs in the Imaginarium: Tool Learning through Simulated Trial and Error (arXiv 2403.04746; released code: `STE/main.py`,
`STE/postprocessing.py`). For each tool there are episodes of several trials. A trial is a request that the model makes up, unlike those
in its long-term memory, a list of all requests so far with whether they were fulfilled; some calls, whose errors it sees; and a look back. The
trials of an episode stand in one chat, its short-term memory. Calls of trials that a judge accepts become data, each request in several
wordings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from etude.data.filters import different
from etude.data.items import Item
from etude.data.recipe import MAKE, DataRecipe
from etude.data.trials import Trials, described, one_line
from etude.data.workshop import Workshop
from etude.event_loop import run as run_coroutine
from etude.recipe import Paper
from etude.settings import Setting, stage
from etude.text.tool_calls import Call, Offer
from etude.tools.tool import Tool
from etude.types import Message

IMAGINE = (
    "There is a tool.\n\n{tool}\n\nMake up a request of a user that one call of this tool helps to fulfil. Be specific, and do not name the "
    "tool. Write the request alone."
)
ANOTHER = "Make up another request that shows something else of the tool. Write the request alone."
MEMORY = "\n\nRequests so far, and whether they were fulfilled:\n{memory}\n\nThe new one must differ from all of them."
FULFIL = "Now fulfil this request: {request}\n\n{how}\nWhen you know enough, answer the request without another call."
FULFIL_TOO = "Now fulfil it in the same way."
LOOK_BACK = "Was the request fulfilled? Answer Yes or No."
JUDGE = (
    "There is a tool.\n\n{tool}\n\nRequest: {request}\nCall: {call}\nResult: {result}\nAnswer: {answer}\n\nDoes the answer help, does it say what "
    "the result says, and is the call what the request needs? Answer Yes or No, and then why."
)
REWORD = "Say this request in other words that mean the same. Write the request alone.\n\n{request}"
REWORD_AGAIN = "Once more in other words."


@dataclass(frozen=True)
class Trial:
    """One request: the last call that could be read, what came of it, and the answer; None and "" where there was none."""

    request: str
    call: Call | None
    result: str
    answer: str
    fulfilled: bool


def ste(
    episodes: Annotated[int, Setting("E, episodes for each tool", low=1, high=10_000)] = 15,
    trials: Annotated[int, Setting("S, trials of an episode, in one chat", low=1, high=100)] = 4,
    calls: Annotated[int, Setting("T, calls of a trial at most", low=1, high=100)] = 4,
    memory: Annotated[bool, Setting("long-term memory: requests so far are shown")] = True,
    wordings: Annotated[int, Setting("further wordings of a request at most", low=0, high=100)] = 6,
    judge: Annotated[str, Setting("who accepts trials", choices=("policy", "teacher"))] = "policy",
    temperature: Annotated[float, Setting("sampling temperature", low=0.01, high=10)] = 1.0,
) -> Callable[[Workshop], list[Item]]:
    """Requests with the call that fulfils them."""

    def make(shop: Workshop) -> list[Item]:
        writer, second = (Trials(shop, who, {"temperature": temperature}) for who in ("policy", judge))
        tools = list(writer.tools("names").values())

        async def everything() -> list[list[Trial]]:
            return list(await asyncio.gather(*(explored(writer, tool) for tool in tools)))

        async def explored(writer: Trials, tool: Tool) -> list[Trial]:
            done: list[Trial] = []
            for number in range(episodes):
                chat: list[Message] = []
                for i in range(trials):
                    done.append(await tried(writer, tool, chat, done if memory else [], calls, number, i))
            return done

        async def accepted(tool: Tool, trial: Trial, number: int) -> bool:
            asked = JUDGE.format(
                tool=described(tool),
                request=trial.request,
                call=writer.told(tool).write("", [trial.call] if trial.call else []),
                result=trial.result,
                answer=trial.answer,
            )
            return not says_no(await second.say([], asked, "ste judge", tool.name, number))

        async def reworded(tool: Tool, trial: Trial, number: int, n: int) -> list[str]:
            chat: list[Message] = []
            found = [trial.request]
            for i in range(n):
                ask = REWORD_AGAIN if i else REWORD.format(request=trial.request)
                found.append(one_line(await writer.say(chat, ask, "ste wordings", tool.name, number, i)))
            return [text for text in found if text]

        async def worked(tool: Tool, found: list[Trial], target: int) -> tuple[list[Trial], list[list[str]]]:
            oks = await asyncio.gather(*(accepted(tool, t, i) for i, t in enumerate(found)))
            kept = [t for t, ok in zip(found, oks, strict=True) if ok]
            n = further(target, len(kept), wordings)
            return kept, list(await asyncio.gather(*(reworded(tool, t, i, n) for i, t in enumerate(kept))))

        items: list[Item] = []
        made = run_coroutine(everything())
        ended = [[t for t in done if t.call is not None and t.answer] for done in made]
        target = shop.wanted // len(tools)

        async def all_worked() -> list[tuple[list[Trial], list[list[str]]]]:
            return list(
                await asyncio.gather(*(worked(t, e, target) for t, e in zip(tools, ended, strict=True)))
            )

        good = run_coroutine(all_worked())
        own = writer.own(tools)
        for tool, (kept, texts) in zip(tools, good, strict=True):
            for number, (trial, said) in enumerate(zip(kept, texts, strict=True)):
                items += [item(shop, own, tool, trial, number, text) for text in said]
        number_tried, number_ended = sum(map(len, made)), sum(map(len, ended))
        shop.sieve.counts.append(("trials with a call and an answer", number_tried, number_ended))
        shop.sieve.counts.append(
            ("trials that the judge accepts", number_ended, sum(len(k) for k, _ in good))
        )
        shop.sieve.items = items
        return shop.sieve.through("different requests, at most as many wordings as wanted", different).items

    return make


async def tried(
    writer: Trials,
    tool: Tool,
    chat: list[Message],
    before: list[Trial],
    calls: int,
    episode: int,
    number: int,
) -> Trial:
    """One trial. Of what the writer reads, the list of earlier requests alone does not stay in the chat."""
    name = ("ste", tool.name, episode, number)
    ask = ANOTHER if chat else IMAGINE.format(tool=described(tool))
    listed = "\n".join(f"{t.request} | {'Yes' if t.fulfilled else 'No'}" for t in before)
    asked = list(chat)
    request = one_line(
        await writer.say(asked, ask + (MEMORY.format(memory=listed) if listed else ""), *name, "request")
    )
    offer, session = writer.told(tool), writer.session(*name)
    begun = bool(chat)
    chat += [Message("user", ask), Message("assistant", request)]
    said = FULFIL_TOO if begun else FULFIL.format(request=request, how=offer.syntax.tell(offer.tools))
    last: Call | None = None
    result = answer = ""
    for turn in range(calls + 1):
        text = await writer.say(chat, said, *name, "turn", turn, ends=offer.ends)
        heard = await writer.call(session, offer, text) if turn < calls else None
        if heard is None:
            answer = "" if offer.calls(text) else text.strip()
            break
        if isinstance(heard[0], Call):
            last, result = heard[0], heard[1]
        said = f"Result: {heard[1]}"
    looked = await writer.say(chat, LOOK_BACK, *name, "look back")
    return Trial(request, last, result, answer, not says_no(looked))


def further(target: int, kept: int, most: int) -> int:
    """Wordings beside the first, so that `kept` requests become about `target`: min(round(target / kept) - 1, most)."""
    return max(0, min(round(target / kept) - 1, most)) if kept else 0


def says_no(text: str) -> bool:
    """Whether a judgement begins with No."""
    return text.strip().strip("*\"'").casefold().startswith("no")


def item(shop: Workshop, own: Offer, tool: Tool, trial: Trial, number: int, text: str) -> Item:
    """A request, the call that is imitated in the policy's own syntax, and the call as `tool_rl` reads it."""
    assert trial.call is not None
    call = {"name": trial.call.name, "arguments": dict(trial.call.arguments)}
    row = {
        "prompt": text,
        "answer": trial.answer,
        "reference": own.write("", [trial.call]),
        "calls": [call],
        "kind": tool.name,
    }
    came = {
        "source": tool.name,
        "writer": shop.scribe("policy").name,
        "trial": number,
        "result": trial.result,
        "fulfilled": trial.fulfilled,
        "reworded": text != trial.request,
    }
    return Item(row, came)


RECIPE = DataRecipe(
    name="ste",
    verb=MAKE,
    build=stage(ste),
    paper=Paper(
        "LLMs in the Imaginarium: Tool Learning through Simulated Trial and Error", "2403.04746", 2024
    ),
    idea="For each tool the model makes up requests, tries to fulfil them with it, sees what goes wrong, and remembers what it tried. Calls "
    "of trials that a judge accepts are what it is then trained on.",
    departures=(
        "the call is imitated, and result and answer are kept beside it; the released fine-tuning data hold all three",
        "requests are asked for and judged in words of this package's own; the judge is the policy unless ste.judge=teacher, where the paper "
        "has a stronger model",
        "how often a request is worded follows from --items, for all tools together; the paper has 150 a tool",
        "adding tools later without forgetting the earlier ones: `etude data mix dmt` replays a share of the earlier data",
    ),
    needs=("tools",),
)
