"""R-Tuning: a model learns to say whether it is sure, from which questions it could answer before.

The model as it was answers every training question. It then imitates the gold answer to each, and in a next turn, asked whether it is
sure, "I am sure." where its own answer was right and "I am unsure." where it was not. Zhang et al., arXiv 2311.09677, and its release
(shizhediao/R-Tuning). Asked later, its answer is worth

    score = (p(answer) + P(sure)) / 2

with p the geometric mean probability of the answer's tokens, and P(sure) that of "I am sure" against "I am unsure". Examine it by

    etude eval RUN -t TASKS --with r_tuning --set run.abstain="I don't know"
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.evaluate.abstention import CONFIDENCE
from etude.fixtures.given import Letters
from etude.fixtures.inference import answered, collected
from etude.methods.imitation.sft import RECIPE as SFT
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import answer_of
from etude.rollout.basic import single
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout, optional_verdict
from etude.search.score import probabilities
from etude.search.session import Answering, Draft, Session, answering
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Message, Signal

ASKED = "Are you sure you accurately answered the question based on your internal knowledge?"
SURE, UNSURE = "I am sure.", "I am unsure."
SAID = "sure"  # the tag of what is answered to `ASKED`
Abstain = Annotated[str, Setting("the words that abstain")]

# ---- what is imitated: gold answer, then sure or unsure ----------------------------------------------


def entropy(answers: Sequence[object]) -> float:
    """In nats, of the counts of equal answers."""
    share = np.array(list(Counter(answers).values())) / len(answers)
    return float(-(share * np.log(share)).sum())


class KnownBefore:
    """The start's answers to a task, and one demonstration that says by them whether it is known. `label`: "unsure" (the gold answer,
    then the verdict), "unknown" (in place of a gold answer that it did not find, words that abstain), or "uncertain" (the verdict by the
    entropy of `tries` answers; no gold answer decides)."""

    reads = frozenset({"reference"})

    def __init__(
        self,
        label: Annotated[
            str, Setting("how what is not known is marked", choices=("unsure", "unknown", "uncertain"))
        ] = "unsure",
        tries: Annotated[
            int, Setting("answers of the start, of which the entropy is taken", low=2, high=100)
        ] = 5,
        try_temperature: Annotated[float, Setting("their temperature", low=0.01, high=10)] = 0.7,
        entropy_limit: Annotated[float, Setting("entropy above which it is not sure", "nats", low=0)] = 0.8,
        abstention: Abstain = "I don't know",
    ) -> None:
        self.label, self.tries, self.temperature = label, tries, try_temperature
        self.limit, self.abstention = entropy_limit, abstention

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        several = self.label == "uncertain"
        start = rollouts.generators["reference"]
        own = replace(start.params, greedy=not several, temperature=self.temperature if several else 1.0)
        before = replace(rollouts, generator=replace(start, params=own))
        tried = await before.plays(range(self.tries if several else 1), single())
        tried = [replace(e, player="reference") for e in tried]
        if any(e.failure for e in tried):
            return tried
        if several:
            known = entropy([answer_of(e.task, e.text) for e in tried]) <= self.limit
        else:
            known = tried[0].correct
        return [*tried, self.shown(rollouts, known)]

    def shown(self, rollouts: GroupRollout, known: bool) -> Episode:
        """The demonstration."""
        if self.label != "unknown":
            talk = rollouts.conversation(DEMONSTRATION)
            talk.user(rollouts.task.prompt)
            talk.inject(rollouts.task.reference or rollouts.task.answer or "", DEMONSTRATED)
            talk.user(ASKED)
            talk.inject(SURE if known else UNSURE, SAID)
            return replace(talk.done(), player=DEMONSTRATED).with_scores({"reward": 1.0})
        if known:
            return rollouts.demonstrate()
        task = replace(rollouts.task, reference=self.abstention)
        return replace(replace(rollouts, task=task).demonstrate(), task=rollouts.task)


@writes(IMITATION)
def answers_and_verdicts(
    verdict_weight: Annotated[float, Setting("weight of sure and unsure beside the answers", low=0)] = 1.0,
) -> Credit:
    """Cross-entropy on the demonstrated answers and on what is said of being sure; the start's answers teach nothing."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for episode in (e for g in groups for e in g.demonstrations):
            answer, verdict = (imitate(episode, tagged(episode, tag)) for tag in (DEMONSTRATED, SAID))
            both = answer.weights[IMITATION] + np.float32(verdict_weight) * verdict.weights[IMITATION]
            signals.append(replace(answer, weights={IMITATION: both}))
        return signals

    return credit


# ---- how it is asked ---------------------------------------------------------------------------------


def sure(
    least_score: Annotated[float, Setting("score below which it abstains", low=0, high=1)] = 0.0,
    abstention: Abstain = "I don't know",
) -> Answering:
    """One reply; then it is asked whether it is sure. The score is the answer's confidence."""

    async def method(session: Session) -> Draft | str:
        draft = await session.draft("sample", 0)
        talk = [*session.prompt, Message("assistant", draft.text), Message("user", ASKED)]
        p_sure = float(probabilities(session, [talk], (SURE.rstrip("."), UNSURE.rstrip(".")))[0, 0])
        score = 0.5 * math.exp(draft.logp) + 0.5 * p_sure
        session.mark(draft.node, score=score)
        if score < least_score:
            return abstention
        draft.line.notes[CONFIDENCE] = score
        return draft

    return answering(method)


# ---- the recipe --------------------------------------------------------------------------------------


def _made(said: Sequence[str], **settings: object) -> Episode:
    """The demonstration for a question whose gold answer is 7, where the start says these answers."""
    found = collected(RECIPE, [], {"reference": said}, {f"group_rollout.{k}": v for k, v in settings.items()})
    return next(e for e in found if e.demonstration)


def _said(episode: Episode) -> list[str]:
    return [Letters().decode(s.tokens.tolist()) for s in episode.spans if s.role == "assistant"]


def _labels() -> list[float]:
    """Known, not known; not known, in words; three answers of which two agree, and of which none do."""
    found = [
        _said(_made(["7"])) == ["7", SURE],
        _said(_made(["8"])) == ["7", UNSURE],
        _said(_made(["8"], label="unknown")) == ["I don't know"],
        _said(_made(["8", "8", "7"], label="uncertain", tries=3)) == ["7", SURE],
        _said(_made(["8", "9", "7"], label="uncertain", tries=3)) == ["7", UNSURE],
    ]
    return [float(f) for f in found]


def _weights() -> list[float]:
    """The row of a demonstration: 7 and its end, then the question, then 12 letters and their end at half the weight."""
    credit = RECIPE.resolved()["credit"].but(verdict_weight=0.5).build("credit")
    episode = _made(["8"])
    (signal,) = credit([Group(episode.task, (), demonstrations=(episode,))], None)
    return [float(signal.weights[IMITATION].sum()), float((signal.weights[IMITATION] == 1).sum())]


RECIPE: Recipe = Recipe(
    name="r_tuning",
    base=SFT,
    paper=Paper("R-Tuning: Instructing Large Language Models to Say 'I Don't Know'", "2311.09677", 2023),
    published_lr=2e-5,
    idea="Fine-tuning teaches a model to answer everything, whether it knows the answer or not. Here it first shows what it knows: it "
    "answers the training questions. It then learns the right answers, and with each of them whether it had known it, so that later it can "
    "say how sure it is.",
    equation="L = - mean_t log pi(y*_t) - mean_t log pi(sure or unsure);  score = (p(y)^(1/n) + P(sure)) / 2",
    departures=(
        "the question whether it is sure is a turn of the user's, and is not trained, where the release writes question, answer and verdict "
        "as one text and trains all of it",
        "an answer of the start counts as right by the task's own check, where the release looks for the gold answer in it",
        "uncertain: sure up to a fixed entropy, where the release takes the half of the data set with less of it",
        "unknown: one sentence abstains, where the release draws one of sixteen",
    ),
    stages={
        "group_rollout": stage(KnownBefore),
        "rollout": stage(sure),
        "reward": stage(optional_verdict),
        "credit": stage(answers_and_verdicts),
    },
    auxiliary={"reference": AuxiliaryModel("start")},
    needs=("answer", "text"),
    claim="Its score ranks right answers before wrong ones better than the token probability of plain SFT does.",
    unchecked="every demonstration ends with sure or unsure",
    examples=(
        ByHand("what is demonstrated", _labels, [1, 1, 1, 1, 1]),
        ByHand("answer 2 tokens, verdict 13 at one half", _weights, [2 + 13 / 2, 2]),
        ByHand("entropy of 2 and 1 of three", lambda: entropy("aab"), math.log(3) - 2 / 3 * math.log(2)),
        ByHand(
            "p = e^-1 a token, sure 3 to 1: score (e^-1 + 3/4) / 2 = 0.559; below 0.6 it abstains",
            lambda: [
                answered(RECIPE, "7", odds=[3.0]).episode.notes[CONFIDENCE],
                float(
                    answered(RECIPE, "7", odds=[3.0], settings={"least_score": 0.6}).text == "I don't know"
                ),
            ],
            [(math.exp(-1) + 0.75) / 2, 1],
        ),
        Reduction("verdicts without weight: SFT", "sft", {"credit.verdict_weight": 0.0}),
    ),
)
