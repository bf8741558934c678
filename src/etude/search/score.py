"""How good a draft looks: to the model that wrote it, to a judge, to the other drafts, or, for an oracle, to the checker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import numpy as np

from etude.batch import pack, unpack
from etude.errors import UserError, nearest
from etude.reward.model import RewardModel
from etude.search.ledger import per_token
from etude.search.session import Answering, Draft, Method, Said, Session, answering
from etude.search.vote import agreement
from etude.settings import Setting
from etude.types import Array, Episode, Message, SamplingParams, Signal, Span

Scorer = Callable[[Session, Sequence[Draft]], Awaitable[list[float]]]
"""One number a draft, the higher the better; drafts may be unfinished."""

JUDGE = "{question}\n\nProposed answer:\n{draft}\n\nIs this right so far? Reply Yes or No."

SCORES = ("logp", "certainty", "agreement", "judge", "model:DIRECTORY", "verifier")

By = Annotated[
    str,
    Setting(
        "what a draft's score is: its mean log-probability, its self-certainty, the share of drafts that agree with it, a "
        "judge's probability of Yes, a reward model's number (model:DIRECTORY), or the checker's verdict (an oracle): "
        + ", ".join(SCORES),
    ),
]
WhoJudges = Annotated[str, Setting("who judges: the policy, or run.teacher", choices=("policy", "teacher"))]


async def by_logp(session: Session, drafts: Sequence[Draft]) -> list[float]:
    return [d.logp for d in drafts]


async def by_certainty(session: Session, drafts: Sequence[Draft]) -> list[float]:
    return [d.certainty for d in drafts]


async def by_agreement(session: Session, drafts: Sequence[Draft]) -> list[float]:
    return agreement(drafts)


async def by_verifier(session: Session, drafts: Sequence[Draft]) -> list[float]:
    """The checker's reward. Only an oracle has it."""
    return [(await session.verdict(d)).reward for d in drafts]


def by_judge(model: str = "policy") -> Scorer:
    """The probability that a model says Yes rather than No to `JUDGE`."""

    async def score(session: Session, drafts: Sequence[Draft]) -> list[float]:
        asked = [JUDGE.format(question=session.question, draft=d.text) for d in drafts]
        return [float(p[0]) for p in probabilities(session, asked, ("Yes", "No"), model)]

    return score


def by_reward_model(directory: str) -> Scorer:
    """The number of the reward model in `directory`. Raises UserError where there is none."""
    found = RewardModel(directory)

    async def score(session: Session, drafts: Sequence[Draft]) -> list[float]:
        if not drafts:
            return []
        policy = session.generator().sampler.policy
        found.load(policy.precision, str(policy.device))
        asked = [(session.prompt, d.text) for d in drafts]
        session.ledger.score("reward model", per_token(found.policy), found.tokens(asked))
        return [float(v) for v in found.scored(asked)]

    return score


def scorer(by: str, judge: str = "policy") -> Scorer:
    """The scorer of that name. UserError for an unknown one."""
    kind, _, place = by.partition(":")
    if kind == "model" and place:
        return by_reward_model(place)
    known: dict[str, Scorer] = {
        "logp": by_logp,
        "certainty": by_certainty,
        "agreement": by_agreement,
        "judge": by_judge(judge),
        "verifier": by_verifier,
    }
    if by not in known:
        raise UserError(f"there is no score '{by}'{nearest(by, SCORES)}")
    return known[by]


def answering_by(method: Method, by: str, judge: str = "policy") -> Answering:
    """The rollout that answers by `method`, with what a score of that name asks for: the checker, the sampler's certainty, or
    run.teacher. Raises UserError for a score that there is not."""
    scorer(by, judge)
    reads = ["teacher"] if by == "judge" and judge == "teacher" else []
    return answering(method, oracle=by == "verifier", certainty=by == "certainty", reads=reads)


def probabilities(
    session: Session, asked: Sequence[Said], options: Sequence[str], model: str = "policy"
) -> Array:
    """f64[n, k]: for each of n prompts, how likely the model begins its reply with each of k options, over their sum."""
    logp = log_likelihoods(session, asked, options, model)
    return np.exp(logp - np.logaddexp.reduce(logp, axis=1, keepdims=True))


def log_likelihoods(
    session: Session, asked: Sequence[Said], options: Sequence[str], model: str = "policy"
) -> Array:
    """f64[n, k]: log-probability of each of k texts as the beginning of the reply to each of n prompts, at temperature 1.
    Charged: every prompt once, and every option. Raises Exhausted."""
    if not asked:
        return np.zeros((0, len(options)))
    generator = session.generator(model)
    policy: Any = generator.sampler.policy
    prompts = [generator.renderer.prompt([Message("user", a)] if isinstance(a, str) else a, 0) for a in asked]
    words = [np.asarray(generator.renderer.tokenizer.encode(o), np.int32) for o in options]
    cost = sum(len(p) for p in prompts) + len(prompts) * sum(len(w) for w in words)
    session.ledger.score(model, per_token(policy), cost)
    signals = [_signal(session, p, w) for p in prompts for w in words]
    batch = pack(signals, SamplingParams())
    rows = unpack(policy.score(batch).logp, batch, signals)
    return np.array([float(row.sum()) for row in rows]).reshape(len(asked), len(options))


def _signal(session: Session, prompt: Array, words: Array) -> Signal:
    spans = (Span("user", prompt), Span("assistant", words, True, np.zeros(len(words), np.float32)))
    return Signal(Episode(session.task, spans), np.zeros(len(prompt) + len(words), np.float32))
