"""SSRL: the policy searches in itself. It writes a query, writes down what it knows of it, and goes on; a search engine may take its place later.

Fan et al. (arXiv 2508.10874); limits and the reward of the format after the released code (TsinghuaC3I/SSRL, reward_manager/naive.py).

- One reply: <think>, <search> a query </search>, <information> what the policy knows </information>, and so on, <answer>.
- R = 0.9 worth + 0.1 F. F is 0 where the format is broken, else min(1, n / 2) min(n, s + 1) / max(n, s + 1), n thoughts and s searches.
- Nothing within <information> is trained, though the policy wrote it. All else as GRPO with a KL to the start.
- With `rollout.corpus` a text that was looked up stands where the policy's own would: always, or where a query is less certain than the last.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Annotated, Any

import numpy as np

from etude.credit.group import laid, standardised
from etude.credit.imitate import tagged
from etude.fixtures.curricula import built
from etude.fixtures.examples import example_episode
from etude.fixtures.given import given_stage
from etude.fixtures.inference import Spoken, example_question, judged, speaker
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import clipped
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import verdict
from etude.rollout.probe import text_ends
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Reward, Rollout
from etude.text.tokenizer import Tokenizer
from etude.tools.retrieval import CorpusFolder, corpus_of
from etude.types import Array, Episode, Group, Signal, Span, Task

SEARCHED = "</search>"
INFORMATION = "information"
"""The tag of what answers a query, whoever wrote it."""

ASK = (
    "Think between <think> and </think>. Where you lack a fact, write a query between <search> and </search>, then what you know of it "
    "between <information> and </information>, and think again. In the end write the answer between <answer> and </answer>."
)

BLOCK = re.compile(r"<information>.*?</information>", re.S)
QUERY = re.compile(r"<search>((?:(?!<search>).)*)</search>\Z", re.S)
PARTS = ("think", "search", INFORMATION, "answer")
PLACEHOLDERS = {"think": "thoughts", "search": "query", INFORMATION: "information", "answer": "answer"}
THOUGHTS, MOST_THOUGHTS = 2, 8  # F is whole from so many thoughts on, and 0 beyond so many
FOUND = 3  # passages


# ---- rollout ---------------------------------------------------------------------------------------------------------


def self_search(
    search_request: Annotated[str, Setting("what stands below the question; empty: nothing")] = ASK,
    corpus: CorpusFolder = "",
    most_searches: Annotated[
        int, Setting("queries of an answer for which the corpus may be asked", low=1, high=64)
    ] = 3,
    unsure: Annotated[
        bool,
        Setting(
            "ask the corpus for the first query and for those less certain than the one before; else for all"
        ),
    ] = False,
) -> Rollout:
    """One answer. What stands within <information> has the tag `INFORMATION`. With a `corpus` the reply pauses behind a query, and what is
    found is put in, not sampled."""
    texts = corpus_of(corpus)

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        conversation.user(below(task.prompt, search_request))
        looked_up, last = 0, -np.inf
        for _ in range(most_searches if texts is not None else 0):
            text = await conversation.reply(until=SEARCHED)
            asked = QUERY.search(text)
            if conversation.stop != "cut" or texts is None:
                break
            now = uncertainty(conversation)
            if asked and not (unsure and now <= last):
                found = "\n".join(texts.best(asked[1], FOUND)) or "Nothing was found."
                conversation.interject(f"\n<information>\n{found}\n</information>\n", INFORMATION)
                looked_up += 1
            last = now
        else:
            await conversation.reply()
        await conversation.check(conversation.text)
        conversation.spans = marked(conversation.spans, conversation.generator.renderer.tokenizer)
        return conversation.done(looked_up=looked_up)

    return rollout


def uncertainty(conversation: Conversation) -> float:
    """The mean of -p log2 p over the tokens of the query with which the last span ends, p their probability; 0 where none was sampled."""
    span = conversation.spans[-1]
    tokenizer = conversation.generator.renderer.tokenizer
    asked = QUERY.search(tokenizer.decode(span.tokens))
    if asked is None or span.logp is None:
        return 0.0
    first, end = tokens_of(span.tokens, asked.span(1), tokenizer)
    logp = span.logp[first:end].astype(np.float64)
    return float(np.mean(-np.exp(logp) * logp / np.log(2))) if len(logp) else 0.0


def tokens_of(tokens: Array, characters: tuple[int, int], tokenizer: Tokenizer) -> tuple[int, int]:
    """The tokens [first, end) that hold any of the characters [begin, end) of their text."""
    ends = text_ends(tokenizer, tokens)
    begin, end = characters
    return int(np.searchsorted(ends, begin, "right")), int(np.searchsorted(ends, end)) + 1


def marked(spans: Sequence[Span], tokenizer: Tokenizer) -> list[Span]:
    """The spans, cut so that what stands within <information> is spans of the tag `INFORMATION`, tags included."""
    made: list[Span] = []
    for own, run in groupby(spans, lambda s: s.role == "assistant"):
        parts = list(run)
        if not own:
            made += parts
            continue
        tokens = np.concatenate([s.tokens for s in parts])
        inside = np.zeros(len(tokens), np.bool_)
        for block in BLOCK.finditer(tokenizer.decode(tokens)):
            first, end = tokens_of(tokens, block.span(), tokenizer)
            inside[first:end] = True
        begin = 0
        for span in parts:
            made += _cut(span, inside[begin : begin + len(span)])
            begin += len(span)
    return made


def _cut(span: Span, inside: Array) -> list[Span]:
    edges = [0, *(np.flatnonzero(np.diff(inside)) + 1).tolist(), len(span)]
    return [
        replace(
            span,
            tokens=span.tokens[a:b],
            logp=None if span.logp is None else span.logp[a:b],
            tag=INFORMATION if inside[a] else span.tag,
            restart=span.restart and not a,
        )
        for a, b in pairwise(edges)
        if b > a
    ] or [span]


# ---- reward ----------------------------------------------------------------------------------------------------------


def format_of(text: str) -> float:
    """F."""
    text = text.strip()
    tags = re.findall(r"<([^>]+)>", text)
    known = {*PARTS, *(f"/{part}" for part in PARTS)}
    whole = text.startswith("<think>") and text.endswith("</answer>") and len(tags) >= 4
    if not whole or not set(tags) <= known or tags[1] != "/think" or tags[-2] != "answer":
        return 0.0
    for part, words in PLACEHOLDERS.items():
        held = re.findall(rf"<{part}>(.*?)</{part}>", text, re.S)
        if any(not h.strip() or f"your {words}" in h.lower() for h in held):
            return 0.0
        if part == "search" and any("\n" in h for h in held):
            return 0.0
    answered = ["search", "/search", INFORMATION, f"/{INFORMATION}"]
    if any(tags[i : i + 4] != answered for i, tag in enumerate(tags[:-2]) if tag == "search"):
        return 0.0
    thoughts, searches = tags.count("think"), tags.count("search")
    if searches != tags.count(INFORMATION) or thoughts > MOST_THOUGHTS:
        return 0.0
    ratio = min(thoughts, searches + 1) / max(thoughts, searches + 1)
    return min(1.0, thoughts / THOUGHTS) * ratio


def answer_and_format(
    format_weight: Annotated[float, Setting("share of the format in the reward", low=0, high=1)] = 0.1,
) -> Reward:
    """(1 - w) worth + w F. searches: queries that were closed."""

    def reward(episode: Episode) -> dict[str, float]:
        worth, form = verdict()(episode)["reward"], format_of(episode.text)
        total = (1 - format_weight) * worth + format_weight * form
        return {"reward": total, "format": form, "searches": float(episode.text.count(SEARCHED))}

    return reward


# ---- credit ----------------------------------------------------------------------------------------------------------


def without_information(
    mask_information: Annotated[bool, Setting("what stands within <information> is not trained")] = True,
) -> Credit:
    """A_i = (r_i - mean r) / (std r + 1e-4) on what the policy sampled, except within <information>."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return [
            _signal(episode, advantage)
            for group in groups
            for episode, advantage in zip(group.episodes, standardised(group.rewards), strict=True)
        ]

    def _signal(episode: Episode, advantage: float) -> Signal:
        on = episode.sampled
        if mask_information:
            on = on & ~tagged(episode, INFORMATION)
        return Signal(episode, laid(on, advantage), {"policy": on.astype(np.float32)})

    return credit


# ---- the recipe ------------------------------------------------------------------------------------------------------

SELF = "<think>a</think><search>b</search><information>c</information><think>d</think><answer>7</answer>"


def _played(*replies: str, **settings: Any) -> Episode:
    """The answer to a question whose answer is 7."""
    rollout = built(RECIPE, "rollout", {"search_request": "", **settings})
    found = asyncio.run(
        rollout(example_question(), Conversation(example_question(), speaker(replies), judged, 0))
    )
    assert isinstance(found, Episode)
    return found


def _trained(**settings: Any) -> list[float]:
    """The number of tokens that are trained, and of those whose advantage is not 0, of an answer that searched in itself and one that did
    not; the second is wrong."""
    played = (_played(SELF), _played("<answer>8</answer>"))
    made = [e.with_scores({"reward": float(e.correct)}) for e in played]
    signals = given_stage(RECIPE, "credit", **settings)([Group(made[0].task, tuple(made))], None)
    return [float(count) for s in signals for count in (s.weights["policy"].sum(), (s.advantage != 0).sum())]


def _trained_text() -> float:
    """1 where just the words outside <information> are trained."""
    (signal,) = given_stage(RECIPE, "credit")(
        [Group(example_question(), (_played(SELF).with_scores({"reward": 1}),))], None
    )
    words = Spoken().decode(signal.episode.tokens[signal.weights["policy"] > 0].tolist())
    return float(words == SELF.replace("<information>c</information>", ""))


def _rewarded(text: str, reward: float = 1.0, **settings: Any) -> list[float]:
    scored = given_stage(RECIPE, "reward", **settings)(replace(example_episode(reward), text=text))
    return [scored[name] for name in ("reward", "format", "searches")]


BROKEN = (
    SELF.replace("c<", "<"),
    SELF.replace("b<", "b\n<"),
    SELF.replace("b<", "your query<"),
    SELF.replace("<think>d</think>", "<b>d</b>"),
    SELF.replace("<information>c</information>", ""),
    SELF + ".",
    SELF[len("<think>a</think>") :],
    "<think>a</think>" * 9 + "<answer>7</answer>",
)

RECIPE: Recipe = Recipe(
    name="ssrl",
    base=GRPO,
    paper=Paper("SSRL: Self-Search Reinforcement Learning", "2508.10874", 2025),
    published_lr=1e-6,
    idea="To search costs money and time, and a language model remembers a good deal of what it would find. "
    "So it answers its own queries, in the form in which a search engine would answer them, and learns to ask and to use what comes. "
    "What it wrote as an answer to itself is not trained, so that a search engine can take that place later.",
    equation="R = 0.9 worth + 0.1 F,  F = min(1, n / 2) min(n, s + 1) / max(n, s + 1), or 0 where the format is broken;  "
    "L as GRPO, a mean over tokens outside <information>, + 0.001 KL",
    departures=(
        "an answer's worth is the task's verdict on the whole reply, by its own rule; the release takes the exact match of what stands in "
        "the last <answer>",
        "the release finds <information> to be masked only where it is one line; here it may be several",
        "advantages and their mask are per token, and a token that holds a sign of both is masked",
        "looking things up is asked for by rollout.corpus, a folder of texts and BM25, at most three queries an answer; the release has its "
        "own server, and a switch for tests",
        "the release's words for the prompt are not used: rollout.search_request",
    ),
    stages={
        "rollout": stage(self_search),
        "reward": stage(answer_and_format),
        "credit": stage(without_information),
        "objective": stage(clipped, mean="token", kl_weight=0.001),
    },
    needs=("text",),
    claim="A policy that learnt to search in itself answers more questions right as soon as a real search takes that place, without more training.",
    manipulation=(Manipulated("one answer in ten has a query", r"score/searches", 0.1),),
    examples=(
        ByHand("two thoughts, one search: all of F", lambda: _rewarded(SELF), [1.0, 1.0, 1.0]),
        ByHand("the same, wrong", lambda: _rewarded(SELF, 0.0), [0.1, 1.0, 1.0]),
        ByHand(
            "one thought, no search: half of it",
            lambda: _rewarded("<think>a</think><answer>7</answer>"),
            [0.95, 0.5, 0.0],
        ),
        ByHand(
            "three thoughts, one search: 2/3",
            lambda: _rewarded(f"<think>x</think>{SELF}")[1],
            2 / 3,
        ),
        ByHand(
            "no F: nothing known; two lines asked; a placeholder; another tag; a query without an answer; words behind; no thought "
            "first; nine thoughts",
            lambda: [format_of(text) for text in BROKEN],
            [0.0] * 8,
        ),
        ByHand("no weight: the verdict", lambda: _rewarded(SELF, 0.5, format_weight=0.0)[0], 0.5),
        ByHand(
            "trained: all but <information> (28 tokens); a right and a wrong answer",
            _trained,
            [len(SELF) + 1 - 28] * 2 + [len("<answer>8</answer>") + 1] * 2,
        ),
        ByHand("without the mask: all", lambda: _trained(mask_information=False)[0], len(SELF) + 1),
        ByHand("the words that are trained", _trained_text, 1),
        Credited("1 of 2 right: std 1/2", [[1.0, 0.0]], [[0.5 / 0.5001, -0.5 / 0.5001]]),
        OffPolicy(
            "a mean over tokens, and the KL of the release: k3 = r - 1 - log r with r = 1",
            ratio=(1.5, 1.1, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={"reference": (-1 + np.log(1.5), -1 + np.log(1.1), -1 + np.log(0.5))},
            loss=(-1.2 - 1.1 + 0.8) / 3,
            gradient=(0, -1.1 / 3, 0),
        ),
        Reduction(
            "nothing is asked for, masked or paid but the answer: GRPO with this mean and KL",
            "grpo",
            {"rollout.search_request": "", "reward.format_weight": 0.0, "credit.mask_information": False},
            {"objective.mean": "token", "objective.kl_weight": 0.001},
        ),
    ),
)
