"""Health: three collapses are each told by their cause, thresholds hold where they say, writers and screens."""

from __future__ import annotations

import io
from typing import Any

import pytest

from etude.report.health import Finding, Health
from etude.report.terminal import Progress, clean, eval_screen, final_screen, sparkline

WELL = {"entropy": 1.0, "length": 32.0, "truncated": 0.05, "kl_start": 0.01, "kl_sampler": 0.0, "gap": 1e-6, "clip": 0.02, "errors": 0.0,
        "signal_tokens": 0.6, "correct": 0.4, "grad_norm": 0.5, "loss/policy": 0.1}  # fmt: skip


def watch(later: dict[str, list[Any]], steps: int = 30) -> tuple[Health, list[Finding]]:
    """Findings of a run that is well for ten steps, then takes the values of `later`, last ones kept."""
    health, found = Health(), []
    for step in range(1, steps + 1):
        now = (
            {name: values[min(step - 11, len(values) - 1)] for name, values in later.items()}
            if step > 10
            else {}
        )
        found += health.observe(step, {**WELL, **now})
    return health, found


def test_a_healthy_run_has_no_findings() -> None:
    assert watch({})[1] == []


COLLAPSES = {
    # the policy repeats itself; then no attempts differ any more
    "entropy collapse": {
        "entropy": [0.5, 0.1, 0.01],
        "signal_tokens": [0.6, 0.5, 0.4, 0.3, 0.01],
        "correct": [0.4],
    },
    # the sampler goes wrong; then KL and entropy go up
    "gap": {"gap": [0.01, 0.3, 0.5], "kl_sampler": [0.01, 0.1, 0.3, 0.9], "entropy": [1.0, 1.2, 2.0, 5.0]},
    # answers grow, then are cut, then all fail alike
    "length explosion": {
        "length": [60, 90, 120],
        "truncated": [0.1, 0.3, 0.6, 0.9],
        "signal_tokens": [0.5, 0.4, 0.3, 0.2, 0],
    },
}


@pytest.mark.parametrize("cause", COLLAPSES)
def test_a_collapse_is_attributed_to_its_cause(cause: str) -> None:
    health, found = watch(COLLAPSES[cause])
    assert health.first is not None
    assert health.first.name == cause
    assert len({finding.name for finding in found}) == len(found) > 1, (
        "each finding once, effects after the cause"
    )


def test_all_at_once_the_cause_still_comes_first() -> None:
    health, found = watch({"signal_tokens": [0.0], "truncated": [0.95], "length": [200]})
    assert health.first == found[0]
    assert [f.name for f in found] == ["length explosion", "truncation", "no signal"]
    assert "95% of the answers were cut off" in found[-1].message
    assert all(f.since == 11 and f.step == 13 for f in found)


@pytest.mark.parametrize(
    ("name", "beyond", "within", "finding"),
    [
        ("kl_sampler", 0.51, 0.5, "kl"),
        ("kl_start", 0.51, 0.5, "drift"),
        ("gap", 0.051, 0.05, "gap"),
        ("kl_update", 2.1, 2.0, "update"),
        ("clip", 0.41, 0.4, "clip"),
        ("truncated", 0.51, 0.5, "truncation"),
        ("signal_tokens", 0.049, 0.05, "no signal"),
        ("entropy", 0.199, 0.2, "entropy collapse"),
        ("entropy", 3.01, 3.0, "entropy rise"),
        ("length", 80.1, 80.0, "length explosion"),
        ("errors", 0.01, 0.0, "errors"),
        ("grad_norm", None, 1e9, "not finite"),
        ("loss/policy", float("inf"), 1e9, "not finite"),
    ],
)
def test_thresholds(name: str, beyond: float, within: float, finding: str) -> None:
    assert watch({name: [within]})[1] == []
    found = watch({name: [beyond]})[1]
    assert [f.name for f in found] == [finding]
    patient = finding not in ("errors", "not finite", "gap", "update", "drift")
    assert found[0].step == (13 if patient else 11)
    assert watch({name: [beyond, beyond, within]})[1] == [] or not patient, "two steps are noise"


def test_short_replies_drift_by_the_reply() -> None:
    """32 tokens at 0.5 nats are 16 nats a reply, which are 4 a token where a reply has four."""
    for length, bound in ((4.0, 4.0), (16.0, 1.0), (32.0, 0.5), (500.0, 0.5)):
        for value, wanted in ((bound - 0.01, []), (bound + 0.01, ["drift"])):
            health = Health()
            seen = [
                health.observe(s, {"length": length, "kl_start": value} if s == 9 else {"length": length})
                for s in range(1, 10)
            ]
            assert [f.name for found in seen for f in found] == wanted, (length, value)


def test_entropy_may_fall_as_wrong_answers_do() -> None:
    """From 60 % wrong to 15 %: a quarter of the fifth is left as a floor, 0.05; where the votes are the policy's own, all of it."""

    def fell(entropy: float, right: float, labelled: bool = True) -> list[str]:
        health, found = Health(), []
        for step in range(1, 31):
            now = {"correct": right if step > 10 else 0.4, "entropy": entropy if step > 15 else 1.0}
            found += health.observe(step, {**WELL, **now}, labelled)
        return [f.name for f in found]

    assert fell(0.06, 0.85) == []
    assert fell(0.04, 0.85) == ["entropy collapse"]
    assert fell(0.06, 0.4) == ["entropy collapse"], "nothing was learned by it"
    assert fell(0.06, 0.2) == ["entropy collapse"], "no wider floor where answers become worse"
    assert fell(0.21, 0.2) == []
    assert fell(0.06, 0.85, labelled=False) == ["entropy collapse"]


def test_now_and_then_is_not_in_a_row() -> None:
    assert watch({"kl_sampler": [0.9, 0.9, 0.1] * 7})[1] == []


def test_a_step_that_does_not_measure_is_no_reading() -> None:
    """The gap is measured in one step of 20: 5 nats for 400 steps are seen at the first measurement."""
    health = Health()
    found = [f for s in range(1, 401) for f in health.observe(s, {**rare(s), "reward": 0.0})]
    assert [(f.name, f.step) for f in found] == [("gap", 1)]
    for name, wanted in (("kl_sampler", 41), ("truncated", 41)):  # three readings, however far apart
        health = Health()
        found = [f for s in range(1, 401) for f in health.observe(s, {name: 5.0} if s % 20 == 1 else {})]
        assert [(f.step, f.since) for f in found] == [(wanted, 1)]


def rare(step: int) -> dict[str, float]:
    return {"gap": 5.0} if step % 20 == 1 else {}


def test_a_policy_that_forgot_what_it_could_is_told_from_hard_tasks() -> None:
    """Right answers fall from 40% to none: the advice is the learning rate, not easier tasks; sound steps are known."""
    health, found = watch({"correct": [0.4, 0.0], "signal_tokens": [0.5, 0.0]}, 24)
    said = {f.name: f.message for f in found}
    assert "40% of the answers were right at its best, 0% are now" in said["collapse"]
    assert "lower the learning rate" in said["no signal"]
    assert "easier" not in said["no signal"]
    assert health.last_good == 11
    poor, found = watch({"correct": [0.0], "signal_tokens": [0.0]})
    assert poor.best == pytest.approx(0.4)


def test_the_step_before_which_a_policy_was_sound() -> None:
    """An update that breaks a policy shows in the next step; the checkpoint of the step before it is sound."""
    assert watch({"kl_update": [0.1, 9.0], "correct": [0.4]})[0].last_good == 12
    assert watch({"grad_norm": [None]})[0].last_good == 11
    assert watch({"length": [200]})[0].last_good == 10
    assert watch({"correct": [0.1, 0.1, 0.4]})[0].last_good == 30, "what comes back was not broken"
    lucky = watch({"correct": [0.0, 0.0, 0.0, 0.0, 0.5, 0.0]})[0]
    assert lucky.last_good == 10, "one good step of a constant answer"


def test_hard_from_the_start_is_not_degenerated() -> None:
    health = Health()
    bad = {**WELL, "correct": 0.0, "signal_tokens": 0.0}
    (found,) = [f for s in range(1, 9) for f in health.observe(s, bad)]
    assert "choose easier tasks" in found.message
    assert health.last_good == 8
    cut = {**bad, "truncated": 1.0, "entropy": 0.01, "kl_start": 9.0}
    said = health.degenerated(cut)
    assert said == (
        "5% were cut off at step 1, 100% are now; entropy was 1 nats, it is 0.01; "
        "it is 9 nats per token away from where it began"
    )
    assert (
        health.degenerated({**cut, "correct": 0.0, "truncated": 0.3, "entropy": 0.5, "kl_start": 1.0}) == ""
    )


def test_missing_metrics_are_not_judged() -> None:
    health = Health()
    assert [health.observe(step, {"reward": 0.0}) for step in range(20)] == [[]] * 20


def test_clean_strips_what_a_terminal_would_obey() -> None:
    nasty = "a\x1b[31mb\x1b[0m\x1b]0;title\x07c\x9b2Jd\x00\x08e\r\nf\tg\u202eh\x1b]8;;http://x\x1b\\i\x7f"
    assert clean(nasty) == "abcde\nf\tghi"
    assert clean("ordinary é → 🙂") == "ordinary é → 🙂"


def test_progress_is_a_line_per_step_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    show = Progress(None, file=out)
    show.say("pre-flight: \x1b[31mfine\x1b[0m [not markup]")
    show(3, {"reward": 0.5, "signal": 0.25, "gap": 2e-6, "time/rollout": 3.0, "time/train": 1.0}, 0.03)
    first, second = out.getvalue().splitlines()
    assert first == "pre-flight: fine [not markup]"
    assert second.split() == (
        [
            "step",
            "3",
            "(3%)",
            "reward",
            "50.0%",
            "signal",
            "25.0%",
            "gap",
            "2e-06",
            "nats",
            "4.0",
            "s:",
            "rollout",
            "75%,",
            "check",
            "0%,",
            "train",
            "25%,",
            "other",
            "0%",
        ]
    )
    Progress(None, quiet=True, file=out)(4, {"reward": 1.0}, 0.1)
    assert len(out.getvalue().splitlines()) == 2


def test_progress_draws_over_itself_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    show = Progress(None, file=out)
    show(1, {"reward": 0.25}, 0.1)
    lines = out.getvalue().count("\n")
    assert "\x1b[J" not in out.getvalue()
    show(2, {"reward": 0.75}, 0.2)
    assert f"\x1b[{lines}F\x1b[J" in out.getvalue()
    assert "75.0%" in out.getvalue()


def test_screens_say_what_was_measured() -> None:
    card = {
        "name": "chain_sum",
        "problems": 200,
        "samples": 8,
        "seed": 7,
        "rule": "last",
        "sampling": {"temperature": 1.0},
    }
    before = {**card, "mean": 0.1, "low": 0.05, "high": 0.15, "pass": {"8": [0.3, 0.2, 0.4]}}
    after = {
        **card,
        "mean": 0.8,
        "low": 0.75,
        "high": 0.85,
        "pass": {"8": [0.9, 0.8, 0.95]},
        "kinds": {"\x1b[1mx": before},
    }
    screen = final_screen({"recipe": "grpo", "steps": 5, "minutes": 2.5, "before": before, "after": after,
                           "tokens": {"generated": 120000.0}, "model": "m", "report": "r.html"})  # fmt: skip
    assert "10.0% [5.0, 15.0]  ->  80.0% [75.0, 85.0]" in screen
    assert "30.0% [20.0, 40.0]  ->  90.0% [80.0, 95.0]" in screen
    assert "120k generated" in screen
    assert "200 problems of chain_sum" in screen
    assert "seed 7" in screen
    shown = eval_screen(after)
    assert "\x1b" not in shown
    assert "pass@8" in shown
    assert sparkline([0, 1, 2]) == "▁▅█"  # 3.5 rounds to even, 4
