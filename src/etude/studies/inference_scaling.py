"""How does the error of "draw k, let a judge pick one" fall with k, and where does a wrong judge stop it?

Bayesian linear regression as a model that can be worked out: a teacher w_T draws y = w_T.x / sqrt(d) + noise; the learner has
the posterior of n examples and answers a new x by draws from its predictive N(m, s^2); a judge w_R rewards
r = -(y - w_R.x / sqrt(d))^2, and draw i is picked with probability softmax_i(r / T). The error is E (y_picked - w_T.x / sqrt(d))^2.

    Omega = (sum_i x_i x_i^T / (d sigma^2) + I / gamma^2)^-1,  m = (x / sqrt(d))^T Omega sum_i x_i y_i / (sqrt(d) sigma^2),
    s^2 = x^T Omega x / d + sigma^2

With a right judge and T -> 0 the error falls as 1 / k^2; with a wrong one it stops at the judge's own error, and beyond some
k more draws make it worse.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from etude import seeds
from etude.recipe import Paper
from etude.study.declare import Arm, Defaults, Hypothesis, Measure, Study
from etude.study.subject import Subject
from etude.types import Array

D, N = 40, 80  # dimensions, examples
NOISE, PRIOR = 0.5, 1.0  # sigma, gamma
QUESTIONS = 4000
KS = (1, 2, 4, 8, 16, 32, 64)


def predictive(rng: np.random.Generator, questions: int) -> tuple[Array, Array, Array, Array]:
    """(mean, standard deviation, teacher's answer, x / sqrt(d)) of `questions` new inputs: float64[Q] each, the last [Q, D]."""
    teacher = rng.standard_normal(D)
    teacher *= D**0.5 / np.linalg.norm(teacher)
    seen = rng.standard_normal((N, D)) / D**0.5
    said = seen @ teacher + NOISE * rng.standard_normal(N)
    omega = np.linalg.inv(seen.T @ seen / NOISE**2 + np.eye(D) / PRIOR**2)
    weights = omega @ (seen.T @ said) / NOISE**2
    asked = rng.standard_normal((questions, D)) / D**0.5
    spread = np.sqrt(np.einsum("qd,de,qe->q", asked, omega, asked) + NOISE**2)
    return asked @ weights, spread, asked @ teacher, asked


def picked_error(
    mean: Array,
    spread: Array,
    target: Array,
    judged: Array,
    k: int,
    temperature: float,
    rng: np.random.Generator,
) -> Array:
    """float64[Q]: the squared error of the draw that the judge picks from `k`. `judged`: what the judge holds for right."""
    draws = mean[:, None] + spread[:, None] * rng.standard_normal((len(mean), k))
    reward = -((draws - judged[:, None]) ** 2)
    # Gumbel's trick: the largest of reward / T + Gumbel is a draw from the softmax.
    choice = (reward / temperature + rng.gumbel(size=reward.shape)).argmax(1)
    return np.asarray((draws[np.arange(len(mean)), choice] - target) ** 2)


def curve(subject: Subject) -> Mapping[str, float]:
    """The slope of log error against log k from 4 to 64, and the error at 64 draws less that at 8, relative to one draw's."""
    given = subject.arm.given
    mean, spread, target, asked = predictive(seeds.generator(subject.seed, "world"), QUESTIONS)
    off = seeds.generator(subject.seed, "judge").standard_normal(D)
    judged = target + float(given["off"]) * (asked @ off)
    errors = {
        k: float(
            picked_error(
                mean,
                spread,
                target,
                judged,
                k,
                float(given["temperature"]),
                seeds.generator(subject.seed, "draws", k),
            ).mean()
        )
        for k in KS
    }
    steep = np.polyfit(np.log([4, 8, 16, 32, 64]), np.log([errors[k] for k in (4, 8, 16, 32, 64)]), 1)[0]
    return {"slope": float(steep), "late gain": 100 * (errors[8] - errors[64]) / errors[1]}


STUDY = Study(
    name="inference_scaling",
    paper=Paper(
        "Demystifying LLM-as-a-Judge: Analytically Tractable Model for Inference-Time Scaling",
        "2512.19905",
        2025,
    ),
    question="Does the error of best-of-k fall as 1/k^2 under a right judge, and does a wrong judge make more draws worse?",
    arms=(
        Arm("right judge", given={"off": 0.0, "temperature": 1e-3}),
        Arm("wrong judge", given={"off": 1.0, "temperature": 1e-3}),
        Arm("warm judge", given={"off": 0.0, "temperature": 1e6}),
    ),
    measures=(
        Measure(
            "slope", "log error per log k", "slope of log error against log k, from 4 to 64 draws", curve
        ),
        Measure("late gain", "% of one draw's error", "error that goes away between 8 and 64 draws", curve),
    ),
    hypotheses=(
        Hypothesis(
            "steeper than 1/k",
            "With a right judge the error falls faster than under a judge that picks blindly, by more than 1/k.",
            ((1.0, "right judge", "slope"), (-1.0, "warm judge", "slope")),
            least=1.0,
            better="lower",
        ),
        Hypothesis(
            "a wrong judge caps it",
            "Under a wrong judge less error goes away between 8 and 64 draws than under a right one.",
            ((1.0, "wrong judge", "late gain"), (-1.0, "right judge", "late gain")),
            least=1.0,
            better="lower",
        ),
        Hypothesis(
            "more draws are worse",
            "Under a wrong judge 64 draws are worse than 8.",
            ((1.0, "wrong judge", "late gain"),),
            least=0.5,
            better="lower",
        ),
        Hypothesis(
            "a blind judge gains nothing",
            "A judge that picks blindly changes the error with k by less than 0.05 on the logarithmic scale.",
            ((1.0, "warm judge", "slope"),),
            least=0.05,
            better="same",
        ),
    ),
    defaults=Defaults(model="", tasks="", budget="1-steps", seeds=12, problems=QUESTIONS),
    departures=(
        "the paper's closed form for d and n growing together was not read; what is here is the finite model, simulated",
        "d 40, n 80, noise 0.5, judge off by a standard normal vector are guesses",
    ),
)
