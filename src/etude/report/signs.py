"""The signs by which a run's health is judged: metrics, thresholds of `report.health.Health`, and what is said of a crossing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.report.health import Health

Crossing = tuple[float, float, str]  # value, threshold, message


def number(metrics: Mapping[str, Any], name: str) -> float | None:
    """A metric as a float; None when it is missing; NaN when it was stored as null (not finite)."""
    if name not in metrics:
        return None
    value = metrics[name]
    if isinstance(value, int | float):
        return float(value)
    return math.nan if value is None else None


def _not_finite(_: Health, metrics: Mapping[str, Any]) -> Crossing | None:
    for name in metrics:
        value = number(metrics, name)
        judged = name == "grad_norm" or name.startswith("loss/")
        if judged and value is not None and not math.isfinite(value):
            return (
                math.nan,
                0.0,
                f"{name} is not a finite number; the weights cannot be trusted after this step",
            )
    return None


def _above(name: str, field_name: str, text: str) -> Callable[[Health, Mapping[str, Any]], Crossing | None]:
    def judge(health: Health, metrics: Mapping[str, Any]) -> Crossing | None:
        value, bound = number(metrics, name), getattr(health, field_name)
        if value is None or not value > bound:
            return None
        return value, bound, text.format(value=value, percent=100 * value, bound=bound)

    return judge


def _entropy_fell(health: Health, metrics: Mapping[str, Any]) -> Crossing | None:
    value, was = number(metrics, "entropy"), health.was("entropy")
    if value is None or was is None or not value < health.entropy_floor(was):
        return None
    text = f"entropy fell from {was:.3g} to {value:.3g} nats: the policy says the same thing every time"
    return value, health.entropy_floor(was), text + "; lower the learning rate or add an entropy or KL term"


def _entropy_rose(health: Health, metrics: Mapping[str, Any]) -> Crossing | None:
    value, was = number(metrics, "entropy"), health.was("entropy")
    if value is None or was is None:
        return None
    bound = health.entropy_bound(was)
    if not value > bound:
        return None
    text = f"entropy rose from {was:.3g} to {value:.3g} nats: the text is turning into noise"
    return value, bound, text + "; lower the learning rate and look at the sampler gap"


def _length_rose(health: Health, metrics: Mapping[str, Any]) -> Crossing | None:
    value, was = number(metrics, "length"), health.was("length")
    if value is None or was is None:
        return None
    bound = max(health.length_high * was, was + 16)
    if not value > bound:
        return None
    text = f"episodes grew from {was:.0f} to {value:.0f} sampled tokens"
    return value, bound, text + "; does the reward or the loss favour length?"


def _fell(health: Health, _: Mapping[str, Any]) -> Crossing | None:
    bound = health.correct_low * health.best
    if health.best < NOTABLE or not health.correct < bound:
        return None
    text = (
        f"{100 * health.best:.2g}% of the answers were right at its best, {100 * health.correct:.2g}% are now"
    )
    text += f": unless its tasks became harder, the model has degenerated since step {health.last_good}"
    return health.correct, bound, f"{text}; {CURE}"


def _parted(health: Health, _: Mapping[str, Any]) -> Crossing | None:
    """The reward rose and a second opinion fell, each by `PARTED` standard errors of the two windows' means."""
    found = []
    for name in health.windows:
        rose, fell = moved(health, "reward"), moved(health, name)
        if name != "reward" and rose is not None and fell is not None and min(rose, -fell) > PARTED:
            found.append((-fell, name))
    if not found:
        return None
    value, name = max(found)
    begin, end = ([sum(w) / len(w) for w in health.windows[n]] for n in ("reward", name))
    text = f"the reward rose from {begin[0]:.3g} to {begin[1]:.3g} while the second opinion '{name.removeprefix(SECOND)}' fell"
    text += f" from {end[0]:.3g} to {end[1]:.3g}: the policy earns reward without doing what it stands for"
    return value, PARTED, text + "; read its answers, mend the reward, or go back to before they parted"


def moved(health: Health, name: str) -> float | None:
    """How far the mean of a metric's last readings lies above that of its first, in standard errors; None before there are
    enough of both."""
    begin, end = health.windows.get(name, ([], []))
    size = 2 * health.baseline
    if len(end) < size:
        return None
    means = [sum(w) / size for w in (begin, end)]
    spread = sum(sum((x - m) ** 2 for x in w) / (size - 1) for w, m in zip((begin, end), means, strict=True))
    return (means[1] - means[0]) / max(math.sqrt(spread / size), 1e-9)


def _no_signal(health: Health, metrics: Mapping[str, Any]) -> Crossing | None:
    value = number(metrics, "signal_tokens")
    value = number(metrics, "signal") if value is None else value
    if value is None or not value < health.signal_low:
        return None
    worse = health.degenerated(metrics)
    cause = f"the model has degenerated ({worse}); {CURE}" if worse else why(metrics)
    return value, health.signal_low, f"only {100 * value:.0f}% of the tokens carry any signal: {cause}"


def why(metrics: Mapping[str, Any]) -> str:
    """In words, why a step taught nothing, as far as it shows it."""
    correct, truncated = number(metrics, "correct"), number(metrics, "truncated")
    if truncated is not None and truncated > 0.8:
        limit = "run.context" if (number(metrics, "full") or 0.0) > 0.5 * truncated else "run.max_tokens"
        return f"{100 * truncated:.0f}% of the answers were cut off; raise {limit}"
    if correct is not None and correct > 0.95:
        return "nearly every answer is right; choose harder tasks"
    if correct is not None and correct < 0.05:
        return "nearly every answer is wrong; choose easier tasks or check the answer format"
    return "the attempts at one task all get the same reward"


CHECKS: tuple[
    tuple[str, tuple[str, ...], Callable[[Health, Mapping[str, Any]], Crossing | None]], ...
] = (  # name, metrics of which at least one is needed, judge
    (
        "errors",
        ("errors",),
        _above(
            "errors", "errors_high", "{percent:.0f}% of the answers could not be judged: the checker failed"
        ),
    ),
    (
        "gap",
        ("gap",),
        _above(
            "gap",
            "gap_high",
            "sampler and trainer disagree by {value:.3g} nats per token (healthy: up to {bound:g});"
            " what is trained is not what was sampled",
        ),
    ),
    ("not finite", (), _not_finite),
    (
        "kl",
        ("kl_sampler",),
        _above(
            "kl_sampler",
            "kl_high",
            "the updates move the policy {value:.3g} nats per token away from the one that sampled the batch"
            " (healthy: up to {bound:g})",
        ),
    ),
    (
        "update",
        ("kl_update",),
        _above(
            "kl_update",
            "update_high",
            "one update moved the policy by {value:.3g} nats per token (healthy: up to {bound:g}); "
            "lower the learning rate",
        ),
    ),
    (
        "drift",
        ("kl_start",),
        _above(
            "kl_start",
            "drift_bound",
            "the policy is {value:.3g} nats per token away from where the run began (healthy: up to {bound:g})",
        ),
    ),
    (
        "clip",
        ("clip",),
        _above("clip", "clip_high", "{percent:.0f}% of the tokens were clipped: the updates are too large"),
    ),
    ("entropy collapse", ("entropy",), _entropy_fell),
    ("entropy rise", ("entropy",), _entropy_rose),
    ("length explosion", ("length",), _length_rose),
    ("collapse", ("correct",), _fell),
    (
        "truncation",
        ("truncated",),
        _above("truncated", "truncated_high", "{percent:.0f}% of the answers were cut at the length limit"),
    ),
    ("reward hacking", ("reward",), _parted),
    ("no signal", ("signal_tokens", "signal"), _no_signal),
)
AT_ONCE = frozenset(
    {"errors", "not finite", "gap", "update", "drift"}
)  # the last three are measured now and then
BROKEN = frozenset({"not finite", "update", "entropy rise", "length explosion", "collapse"})
BY_UPDATE = frozenset({"not finite", "update"})
SECOND = "score/watched/"  # metrics of second opinions: scores that take no part in the reward
PARTED = 4.0  # standard errors
NOTABLE = 0.05  # a share of right answers that is no chance
FAR = 2.0  # nats per token from the start, beyond which a policy that learned nothing is broken
CURE = "lower the learning rate and go back to a checkpoint from before (`etude resume RUN --from STEP`)"
