"""A measured accuracy, which cannot exist without the card that says how it was measured."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from etude.errors import Refused
from etude.evaluate.abstention import Abstaining, abstention
from etude.evaluate.intervals import Interval, clustered
from etude.evaluate.passk import majority_at, pass_at
from etude.evaluate.transitions import decomposed, transitions
from etude.tools.kit import CALLS, use_of
from etude.types import Array, Episode, Group, SamplingParams

RULES = ("before", "during", "last", "given")
BEST = "best on "


def final(line: Mapping[str, Any]) -> bool:
    """Whether a line of evals.jsonl is about the weights that a run kept: its last, or the best on other problems."""
    rule = str(line.get("rule"))
    return rule == "last" or rule.startswith(BEST)


Answer = Callable[[Episode], Hashable | None]
"""What an episode answered, for majority votes; None: nothing."""


def sampling_of(facts: Mapping[str, Any]) -> SamplingParams:
    """As they were before they were written as JSON."""
    return SamplingParams(**{**facts, "stop": tuple(facts.get("stop", ()))})


@dataclass(frozen=True)
class Card:
    """How a number came about. Everything is demanded, and nothing may be blank.

    `rule`: how the checkpoint was chosen, fixed before the run: "before" (untrained), "during" (a point of a
    curve), "last", "given" (the user named it), or "best on NAME" with another set than the measured one.
    """

    name: str  # of the problems
    model: str
    seed: int  # of the sampling
    sampling: SamplingParams
    prompt: str  # style of the prompt
    sampler: str  # engine and version
    commit: str  # of etude
    rule: str
    step: int = 0
    flops: float = 0.0  # spent on training until then
    tokens: int = 0  # generated and trained until then
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("name", "model", "prompt", "sampler", "commit", "rule"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise Refused(f"a result's card must say its {name}; got {value!r}")
        if not isinstance(self.sampling, SamplingParams):
            raise Refused(f"a result's card must say its sampling settings; got {self.sampling!r}")
        if self.rule not in RULES and not self.rule.startswith(BEST):
            raise Refused(
                f"a result's card has rule '{self.rule}'; it must be {', '.join(RULES)} or '{BEST}NAME'"
            )
        if self.rule.startswith(BEST) and self.rule[len(BEST) :].strip() in ("", self.name):
            raise Refused(
                f"the checkpoint was chosen on '{self.name}', on which it is measured; choose it on another"
                " set, or report the last one"
            )


@dataclass(frozen=True)
class EvalResult:
    """The accuracy of one model on one set of problems, with its card. `mean` averages over problems."""

    card: Card
    mean: Interval
    per_problem: tuple[tuple[str, int, int], ...]  # (task key, correct, samples with a verdict)
    passes: Mapping[int, Interval] = field(default_factory=dict)  # k -> pass@k
    majority: Mapping[int, Interval] = field(default_factory=dict)  # k -> majority@k
    kinds: Mapping[str, Interval] = field(default_factory=dict)
    levels: Mapping[str, Interval] = field(default_factory=dict)  # difficulty, over all kinds
    truncated: float = 0.0  # share of samples cut by the length limit
    length: float = 0.0  # sampled tokens per sample
    errors: int = 0  # samples without a verdict, which count nowhere else
    lost: int = 0  # problems of which no sample got a verdict
    attempts: Mapping[str, float] = field(default_factory=dict)  # evaluate.transitions, of second attempts
    inference: Mapping[str, Any] = field(default_factory=dict)  # evaluate.inference.cost, of a method
    turns: float = 1.0  # replies per sample
    tools: Mapping[str, float] = field(default_factory=dict)  # tools.kit.use_of, where tools could be called
    abstention: Mapping[str, Any] = field(
        default_factory=dict
    )  # evaluate.abstention, where run.abstain is given

    def __post_init__(self) -> None:
        if not isinstance(self.card, Card):
            raise Refused("a result needs its card: problems, settings, sampler, commit and checkpoint rule")
        keys = [key for key, _, _ in self.per_problem]
        if len(set(keys)) != len(keys):
            raise Refused("a result counts each problem once; some problem stands in it twice")
        shares = [correct / samples for _, correct, samples in self.per_problem]
        if len(shares) != self.mean.problems or abs(float(np.mean(shares)) - self.mean.mean) > 1e-9:
            raise Refused("a result's mean must be that of its problems")

    @property
    def samples(self) -> int:
        """Samples per problem; where errors took some, the most that a problem has."""
        return max(n for _, _, n in self.per_problem)

    def __str__(self) -> str:
        c, s = self.card, self.card.sampling
        how = "greedy" if s.greedy else f"temperature {s.temperature:g}, top-p {s.top_p:g}, top-k {s.top_k}"
        lost = f", {self.errors} samples without a verdict" if self.errors else ""
        return (
            f"{c.name}: {self.mean}; {c.model} at step {c.step} (checkpoint rule: {c.rule}), {how}, at most"
            f" {s.max_tokens} tokens, prompt {c.prompt}, seed {c.seed}, {c.sampler}, commit {c.commit}{lost}"
        )

    def to_dict(self) -> dict[str, Any]:
        """One line of evals.jsonl; `from_dict` reads it."""
        m = self.mean
        return {
            **asdict(self.card),
            "problems": m.problems,
            "samples": self.samples,
            "interval": {"method": m.method, "level": m.level},
            **_facts(m),
            "pass": {str(k): [i.mean, i.low, i.high] for k, i in self.passes.items()},
            "majority": {str(k): [i.mean, i.low, i.high] for k, i in self.majority.items()},
            "kinds": {name: _facts(i) for name, i in self.kinds.items()},
            "levels": {name: _facts(i) for name, i in self.levels.items()},
            "truncated": self.truncated,
            "length": self.length,
            "errors": self.errors,
            "lost": self.lost,
            **(
                {"attempts": dict(self.attempts), "correction": decomposed(self.attempts)}
                if self.attempts
                else {}
            ),
            **({"inference": dict(self.inference)} if self.inference else {}),
            "turns": self.turns,
            **({"tools": dict(self.tools)} if self.tools else {}),
            **({"abstention": dict(self.abstention)} if self.abstention else {}),
            "per_problem": [list(row) for row in self.per_problem],
        }

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> EvalResult:
        """What `to_dict` wrote. Raises Refused where the card is incomplete."""
        wanted = [f.name for f in fields(Card)]
        if missing := [name for name in [*wanted, "interval", "mean", "per_problem"] if name not in line]:
            raise Refused(f"a recorded result lacks {', '.join(missing)}")
        level, method = line["interval"]["level"], line["interval"]["method"]

        def interval(facts: Mapping[str, Any]) -> Interval:
            mean, low, high = (float(facts[name]) for name in ("mean", "low", "high"))
            return Interval(mean, low, high, level, facts["problems"], facts["verdicts"], method)

        def by_k(name: str) -> dict[int, Interval]:
            rest = (level, line["problems"], line["verdicts"], method)
            return {int(k): Interval(v[0], v[1], v[2], *rest) for k, v in line[name].items()}

        card = {name: line[name] for name in wanted} | {"sampling": sampling_of(line["sampling"])}
        return cls(
            Card(**card),
            interval(line),
            tuple((str(k), int(c), int(n)) for k, c, n in line["per_problem"]),
            by_k("pass"),
            by_k("majority"),
            {name: interval(i) for name, i in line["kinds"].items()},
            {name: interval(i) for name, i in line["levels"].items()},
            **{name: line[name] for name in ("truncated", "length", "errors", "lost")},
            attempts=line.get("attempts", {}),
            inference=line.get("inference", {}),
            turns=line.get("turns", 1.0),
            tools=line.get("tools", {}),
            abstention=line.get("abstention", {}),
        )


def from_groups(
    groups: Sequence[Group],
    card: Card,
    *,
    ks: Sequence[int] | None = None,
    answer: Answer | None = None,
    abstaining: Abstaining | None = None,
    level: float = 0.95,
) -> EvalResult:
    """The result of evaluation `groups`, one per problem.

    Samples that failed (`Group.failed`, or an episode with a failure) are counted as `errors` and nowhere
    else; a problem of which every sample failed is `lost`. `ks`: the k of pass@k and majority@k (default:
    1, 2, 4, ... and all samples); a problem with fewer verdicts than k is left out of that k. `answer`
    gives what an episode answered; without it there is no majority. `abstaining`: which answers abstain. Raises Refused where no sample has a
    verdict or one problem comes twice.
    """
    valid = [[e for e in g.episodes if e.failure is None] for g in groups]
    errors = sum(len(g.episodes) - len(v) + len(g.failed) for g, v in zip(groups, valid, strict=True))
    kept = [(g.task, v) for g, v in zip(groups, valid, strict=True) if v]
    if not kept:
        raise Refused(f"{card.name}: none of {errors} samples got a verdict, so there is no result")
    correct = np.array([sum(e.correct for e in v) for _, v in kept])
    samples = np.array([len(v) for _, v in kept])
    shares = correct / samples
    most = int(samples.max())
    ks = (
        sorted({k for k in (2**i for i in range(most.bit_length())) if k <= most} | {most})
        if ks is None
        else ks
    )
    passes, votes = {}, {}
    for k in ks:
        can = np.flatnonzero(samples >= k)
        if not can.size:
            continue
        passes[k] = clustered(pass_at(k, correct[can], samples[can]), samples[can], level=level)
        if answer is not None:
            won = [
                majority_at(k, [answer(e) for e in kept[i][1]], [e.correct for e in kept[i][1]]) for i in can
            ]
            votes[k] = clustered(won, samples[can], level=level)
    kinds = [t.kind for t, _ in kept]
    levels = [f"{t.difficulty:g}" for t, _ in kept]
    return EvalResult(
        card,
        clustered(shares, samples, level=level),
        tuple((t.key, int(c), int(n)) for (t, _), c, n in zip(kept, correct, samples, strict=True)),
        passes,
        votes,
        _split(kinds, shares, samples, level),
        _split(levels, shares, samples, level),
        truncated=float(np.mean([np.mean([e.stop == "length" for e in v]) for _, v in kept])),
        length=float(np.mean([np.mean([_sampled(e) for e in v]) for _, v in kept])),
        errors=errors,
        lost=len(groups) - len(kept),
        attempts=transitions(groups),
        turns=float(np.mean([np.mean([sum(s.sampled for s in e.spans) for e in v]) for _, v in kept])),
        tools=use_of([e.notes[CALLS] for _, v in kept for e in v if CALLS in e.notes]),
        abstention=abstention(groups, abstaining, level) if abstaining else {},
    )


def _split(labels: Sequence[str], shares: Array, samples: Array, level: float) -> dict[str, Interval]:
    rows = {name: [i for i, label in enumerate(labels) if label == name] for name in dict.fromkeys(labels)}
    return {name: clustered(shares[i], samples[i], level=level) for name, i in rows.items()}


def _facts(i: Interval) -> dict[str, Any]:
    return {"mean": i.mean, "low": i.low, "high": i.high, "problems": i.problems, "verdicts": i.samples}


def _sampled(e: Episode) -> int:
    return sum(len(s) for s in e.spans if s.sampled)
