"""HybridDeepSearcher: queries that do not need each other's results are asked at once, the others one after another.

Ko et al. (arXiv 2508.19113); the form of a search after the released code (dayoon-ko/HybridDeepSearcher, infer/inference.py). A turn of thought
ends with a block of queries, all of which are looked up at once:

    <|begin_search_queries|>q1;
    q2<|end_search_queries|><|begin_search_results|>...<|end_search_results|>

and so on, until a turn asks for nothing: it holds the answer. Several such courses are played for a question, by a teacher or by the policy, and
those that end right are imitated, without what was found.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from etude import seeds
from etude.fixtures.called import example_calls
from etude.fixtures.curricula import built
from etude.fixtures.examples import example_episode
from etude.fixtures.inference import Spoken, collected, example_question, judged, speaker
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout, verdict
from etude.rollout.writers import WRITERS, Address, Writer
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.text.tool_calls import Call
from etude.tools.kit import Kit, ToolSession
from etude.tools.tool import Tool
from etude.types import Episode, Message, Task

BEGIN, END = "<|begin_search_queries|>", "<|end_search_queries|>"
RESULTS, RESULTS_END = "<|begin_search_results|>", "<|end_search_results|>"
SEARCHES = "searches"
"""Note: of every turn that searched, its queries."""

FOUND = "found"
"""The tag of what was found."""

ASK = (
    "You can search. Say what you need to know, then write your queries as\n"
    f"{BEGIN}first query;\nsecond query{END}\n"
    "Queries that do not depend on each other's results belong into one search. Read what is found; search again where something is still "
    "missing. When nothing is, answer."
)
CONDENSE = (
    "Question: {question}\n\nSo far: {before}\n\nFor the query '{query}' this was found:\n{found}\n\nSay in a few sentences what of it helps to "
    "answer the question; 'nothing' where nothing does."
)
SEEN = "This was searched for before; see the results above."
QUERIES = re.compile(rf"{re.escape(BEGIN)}((?:(?!{re.escape(BEGIN)}).)*){re.escape(END)}\Z", re.S)


# ---- rollout ---------------------------------------------------------------------------------------------------------


class Hybrid:
    """One answer, in whose course the run's tool `search_tool` is asked, several queries at a time. `reads`: the model that condenses."""

    def __init__(
        self,
        search_request: Annotated[str, Setting("what stands below the question; empty: nothing")] = ASK,
        search_turns: Annotated[
            int, Setting("searches of an answer, of several queries each", low=0, high=64)
        ] = 10,
        at_once: Annotated[
            int, Setting("queries of one search that are looked up; 1: one after another", low=1, high=64)
        ] = 8,
        search_tool: Annotated[str, Setting("the run's tool that is asked")] = "search",
        condenser: Annotated[
            str,
            Setting(
                "who says in a few sentences what was found; nobody: it stands as it is",
                choices=("nobody", *WRITERS),
            ),
        ] = "nobody",
        address: Address = "",
    ) -> None:
        self.request, self.turns, self.at_once, self.tool = search_request, search_turns, at_once, search_tool
        self.writer = None if condenser == "nobody" else Writer(condenser, address)
        self.reads = self.writer.reads if self.writer else frozenset()

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        tools = conversation.tools()
        conversation.user(below(task.prompt, self.request))
        made: list[list[str]] = []
        for _ in range(self.turns if tools else 0):
            text = await conversation.reply("search", until=END)
            asked = QUERIES.search(text)
            if conversation.stop != "cut" or asked is None or tools is None:
                break
            queries = [q.strip() for q in asked[1].split(";\n") if q.strip()][: self.at_once]
            found = await self.found(conversation, tools, queries, [q for turn in made for q in turn], text)
            made.append(queries)
            conversation.interject(f"\n{RESULTS}\n{found}\n{RESULTS_END}\n", FOUND)
        else:
            await conversation.reply("search")
        await conversation.check(conversation.text)
        return conversation.done(**{SEARCHES: made})

    async def found(
        self,
        conversation: Conversation,
        tools: ToolSession,
        queries: Sequence[str],
        before: Sequence[str],
        text: str,
    ) -> str:
        """What stands between the marks of results: of each query what was found, or that it was asked before."""
        new = [q for q in dict.fromkeys(queries) if q not in before]
        known = tools.tools.get(self.tool)
        argument = next(iter(known.parameters.get("properties", {})), "query") if known else "query"
        answers = await tools.answer([Call(self.tool, {argument: q}) for q in new], last=False)
        told = await asyncio.gather(
            *(
                self.condensed(conversation, q, a.content, text, i)
                for i, (q, a) in enumerate(zip(new, answers, strict=True))
            )
        )
        results = dict(zip(new, told, strict=True))
        return (
            "\n".join(f"{q}: {results.get(q, SEEN)}" for q in dict.fromkeys(queries)) or "No query was given."
        )

    async def condensed(
        self, conversation: Conversation, query: str, found: str, text: str, number: int
    ) -> str:
        if self.writer is None:
            return found
        about = replace(conversation, key=seeds.key(conversation.key, "condensed", number))
        facts = {
            "question": conversation.task.prompt[-1].content,
            "before": text,
            "query": query,
            "found": found,
        }
        return await self.writer.draft(about, (Message("user", CONDENSE.format(**facts)),))


# ---- group rollout and reward ----------------------------------------------------------------------------------------


class Played:
    """The attempts, played by the policy or by run.teacher, who is given the run's tools."""

    def __init__(
        self,
        searcher: Annotated[
            str, Setting("whose courses are imitated where they end right", choices=("policy", "teacher"))
        ] = "policy",
    ) -> None:
        self.searcher = searcher
        self.reads = frozenset({"teacher"} if searcher == "teacher" else ())

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        if self.searcher == "teacher":
            teacher = replace(rollouts.generators["teacher"], kit=rollouts.generator.kit)
            rollouts = replace(rollouts, generator=teacher)
        return await rollouts.plays(range(rollouts.samples))


def verdict_and_searches() -> Reward:
    """The verdict's reward. searches: turns that searched; at_once: of them, those with several queries."""

    def reward(episode: Episode) -> dict[str, float]:
        made = episode.notes.get(SEARCHES, ())
        several = sum(len(queries) > 1 for queries in made)
        return {**verdict()(episode), "searches": float(len(made)), "at_once": float(several)}

    return reward


# ---- the recipe ------------------------------------------------------------------------------------------------------


class Library:
    """A source of the tool `search`, which knows three words."""

    name = "library"

    def opened(self, task: Task, seed: int) -> Sequence[Tool]:
        known = {"a": "3", "b": "4"}
        parameters = {"type": "object", "properties": {"query": {"type": "string"}}}
        return [Tool("search", "", parameters, lambda given: known.get(given["query"], "nothing"))]

    def close(self) -> None: ...


def _played(*said: str, library: bool = True, condensed: Sequence[str] = (), **settings: Any) -> Episode:
    """The answer to a question whose answer is 7."""
    rollout = built(RECIPE, "rollout", {"search_request": "", **settings})
    one = replace(speaker(said), kit=Kit([Library()] if library else []))
    others = {"teacher": speaker(condensed, "teacher")} if condensed else {}
    task = example_question()
    found = asyncio.run(rollout(task, Conversation(task, one, judged, 0, generators=others)))
    assert isinstance(found, Episode)
    return found


def _block(*queries: str) -> str:
    return BEGIN + ";\n".join(queries) + END


def _text(episode: Episode) -> str:
    """The answer, with what was sampled in brackets."""
    parts = [(s.sampled, Spoken().decode(s.tokens.tolist())) for s in episode.spans[1:]]
    return "".join(f"[{text}]" if own else text for own, text in parts)


def _shows(*results: str) -> str:
    return f"\n{RESULTS}\n" + "\n".join(results) + f"\n{RESULTS_END}\n"


def _whole() -> float:
    """1 where two queries are answered at once, then a third and one that was asked before, and only what was said is sampled."""
    both, then = _block("a", "b"), _block("c", "a")
    episode = _played(both, then, "7")
    wanted = f"[{both}]{_shows('a: 3', 'b: 4')}[{then}]{_shows('c: nothing', f'a: {SEEN}')}[7]"
    calls = [call["arguments"]["query"] for call in episode.notes["tools"]]
    return float(_text(episode) == wanted and episode.correct and calls == ["a", "b", "c"])


def _condensed() -> float:
    episode = _played(_block("a"), "7", condensed=["three"], condenser="teacher")
    return float(_text(episode) == f"[{_block('a')}]{_shows('a: three')}[7]")


def _scored(*turns: Sequence[str]) -> list[float]:
    made = replace(example_calls(1.0), notes={SEARCHES: turns})
    scored = built(RECIPE, "reward")(made)
    return [scored[name] for name in ("reward", "searches", "at_once")]


RECIPE: Recipe = Recipe(
    name="hybrid_deep_searcher",
    base=RFT,
    paper=Paper(
        "Hybrid Deep Searcher: Integrating Parallel and Sequential Search Reasoning", "2508.19113", 2025
    ),
    published_lr=3e-5,
    idea="One query at a time is slow, and a long course of searches loses its thread. Queries that do not depend on each other are asked at once, those that "
    "do one after another. Courses that do so and end right are imitated, without the results in them.",
    equation="L = - mean_t log pi(y_t | question, queries and results before), over what was said of different right courses",
    departures=(
        "the questions are the run's own; the paper writes some (HDS-QA) in which several attributes must be looked up at once to find the entity that a "
        "further question is about, with a large model and a web search",
        "courses are the policy's own, or with group_rollout.searcher=teacher a second model's, played anew each step; in the paper 4 a question, once",
        "results come from the run's tool (--tools search:FOLDER) within the run's budgets, as they are, or condensed by a model (rollout.condenser), "
        "as in the release",
        "of right courses each different one is imitated once",
        "GUESS: eight queries of a search are looked up, ten searches an answer; the release has ten turns and no bound on queries",
    ),
    stages={
        "rollout": stage(Hybrid),
        "group_rollout": stage(Played),
        "reward": stage(verdict_and_searches),
    },
    needs=("text",),
    claim="Questions that need several facts at once are answered as well in fewer turns than by a searcher that asks one query at a time.",
    manipulation=(Manipulated("one answer in twenty asks several things at once", r"score/at_once", 0.05),),
    examples=(
        ByHand("two at once, then a new one and an old one", _whole, 1),
        ByHand("a teacher says what was found", _condensed, 1),
        ByHand(
            "no tools: the block is text; no turns: the same; one query at a time",
            lambda: [
                len(_played(_block("a") + "7", library=False).notes[SEARCHES]),
                len(_played(_block("a") + "7", search_turns=0).notes[SEARCHES]),
                len(_played(_block("a", "b"), "7", at_once=1).notes[SEARCHES][0]),
            ],
            [0, 0, 1],
        ),
        ByHand(
            "a tool that is not there: an error is told",
            lambda: float("Error" in _text(_played(_block("a"), "7", search_tool="x"))),
            1,
        ),
        ByHand(
            "three searches, one of them of two queries", lambda: _scored(["a"], ["b", "c"], ["d"]), [1, 3, 1]
        ),
        ByHand("none", lambda: built(RECIPE, "reward")(example_episode(0.0))["reward"], 0),
        ByHand(
            "the teacher plays",
            lambda: float(
                collected(RECIPE, ["8"], {"teacher": ["7"]}, {"group_rollout.searcher": "teacher"})[0].correct
            ),
            1,
        ),
        Reduction(
            "nothing is searched for: rejection-sampling fine-tuning", "rft", {"rollout.search_request": ""}
        ),
    ),
)
