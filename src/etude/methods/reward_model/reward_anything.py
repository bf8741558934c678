"""RewardAnything: a judge that is told by which principle to judge, trained by GRPO on rankings.

What a good answer is depends on what is wanted: short, kind, exact. The judge reads a principle, a question and several answers under
letters, thinks, and gives every answer a score and all of them an order. Its reward is how well the scores order the answers as those
who know the principle did, a pair that lies far apart counting more, and a part for the form. So it learns to follow principles, and not
one taste. RewardAnything: Generalizable Principle-Following Reward Models, arXiv 2506.03637; numbers after the released code
(WisdomShell/RewardAnything, `processing.py`).

A row of its tasks: {"prompt": ..., "principle": ..., "responses": [...], "scores": [5, 2, 3]}, read with `FILE:check=none`; or a pair
(`--pairs FILE`), with or without a `principle`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Annotated, Any

from etude import seeds
from etude.fixtures.examples import example_episode
from etude.fixtures.given import given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.basic import single
from etude.rollout.conversation import Conversation
from etude.settings import Setting, stage
from etude.stages import Reward, Rollout
from etude.tasks.pairs import CHOSEN, RATINGS, REJECTED
from etude.types import NOISE, Episode, Task

GOLD = "gold"  # note: the known score of each answer, by its letter
SCORES, ORDER = "scores", "best-to-worst"  # keys of a judgement
MOST = 26  # answers that letters can name
HELPFUL = "Prefer the answer that helps the one who asks most."
ASK = (
    "Judge answers by this principle and by nothing else:\n{principle}\n\nQuestion:\n{question}\n\n{answers}\n\n"
    'Think between <think> and </think>. Then write one JSON object: {{"scores": {{"A": N, ...}}, "best-to-worst": ["A", ...]}}, with a score '
    "from 1 to 5 for every answer."
)


def ranked(task: Task) -> tuple[list[str], list[float]]:
    """The answers that a task brings, and how good each is; none where it brings none. Raises ValueError for what does not fit."""
    meta = task.meta
    if CHOSEN in meta and REJECTED in meta:
        known = [meta.get(name) for name in RATINGS]
        rated = [2.0, 1.0] if None in known else [float(r) for r in known if r is not None]
        return [str(meta[CHOSEN]), str(meta[REJECTED])], rated
    if "responses" not in meta:
        return [], []
    answers, scores = (_listed(meta.get(name), name) for name in ("responses", SCORES))
    if len(answers) != len(scores) or not 2 <= len(answers) <= MOST:
        raise ValueError(
            f"'responses' and 'scores' must be lists of the same length, from 2 to {MOST}; got {len(answers)} and {len(scores)}"
        )
    return [str(a) for a in answers], [float(s) for s in scores]


def _listed(given: Any, name: str) -> list[Any]:
    found = json.loads(given) if isinstance(given, str) else given
    if not isinstance(found, list | tuple):
        raise ValueError(f"'{name}' must be a list")
    return list(found)


def judging() -> Rollout:
    """One judgement of all answers of a task, in an order that is drawn. A task without answers is answered itself."""
    plain = single()

    async def rollout(task: Task, conversation: Conversation) -> Episode | Sequence[Episode]:
        answers, scores = ranked(task)
        if not answers:
            return await plain(task, conversation)
        order = seeds.generator(conversation.key, "order").permutation(len(answers))
        letters = {chr(65 + place): int(i) for place, i in enumerate(order)}
        shown = "\n\n".join(f"Answer {letter}:\n{answers[i]}" for letter, i in letters.items())
        question = "\n".join(m.content for m in task.prompt)
        principle = str(task.meta.get("principle") or HELPFUL)
        conversation.user(ASK.format(principle=principle, question=question, answers=shown))
        await conversation.reply()
        return conversation.done(**{GOLD: {letter: scores[i] for letter, i in letters.items()}})

    return rollout


def read(text: str) -> Mapping[str, Any]:
    """The last JSON object of a judgement, after its thoughts; empty where there is none."""
    said = text.rpartition("</think>")[2]
    start, end = said.find("{"), said.rfind("}")
    try:
        found = json.loads(said[start : end + 1]) if 0 <= start < end else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def scores_of(judgement: Mapping[str, Any]) -> dict[str, float]:
    """The scores that are numbers."""
    given = judgement.get(SCORES)
    if not isinstance(given, dict):
        return {}
    return {
        str(k): float(v)
        for k, v in given.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9
    }


def accuracy(gold: Mapping[str, float], said: Mapping[str, float]) -> float:
    """max(0, 1 - sum of penalties / sum of w), w = 1 + |g_i - g_j| over all pairs: w for a pair the wrong way round, or of which one has no
    score; w / 2 for a tie of what differs."""
    lost = total = 0.0
    for a, b in combinations(gold, 2):
        apart = gold[a] - gold[b]
        weight = 1 + abs(apart)
        total += weight
        if abs(apart) <= NOISE:
            continue
        if a not in said or b not in said:
            lost += weight
        elif abs(said[a] - said[b]) <= NOISE:
            lost += weight / 2
        elif (said[a] - said[b]) * apart < 0:
            lost += weight
    return max(0.0, 1 - lost / total)


def form(text: str, letters: Sequence[str]) -> float:
    """In [0, 1]: thoughts 0.15 (0.05 more beyond 50 characters), JSON 0.2, either key 0.1, every answer scored 0.2, order and scores agree
    0.2."""
    thought = re.search(r"<think>(.*?)</think>", text, re.DOTALL)
    judgement = read(text)
    said, order = scores_of(judgement), judgement.get(ORDER)
    found = (0.15 + 0.05 * (len(thought[1].strip()) > 50)) if thought else 0.0
    found += 0.2 * bool(judgement) + 0.1 * (SCORES in judgement) + 0.1 * (ORDER in judgement)
    found += 0.2 * len(set(said) & set(letters)) / len(letters)
    if isinstance(order, list) and sorted(map(str, order)) == sorted(letters) and set(letters) <= set(said):
        values = [said[str(letter)] for letter in order]
        found += 0.2 * all(a >= b for a, b in pairwise(values))
    return found


def ranking_reward(
    form_share: Annotated[float, Setting("share of the reward that is for the form", low=0, high=1)] = 0.2,
) -> Reward:
    """(1 - f) accuracy + f form; of a task without answers its verdict."""

    def reward(episode: Episode) -> dict[str, float]:
        gold = episode.notes.get(GOLD)
        if gold is None:
            if episode.verdict is None:
                raise ValueError(
                    "the task has neither answers to judge ('responses' and 'scores', or a pair) nor a check"
                )
            return {"reward": episode.verdict.reward}
        right, shape = accuracy(gold, scores_of(read(episode.text))), form(episode.text, list(gold))
        return {"reward": (1 - form_share) * right + form_share * shape, "ranking": right, "form": shape}

    return reward


def judged(text: str, **settings: float) -> list[float]:
    """Reward, accuracy and form of a judgement of three answers whose scores are 5, 3 and 2."""
    made = example_episode(0.0)
    noted = replace(made, text=text, notes={**made.notes, GOLD: {"A": 5.0, "B": 3.0, "C": 2.0}})
    scores = given_stage(RECIPE, "reward", **settings)(noted)
    return [scores[name] for name in ("reward", "ranking", "form")]


# Weights of the pairs: A B 1 + 2, A C 1 + 3, B C 1 + 1, in all 9.
GOOD = '<think>A is best.</think> {"scores": {"A": 5, "B": 4, "C": 1}, "best-to-worst": ["A", "B", "C"]}'
TIED = '{"scores": {"A": 4, "B": 4, "C": 5}, "best-to-worst": ["A", "B", "C"]}'
SHORT = 'Well: {"scores": {"A": 4}}'

RECIPE: Recipe = Recipe(
    name="reward_anything",
    base=GRPO,
    paper=Paper("RewardAnything: Generalizable Principle-Following Reward Models", "2506.03637", 2025),
    idea="The model is trained as a judge: it reads a principle, a question and several answers, and scores them all. "
    "It is rewarded for ordering them as those who applied the principle did, far apart counting more. "
    "Told another principle, it judges by that one.",
    equation="R = (1 - f) max(0, 1 - sum_ij pen_ij / sum_ij w_ij) + f R_form,  w_ij = 1 + |g_i - g_j|;  otherwise as GRPO",
    departures=(
        "known scores come with the tasks; the paper's are a consensus of several judges",
        "guess: a fifth of the reward is for the form; that the released functions were the training reward is assumed",
        "an answer that is given no score loses its pairs",
        "a pair of a preference file counts as scores 2 and 1 where it has no ratings",
    ),
    stages={"rollout": stage(judging), "reward": stage(ranking_reward)},
    claim="Trained on many principles, a judge orders answers better under principles that it has not seen than one trained on a single principle.",
    unchecked="every pair of answers that is ordered wrongly takes from the reward",
    examples=(
        ByHand("all in order; no long thoughts", lambda: judged(GOOD), [0.8 + 0.2 * 0.95, 1, 0.95]),
        ByHand(
            "A B tied: 3/2 lost; C before both: 4 and 2 lost; the list contradicts the scores",
            lambda: judged(TIED),
            [0.8 * 1.5 / 9 + 0.2 * 0.6, 1.5 / 9, 0.6],
        ),
        ByHand(
            "one answer scored of three: all pairs lost",
            lambda: judged(SHORT, form_share=0.5),
            [0.5 * (0.2 + 0.1 + 0.2 / 3), 0, 0.2 + 0.1 + 0.2 / 3],
        ),
        ByHand("no judgement", lambda: judged("A is best."), [0, 0, 0]),
        ByHand("all equally good: any order is right", lambda: accuracy({"A": 1, "B": 1}, {}), 1),
        Reduction("tasks without answers to be judged: GRPO", "grpo"),
    ),
)
