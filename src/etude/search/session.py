"""A session of inference: everything that a method may use to answer one problem, and nothing else.

A method is a coroutine `async (session) -> Draft | str`, made by a factory with settings; `answering` makes a rollout of it,
so that `eval` plays it, `train` learns from it and `compare` charges it. The task that a session shows holds neither answer
nor checker: they are asked once, about what the method answered. A method that asks the checker on its way says that it is
an oracle, and so does every result of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from etude import seeds
from etude.errors import UserError
from etude.rollout.attempts import answer_of
from etude.rollout.conversation import Conversation, Generator
from etude.search.ledger import Charged, Exhausted, Ledger, Limit
from etude.tasks.unlabelled import unlabelled
from etude.types import Array, Episode, Message, Task, Verdict

SEARCH = "search"
"""Note: what was thought of on the way: {"nodes": [...], "spent": {...}, "oracle": bool}."""

SHOWN = 240  # characters of a node's text
NODES = 128  # kept of a tree; those on the chosen path among them

Said = str | Sequence[Message]


def no_check(answer: str) -> Verdict:
    """In the place of a checker that must not be asked."""
    raise UserError("a method that answers has no checker to ask; one that asks is an oracle and says so")


async def _no_runner(task: Task, answer: str) -> Verdict:
    return no_check(answer)


def question_of(task: Task) -> Task:
    """What a method may see of a task: its prompt, its kind, and what its tools work on."""
    meta = {name: task.meta[name] for name in ("files", "sql") if name in task.meta}
    return Task(task.prompt, no_check, kind=task.kind, meta=meta)


@dataclass
class Draft:
    """An answer in the making, or a whole one, with what its model thought of it."""

    line: Conversation
    text: str
    answer: str | None  # as far as two answers can be told apart; None where none was found
    node: int = 0  # its number in the session's tree

    @property
    def whole(self) -> bool:
        """Whether the model ended it."""
        return self.line.stop == "end"

    @property
    def logp(self) -> float:
        """Mean log-probability a token, under the settings that it was sampled with."""
        return _mean([s.logp for s in self.line.samples])

    @property
    def certainty(self) -> float:
        """Mean KL(uniform || p) a token; 0 where the sampler could not say it."""
        return _mean([s.certainty for s in self.line.samples if s.certainty is not None])

    @property
    def tokens(self) -> int:
        return sum(len(s.tokens) for s in self.line.samples)


def _mean(rows: Sequence[Any]) -> float:
    return float(np.mean(np.concatenate(rows))) if rows and sum(map(len, rows)) else 0.0


class Session:
    """The inference on one problem. Not shared between problems; its coroutines may run side by side."""

    def __init__(
        self, task: Task, conversation: Conversation, limit: Limit, oracle: bool, certainty: bool
    ) -> None:
        self.task = question_of(task)
        self.ledger = Ledger(limit)
        blind = unlabelled(task)
        self.read: Callable[[str], str | None] = lambda text: answer_of(blind, text)
        self.nodes: list[dict[str, Any]] = []
        self.offered: Draft | None = None
        self._key = conversation.key
        self._generators = {
            name: replace(g, sampler=Charged(g.sampler, self.ledger, name, certainty and name == "policy"))
            for name, g in {**conversation.generators, "policy": conversation.generator}.items()
        }
        self._check = (conversation.check_runner, task) if oracle else None

    @property
    def key(self) -> int:
        """Names the random draws of this session, and the session itself among those of a run."""
        return self._key

    @property
    def models(self) -> frozenset[str]:
        """The names of the models that can be asked here."""
        return frozenset(self._generators)

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.task.prompt

    @property
    def question(self) -> str:
        """The last message of the prompt."""
        return self.task.prompt[-1].content

    def generator(self, model: str = "policy") -> Generator:
        """A model that replies, charged to this problem. Raises UserError where there is none of this name."""
        if model not in self._generators:
            raise UserError(
                f"there is no model '{model}' here; a second model is named by --set run.teacher=NAME"
            )
        return self._generators[model]

    # ---- asking --------------------------------------------------------------------------------------

    def line(
        self, *name: object, said: Said | None = None, learn: Said | None = None, model: str = "policy"
    ) -> Conversation:
        """A new conversation, which begins with `said` (default: the task's prompt). `name` names its random draws;
        `learn`: what training sees in place of `said` (default: the task's prompt)."""
        key = seeds.key(self._key, "line", *name)
        line = Conversation(self.task, self.generator(model), _no_runner, key, generators=self._generators)
        plain = self.prompt if learn is None else learn
        words = self.prompt if said is None else _messages(said)
        line.user(words, None if list(words) == list(_messages(plain)) else plain)
        return line

    async def draft(
        self,
        *name: object,
        said: Said | None = None,
        learn: Said | None = None,
        model: str = "policy",
        parent: int | None = None,
        tag: str = "answer",
        **params: Any,
    ) -> Draft:
        """One reply to `said`, as a node of the tree. `params`: as for `Conversation.reply`."""
        line = self.line(*name, said=said, learn=learn, model=model)
        return await self.go_on(line, parent, tag, **params)

    async def drafts(self, n: int, *name: object, **more: Any) -> list[Draft]:
        """`n` independent replies; those that the budget pays for, at least one. Raises Exhausted where there is none."""
        return await self.gather(self.draft(*name, i, **more) for i in range(n))

    async def go_on(
        self, line: Conversation, parent: int | None = None, tag: str = "answer", **params: Any
    ) -> Draft:
        """The reply to a conversation, or what it says next, as a node of the tree."""
        before = len(line.text) if line.stop == "cut" else 0
        text = await line.reply(tag, **params)
        found = Draft(line, text, self.read(text))
        found.node = self.note(
            text[before:],
            parent,
            tag,
            answer=found.answer,
            tokens=len(line.samples[-1].tokens) if line.samples else 0,
        )
        return found

    async def gather(self, work: Any) -> list[Any]:
        """The results of coroutines, without those that the budget did not pay for. Raises Exhausted where none is left."""
        found = await asyncio.gather(*work, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, Exhausted):
                raise one
        kept = [one for one in found if not isinstance(one, BaseException)]
        if not kept and found:
            raise Exhausted
        return kept

    async def say(
        self,
        said: Said,
        *name: object,
        model: str = "policy",
        tag: str = "note",
        parent: int | None = None,
        **params: Any,
    ) -> str:
        """The text of a reply that is no answer: a plan, a critique, a judgement."""
        return (
            await self.draft(*name, said=said, learn=said, model=model, tag=tag, parent=parent, **params)
        ).text

    def offer(self, draft: Draft) -> Draft:
        """The answer that counts should the budget end before the method does."""
        self.offered = draft
        return draft

    def shuffled(self, n: int, *name: object) -> list[int]:
        """The numbers 0..n-1 in an order by chance, named as draws are."""
        return [int(i) for i in seeds.generator(self._key, "order", *name).permutation(n)]

    def drawn(self, weights: Array, *name: object) -> int:
        """One of the numbers 0..len(weights)-1 by chance, with these probabilities, named as draws are."""
        return int(seeds.generator(self._key, "order", *name).choice(len(weights), p=weights))

    # ---- the oracle ----------------------------------------------------------------------------------

    async def verdict(self, draft: Draft) -> Verdict:
        """The checker's own word, for methods that say that they are oracles. Raises UserError for all others."""
        if self._check is None:
            return no_check(draft.text)
        run, task = self._check
        return await run(task, draft.text)

    # ---- what is shown -------------------------------------------------------------------------------

    def note(self, text: str, parent: int | None, tag: str, **facts: Any) -> int:
        """Adds a node to the tree that people look at; its number. Later facts: `mark`."""
        shown = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
        self.nodes.append({"parent": parent, "tag": tag, "text": shown, **facts})
        return len(self.nodes) - 1

    def mark(self, node: int, **facts: Any) -> None:
        """Facts of a node: `score`, `value`, `visits`."""
        self.nodes[node] |= facts


def _messages(said: Said) -> tuple[Message, ...]:
    return (Message("user", said),) if isinstance(said, str) else tuple(said)


Method = Callable[[Session], Awaitable[Draft | str]]
"""How a problem is answered."""


@dataclass
class Answering:
    """A rollout by a method. `oracle`: it may ask the checker on its way. `certainty`: samples say how certain they were.
    `reads`: auxiliary models that must be there. `limit`: what one problem may cost."""

    method: Method
    oracle: bool = False
    certainty: bool = False
    reads: frozenset[str] = frozenset()
    limit: Limit = field(default_factory=Limit)

    @property
    def in_process(self) -> str:
        """Why no engine can sample for it; "" where one can."""
        return "asks how certain every reply was, which engines do not say" if self.certainty else ""

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        session = Session(task, conversation, self.limit, self.oracle, self.certainty)
        found: Draft | str | None
        try:
            found = await self.method(session)
        except Exhausted:
            found = session.offered
        line = conversation
        if isinstance(found, Draft):
            line = replace(
                found.line,
                task=task,
                check_runner=conversation.check_runner,
                index=conversation.index,
                generator=_own(found.line.generator, conversation),
            )
            _mark_path(session, found.node)
        else:
            line.user(task.prompt)
            line.inject(found or "", tag="answer")
        text = found.text if isinstance(found, Draft) else found or ""
        await line.check(text)
        return line.done(**{SEARCH: self._facts(session)})

    def _facts(self, session: Session) -> dict[str, Any]:
        return {
            "spent": session.ledger.to_dict(),
            "oracle": self.oracle,
            "nodes": _kept(session.nodes),
            "left_out": max(0, len(session.nodes) - NODES),
        }


def _own(generator: Generator, conversation: Conversation) -> Generator:
    """The generator without the account: what is asked from here on is no longer the method's."""
    everybody = {**conversation.generators, "policy": conversation.generator}
    return next((g for g in everybody.values() if g.name == generator.name), conversation.generator)


def _kept(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `NODES` of the nodes: the chosen path, then the first ones; `parent` counts among those that are kept."""
    first = [i for i, n in enumerate(nodes) if n.get("chosen")][:NODES]
    more = [i for i, n in enumerate(nodes) if not n.get("chosen")][: NODES - len(first)]
    place = {old: new for new, old in enumerate(sorted([*first, *more]))}
    return [{**nodes[old], "parent": place.get(nodes[old]["parent"])} for old in place]


def _mark_path(session: Session, node: int) -> None:
    at: int | None = node
    while at is not None and not session.nodes[at].get("chosen"):
        session.nodes[at]["chosen"] = True
        at = session.nodes[at]["parent"]


def answering(
    method: Method, oracle: bool = False, certainty: bool = False, reads: Sequence[str] = ()
) -> Answering:
    """The rollout that answers by `method`."""
    return Answering(method, oracle, certainty, frozenset(reads))


def spent_of(episode: Episode) -> Mapping[str, Any]:
    """What an episode's method spent: {"flops", "tokens", "exhausted", "models"}; empty for any other episode."""
    return dict(episode.notes.get(SEARCH, {}).get("spent", {}))
