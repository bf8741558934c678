"""Everything about a run that is not a method: its settings, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from etude.errors import UserError, nearest
from etude.evaluate.abstention import MEASURES
from etude.models.device import DEVICES
from etude.rollout.full import POLICIES, POLICY, REFUSE, SUMMARISE, TEACHER
from etude.settings import Setting, Stage, parameters
from etude.text.tool_calls import SYNTAXES
from etude.tools.kit import Budgets
from etude.train.correction import KINDS
from etude.types import SamplingParams

EXAM = ("temperature", "top_p", "top_k", "max_tokens")  # settings that an evaluation may have of its own
Device = Annotated[str, Setting("where the model runs; auto: a GPU where there is one", choices=DEVICES)]
Precision = Annotated[str, Setting("arithmetic of matrix products", choices=("bf16", "fp32"))]


@dataclass(frozen=True)
class RunSettings:
    """Everything about a run that is not a method. One word per quantity."""

    tasks_per_step: Annotated[int, Setting("tasks trained on per step", "tasks", low=1, high=1e5)] = 16
    group_size: Annotated[int, Setting("episodes per task", "episodes", low=1, high=1e5)] = 8
    max_tokens: Annotated[int, Setting("longest reply", "tokens", low=1)] = 32
    temperature: Annotated[float, Setting("sampling temperature", low=0.01, high=10)] = 1.0
    top_p: Annotated[float, Setting("nucleus kept when sampling; 1 is off", low=0.01, high=1)] = 1.0
    top_k: Annotated[int, Setting("tokens kept when sampling; 0 is off", low=0)] = 0
    prompt: Annotated[str, Setting("text around a question, which stands for {question} in it")] = ""
    system: Annotated[str, Setting("system message, in the place of a task's own")] = ""
    examples: Annotated[str | None, Setting("file whose first rows are shown, solved, before a question")] = (
        None
    )
    shots: Annotated[int, Setting("how many rows of run.examples are shown", low=1, high=64)] = 4
    stop: Annotated[
        tuple[str, ...],
        Setting("texts that end a reply, as in \\n\\n;Question: (tokens of them stay, text does not)"),
    ] = ()
    abstain: Annotated[
        tuple[str, ...],
        Setting(
            "words that abstain, joined by ;, as in I don't know: evaluations count them as an outcome of its own"
        ),
    ] = ()
    confidence: Annotated[
        str,
        Setting(
            "by what answers are ranked where run.abstain is given: the likelihood of a reply, the agreement of the "
            "problem's samples, or what a reply says of its confidence",
            choices=MEASURES,
        ),
    ] = "likelihood"
    thinking: Annotated[bool | None, Setting("thinking on or off, for templates that know both")] = None
    tools: Annotated[str, Setting("what the policy may call, as in python,search:docs (docs/agents.md)")] = ""
    tool_docs: Annotated[
        str,
        Setting(
            "descriptions in the place of the tools' own: rows of a tool and an answer, as `data make draft` writes"
        ),
    ] = ""
    turns: Annotated[
        int, Setting("replies of one answer, those that call tools included", "replies", low=1, high=1e4)
    ] = 8
    tool_calls: Annotated[int, Setting("calls of tools an episode", "calls", low=0, high=1e6)] = 16
    tool_seconds: Annotated[float, Setting("time of all calls of an episode", "s", low=0.01, high=1e6)] = 60.0
    tool_money: Annotated[
        float | None, Setting("price of all calls of an episode, where tools have prices", low=0, high=1e9)
    ] = None
    tool_output: Annotated[
        int, Setting("longest result that the policy is given", "characters", low=16, high=1e7)
    ] = 2000
    tool_syntax: Annotated[
        str, Setting("how tools are called; auto: as the chat template says", choices=("auto", *SYNTAXES))
    ] = "auto"
    context: Annotated[int, Setting("longest conversation", "tokens", low=8)] = 4096
    when_full: Annotated[
        str,
        Setting(
            "a conversation that has reached it: refuse (it ends there, as failed), drop_oldest (it goes on with the question "
            "and the latest turns), or summarise (and a summary of the others)",
            choices=POLICIES,
        ),
    ] = REFUSE
    summariser: Annotated[
        str, Setting("who writes summaries; teacher: the model of run.teacher", choices=(POLICY, TEACHER))
    ] = POLICY
    summary_tokens: Annotated[int, Setting("longest summary", "tokens", low=1)] = 128
    micro_tokens: Annotated[int, Setting("tokens per micro-batch", "tokens", low=16)] = 4096
    rows: Annotated[int, Setting("episodes decoded at once", "episodes", low=1)] = 128
    device: Device = "auto"
    precision: Precision = "bf16"
    backbone: Annotated[str, Setting("engine", choices=("auto", "native", "transformers"))] = "auto"
    recompute: Annotated[
        bool, Setting("activations are computed again in the backward pass (less memory, a third more time)")
    ] = False
    lora: Annotated[int, Setting("rank of LoRA adapters; 0 trains all weights", low=0)] = 0
    teacher: Annotated[str | None, Setting("second model, for recipes that need one")] = None
    lag: Annotated[
        int,
        Setting(
            "steps that sampling is ahead of training; 1: both at once, by weights one step old",
            low=0,
            high=1,
        ),
    ] = 0
    correction: Annotated[
        str,
        Setting(
            "importance weights for what the sampler's numbers or older weights change; auto: truncated where run.lag is 1",
            choices=KINDS,
        ),
    ] = "auto"
    correction_bound: Annotated[float, Setting("largest importance weight", low=1, high=1e3)] = 2.0
    unlabelled: Annotated[
        bool,
        Setting("train without answers, solutions, hints and checkers; they are there for evaluation alone"),
    ] = False
    oversample: Annotated[float, Setting("tasks that may be drawn per task trained on", low=1, high=1e3)] = (
        4.0
    )
    skip_preflight: Annotated[bool, Setting("train even if the pre-flight sees nothing to learn")] = False
    preflight: Annotated[int, Setting("tasks sampled by the pre-flight", "tasks", low=1, high=1e5)] = 16
    patience: Annotated[int, Setting("steps without any signal before the run ends", "steps", low=1)] = 20
    error_rate: Annotated[float, Setting("share of failed episodes that stops the run", low=0, high=1)] = 0.1
    check_seconds: Annotated[
        float, Setting("longest time for one check or reward", "s", low=0.01, high=1e6)
    ] = 10.0
    checkpoint_every: Annotated[int, Setting("steps between checkpoints", "steps", low=1)] = 50
    rescore_every: Annotated[
        int, Setting("steps between those whose update is shown on one group; 0: never", "steps", low=0)
    ] = 10
    evals: Annotated[int, Setting("evaluations on the way, at even shares of the budget", low=0)] = 0
    eval_problems: Annotated[int, Setting("held-out problems; 0: no evaluation", low=0)] = 100
    eval_samples: Annotated[int, Setting("attempts per held-out problem", low=1)] = 4
    curve_samples: Annotated[
        int | None, Setting("attempts per held-out problem on the way; none: as at the end", low=1)
    ] = None

    tuning: Annotated[bool, Setting("evaluate on the tuning problems instead of the held-out ones")] = False

    eval_temperature: Annotated[
        float | None, Setting("temperature of evaluations; none: as in training", low=0.01, high=10)
    ] = None
    eval_top_p: Annotated[
        float | None, Setting("nucleus kept in evaluations; none: as in training", low=0.01, high=1)
    ] = None
    eval_top_k: Annotated[int | None, Setting("tokens kept in evaluations; none: as in training", low=0)] = (
        None
    )
    eval_max_tokens: Annotated[
        int | None, Setting("longest reply in evaluations; none: as in training", "tokens", low=1)
    ] = None

    keep: Annotated[
        str,
        Setting(
            "which weights are saved: the last, or the best on the validation problems",
            choices=("last", "best"),
        ),
    ] = "last"
    stop_when: Annotated[
        str,
        Setting(
            "accuracy on the validation problems at which the run ends, as in accuracy>0.9; empty: never"
        ),
    ] = ""
    validation_problems: Annotated[
        int,
        Setting(
            "problems apart from training and held-out ones, on which run.keep and run.stop_when decide",
            low=1,
        ),
    ] = 50
    validate_every: Annotated[
        int, Setting("steps between looks at the validation problems", "steps", low=1)
    ] = 20

    @property
    def budgets(self) -> Budgets:
        """What an episode may spend on tools."""
        money = math.inf if self.tool_money is None else self.tool_money
        return Budgets(self.turns, self.tool_calls, self.tool_seconds, money, self.tool_output)

    @property
    def fullness(self) -> tuple[str, int]:
        """What is done with full conversations, and how long summaries are, as `Generator` takes them."""
        return self.when_full, self.summary_tokens

    @property
    def asks_teacher(self) -> bool:
        """Whether summaries are written by the second model."""
        return self.when_full == SUMMARISE and self.summariser == TEACHER

    @property
    def corrects(self) -> str:
        """The kind of `train.correction`; "" for none."""
        kind = {"auto": "truncated" if self.lag else "none"}.get(self.correction, self.correction)
        return "" if kind == "none" else kind

    @property
    def validates(self) -> bool:
        """Whether problems are set aside to decide on."""
        return self.keep == "best" or bool(self.stop_when)

    @property
    def exam(self) -> SamplingParams:
        """How the model is sampled when it is evaluated."""
        own = {name: getattr(self, f"eval_{name}") for name in EXAM}
        return replace(self.sampling, **{name: value for name, value in own.items() if value is not None})

    @property
    def sampling(self) -> SamplingParams:
        return SamplingParams(
            self.temperature, self.top_k, self.top_p, False, self.max_tokens, tuple(self.stop)
        )


def run_settings(defaults: Mapping[str, Any], changes: Mapping[str, Any]) -> RunSettings:
    """A recipe's defaults overlaid with the user's changes, checked. UserError on unknown or bad values."""
    known = parameters(RunSettings)
    for name in changes:
        if name not in known:
            raise UserError(f"there is no setting 'run.{name}'{nearest(name, known)}")
    settings = RunSettings(**Stage(RunSettings, {**defaults, **changes}).checked("run"))
    if "" in settings.stop:
        raise UserError("run.stop holds an empty text, which every reply begins with; leave it out")
    if "" in settings.abstain:
        raise UserError("run.abstain holds an empty text, which every reply says; leave it out")
    if settings.stop_when:
        goal(settings.stop_when)
    return settings


def goal(text: str) -> float:
    """The accuracy that is asked for by `accuracy>0.9`."""
    found = re.fullmatch(r"accuracy\s*>\s*(0|0?\.\d+)", text.strip())
    if not found:
        raise UserError(f"run.stop_when is '{text}'; it must read accuracy>SHARE, as in accuracy>0.9")
    return float(found[1])
