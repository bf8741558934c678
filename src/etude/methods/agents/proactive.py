"""Proactive information gathering: a task lacks facts that its user knows, and questions that bring a new one are paid.

Huang et al. (arXiv 2507.21389). Some facts H of a task are kept back. The policy may ask one question a turn; the user answers what is asked and no
more; a reply that asks nothing is the answer.

    r_k = 1 where the user's answer to question k tells a fact of H that was not told before, else 0
    R = w_q sum_k r_k / |H| + w_a worth

Training as GRPO; what the user says is not trained.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from etude import seeds
from etude.fixtures.curricula import built
from etude.fixtures.examples import example_episode
from etude.fixtures.given import given_stage
from etude.fixtures.inference import Spoken, example_question, judged, speaker
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import below, reworded
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import verdict
from etude.rollout.writers import WRITERS, Address, Writer
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.types import Episode, Message, Task

HIDDEN = "hidden"
"""Column of a task: facts that its user knows and its prompt does not tell. Note: how many were kept back."""

ASKED, NEW = "asked", "new"
"""Notes: how many questions were asked; how many of them brought a new fact."""

QUESTION = "question"
"""The tag of a reply that asks, or answers."""

REQUEST = "You do not know all that you need. Ask one short question at a time and wait for its answer. When you know enough, give the answer."
NOTHING, ONE = "I cannot tell you more about that.", "One question at a time, please."
USER = (
    "You are the user who set this task:\n{question}\n\nYou know besides:\n{facts}\n\nThe assistant asks: {asked}\n\nAnswer in a sentence, with just what is asked "
    "for. Where you do not know it, say so."
)
COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "by",
        "can",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "her",
        "his",
        "how",
        "i",
        "if",
        "in",
        "is",
        "it",
        "its",
        "many",
        "me",
        "more",
        "much",
        "of",
        "on",
        "or",
        "our",
        "she",
        "so",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "they",
        "this",
        "to",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)


@dataclass(frozen=True)
class Facts:
    """A task without some of its facts, and these."""

    prompt: tuple[Message, ...]
    hidden: tuple[str, ...]


def kept_back(task: Task, share: float, key: int) -> Facts:
    """The facts of the task's column `hidden`; else sentences of its question, drawn by chance: at least one where `share` is above 0 and there is one to spare. The
    last sentence, and those that ask, stay."""
    given = task.meta.get(HIDDEN)
    if given:
        return Facts(task.prompt, tuple(map(str, given)))
    text = task.prompt[-1].content
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s]
    may = [i for i, s in enumerate(sentences[:-1]) if "?" not in s]
    number = min(len(may), max(1, round(share * len(may)))) if share and may else 0
    if not number:
        return Facts(task.prompt, ())
    drawn = set(seeds.generator(key, HIDDEN).choice(may, number, replace=False).tolist())
    shown = " ".join(s for i, s in enumerate(sentences) if i not in drawn)
    return Facts(reworded(task.prompt, shown), tuple(sentences[i] for i in sorted(drawn)))


def words_of(text: str) -> set[str]:
    """Its words but the common ones."""
    return set(re.findall(r"\w+", text.casefold())) - COMMON


def by_rule(question: str, facts: Sequence[str]) -> str:
    """The fact that shares most words with the question, the first of several; `NOTHING` where none shares any."""
    shared = [len(words_of(question) & words_of(fact)) for fact in facts]
    return facts[shared.index(max(shared))] if any(shared) else NOTHING


def tells(said: str, fact: str) -> bool:
    """Whether an answer holds at least half of a fact's words, all of its numbers among them."""
    wanted, mine = words_of(fact), words_of(said)
    numbers = {w for w in wanted if w.isdigit()}
    return bool(wanted) and numbers <= mine and 2 * len(wanted & mine) >= len(wanted)


# ---- rollout and reward ----------------------------------------------------------------------------------------------


class Gathering:
    """Questions and the user's answers, at most `questions_allowed`, then the answer. Notes `ASKED`, `NEW` and `HIDDEN`."""

    def __init__(
        self,
        questions_allowed: Annotated[int, Setting("questions before the answer", low=0, high=64)] = 5,
        hidden_share: Annotated[
            float,
            Setting(
                "share of a question's sentences that are kept back, where the task names no facts",
                low=0,
                high=1,
            ),
        ] = 0.5,
        asking_request: Annotated[str, Setting("what stands below the task; empty: nothing")] = REQUEST,
        user: Annotated[
            str,
            Setting(
                "who answers: a rule that looks for shared words, or a model", choices=("rule", *WRITERS)
            ),
        ] = "rule",
        address: Address = "",
    ) -> None:
        self.allowed, self.share, self.request = questions_allowed, hidden_share, asking_request
        self.writer = None if user == "rule" else Writer(user, address)
        self.reads = self.writer.reads if self.writer else frozenset()

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        group = seeds.key("facts", task.key)  # the same for all attempts at a task
        facts = kept_back(task, self.share if self.allowed else 0.0, group)
        conversation.user(below(facts.prompt, self.request))
        told: set[str] = set()
        asked = new = 0
        text = await conversation.reply(QUESTION)
        while "?" in text and asked < self.allowed and not conversation.full:
            asked += 1
            said = ONE if text.count("?") > 1 else await self.answered(conversation, text, facts)
            fresh = {fact for fact in facts.hidden if tells(said, fact)} - told
            told |= fresh
            new += bool(fresh)
            conversation.user(said)
            text = await conversation.reply(QUESTION)
        await conversation.check(text)
        return conversation.done(**{ASKED: asked, NEW: new, HIDDEN: len(facts.hidden)})

    async def answered(self, conversation: Conversation, question: str, facts: Facts) -> str:
        """What the user says to one question."""
        if self.writer is None:
            return by_rule(question, facts.hidden) if facts.hidden else NOTHING
        known = "\n".join(facts.hidden) or "nothing"
        asked = USER.format(question=facts.prompt[-1].content, facts=known, asked=question)
        return await self.writer.draft(conversation, (Message("user", asked),))


def new_facts(
    question_weight: Annotated[
        float, Setting("w_q, weight of the share of facts that questions brought", low=0)
    ] = 1.0,
    worth_weight: Annotated[float, Setting("weight of the verdict on the answer", low=0)] = 1.0,
) -> Reward:
    """w_q sum_k r_k / |H| + w_a worth. questions: how many were asked; brought: sum_k r_k / |H|, 0 where nothing was kept back."""

    def reward(episode: Episode) -> dict[str, float]:
        hidden = episode.notes.get(HIDDEN, 0)
        brought = episode.notes.get(NEW, 0) / hidden if hidden else 0.0
        total = question_weight * brought + worth_weight * verdict()(episode)["reward"]
        return {"reward": total, "brought": brought, "questions": float(episode.notes.get(ASKED, 0))}

    return reward


# ---- the recipe ------------------------------------------------------------------------------------------------------

FACTS = ("The apples cost 3 each.", "Ann bought 4 pears.")


def _played(*said: str, hidden: Sequence[str] = FACTS, **settings: Any) -> Episode:
    """An answer to a task whose answer is 7 and whose user knows these facts."""
    rollout = built(RECIPE, "rollout", {"asking_request": "", **settings})
    task = replace(example_question(), meta={HIDDEN: list(hidden)} if hidden else {})
    found = asyncio.run(rollout(task, Conversation(task, speaker(said), judged, 0)))
    assert isinstance(found, Episode)
    return found


def _brought(*said: str, **how: Any) -> list[float]:
    """Questions asked, facts brought, whether the answer is right."""
    episode = _played(*said, **how)
    return [episode.notes[ASKED], episode.notes[NEW], float(episode.correct)]


def _told() -> float:
    """1 where the user tells what is asked for, and the policy's own words alone are sampled."""
    episode = _played("What do apples cost?", "7")
    parts = [(s.sampled, Spoken().decode(s.tokens.tolist())) for s in episode.spans]
    return float(
        parts
        == [
            (False, "<user>3+4?<assistant>"),
            (True, "What do apples cost?"),
            (False, f"<user>{FACTS[0]}<assistant>"),
            (True, "7"),
        ]
    )


def _rewarded(worth: float, new: int, hidden: int = 2, **settings: Any) -> float:
    made = replace(example_episode(worth), notes={ASKED: 3, NEW: new, HIDDEN: hidden})
    found: float = given_stage(RECIPE, "reward", **settings)(made)["reward"]
    return found


def _split(text: str, share: float) -> list[float]:
    """How many sentences are kept back, and how many stay."""
    task = replace(example_question(), prompt=(Message("user", text),))
    facts = kept_back(task, share, 1)
    return [len(facts.hidden), len(re.findall(r"[.?]", facts.prompt[0].content))]


RECIPE: Recipe = Recipe(
    name="proactive",
    base=GRPO,
    paper=Paper("Teaching Language Models To Gather Information Proactively", "2507.21389", 2025),
    idea="Who sets a task seldom says all that matters. A policy that answers at once guesses; one that asks finds out. "
    "Some facts of each task are kept back, and a question that brings one of them is paid, once.",
    equation="R = w_q sum_k 1[question k brings a new fact of H] / |H| + w_a worth;  A and L as GRPO",
    departures=(
        "the paper was read in its abstract and in an account of it: five questions, and 1 for a question whose answer draws on a hidden sentence; GUESS: only the first "
        "question that brings a fact is paid for it",
        "the paper trains by PPO with a critic on the reward of each question; here an attempt's questions are paid together, as GRPO does",
        "the answer is the policy's, and its worth counts as well (reward.worth_weight=0: questions alone); in the paper a fixed model writes it",
        "facts are those of the task's column `hidden`, or sentences of its question; the paper hides procedure and form of what specialists write",
        "the user is a rule, which tells the fact that shares most words with the question, or a model; whether a fact was told is decided by its words, in the paper by "
        "the model that plays the user, which names the sentences it draws on",
        "a reply with a question mark is a question, with two of them it asks too much at once and hears so",
    ),
    confidence="memory",
    stages={"rollout": stage(Gathering), "reward": stage(new_facts)},
    needs=("text",),
    claim="Of the facts that are kept back more are found out in as many questions, and more answers are right, than before training and than with a reward for the answer alone.",
    manipulation=(Manipulated("one fact in twenty is found out by a question", r"score/brought", 0.05),),
    examples=(
        ByHand("the user tells what is asked for", _told, 1),
        ByHand(
            "two questions, two facts; the same again brings nothing; beside the point; two at once",
            lambda: [
                _brought("What do apples cost?", "How many pears?", "7"),
                _brought("What do apples cost?", "And apples?", "7"),
                _brought("Who rules Rome?", "7"),
                _brought("Apples? Pears?", "7"),
            ],
            [[2, 2, 1], [2, 1, 1], [1, 0, 1], [1, 0, 1]],
        ),
        ByHand(
            "no more questions: what is asked then is the answer",
            lambda: _brought("Apples?", "Pears?", questions_allowed=1),
            [1, 1, 0],
        ),
        ByHand("nothing kept back, nothing asked", lambda: _brought("7", hidden=()), [0, 0, 1]),
        ByHand(
            "of three sentences and a question: one, two, all; of a question alone none",
            lambda: (
                [_split("A is 1. B is 2. C is 3. What is D?", s) for s in (0.1, 0.6, 1.0)]
                + [_split("What is D?", 1.0)]
            ),
            [[1, 3], [2, 2], [3, 1], [0, 1]],
        ),
        ByHand(
            "told: half of the words and the numbers; a number less; other words",
            lambda: [tells(said, FACTS[0]) for said in ("They cost 3.", "Apples cost 4.", "3, I think.")],
            [1, 0, 0],
        ),
        ByHand(
            "one of two facts, right: 1/2 + 1; wrong: 1/2; questions alone; nothing was kept back",
            lambda: [
                _rewarded(1.0, 1),
                _rewarded(0.0, 1),
                _rewarded(1.0, 2, worth_weight=0.0),
                _rewarded(1.0, 0, hidden=0),
            ],
            [1.5, 0.5, 1.0, 1.0],
        ),
        Reduction(
            "nothing may be asked: GRPO",
            "grpo",
            {"rollout.questions_allowed": 0, "rollout.asking_request": ""},
        ),
    ),
)
