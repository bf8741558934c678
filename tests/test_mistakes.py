"""Methods that learn from wrong answers and wrong steps, and the laws where each method is certainly at work."""

import asyncio

import pytest
import torch

import toys
from etude import seeds
from etude.assembly import build
from etude.methods import find
from etude.methods.self_correction.lemma import MEND
from etude.methods.self_correction.rise_editing import close_enough
from etude.rollout.edits import subtle_error
from lessons import rollouts
from second_attempts import attempt_of, decode, plain, play, seven, trained


def test_mistake_tuning_marks_the_wrong_ones() -> None:
    _, signals, _, _ = play("mistake_tuning", ["1", "7", "2"], samples=3)
    assert [trained(s, "imitation") for s in signals] == [
        [("demonstration", "3+4=7", 0.0)],
        [("attempt 1", "1", 0.0)],
    ]
    right, wrong = (decode(s.episode.tokens) for s in signals)
    assert right == plain() + "3+4=7"
    assert wrong == plain("q0\n\n[INCORRECT RATIONALE]") + "1"


STEPS = {"reference": "2+3=5\n5*2=10\n10-3=7", "answer": "7"}


def test_lemma_goes_wrong_as_the_attempt_did_and_then_right() -> None:
    task = toys.task(check=seven, **STEPS)
    settings = {"group_rollout.own": 1, "group_rollout.injected": 0, "group_rollout.restart_share": 0.0}
    group, signals, _, _ = play("lemma", ["2+3=5\n5*2=12\n12-3=9"], settings, task=task)
    assert len(group.demonstrations) == 2
    shown, trace = signals
    assert trained(shown, "imitation") == [("demonstration", STEPS["reference"], 0.0)]
    (_, error, _), (_, correction, _) = trained(trace, "imitation")
    assert error == "2+3=5\n5*2=12\n"
    assert correction == f"{MEND}\n5*2=10\n10-3=7", "the attempt's step ended its line"
    assert trace.episode.tokens[-1] == toys.tokenizer().stops[0]
    masked = play("lemma", ["2+3=5\n5*2=12\n12-3=9"], {**settings, "credit.mask_errors": True}, task=task)[1]
    assert [t for t, _, _ in trained(masked[1], "imitation")] == ["correction"]
    again = play("lemma", ["9"], {**settings, "group_rollout.restart_share": 1.0}, task=task)[1]
    assert trained(again[1], "imitation")[1][1].endswith("start again.\n" + STEPS["reference"])


def test_lemma_puts_errors_in_by_rule() -> None:
    task = toys.task(check=seven, **STEPS)
    _, signals, _, _ = play("lemma", ["7"], {"group_rollout.injected": 3}, task=task)
    traces = [trained(s, "imitation") for s in signals[1:]]
    assert len(traces) == 3
    for (tag, error, _), (_, correction, _) in traces:
        assert tag == "error"
        steps = error.split("\n")
        right = STEPS["reference"].split("\n")
        assert steps[:-1] == right[: len(steps) - 1]
        assert steps[-1] != right[len(steps) - 1]
        assert correction.endswith("10-3=7")


def test_edits_are_small_and_change_something() -> None:
    for i in range(40):
        edited = subtle_error("12 + 30 = 42, so 42 * 2 = 84", seeds.generator(i))
        assert edited is not None
        assert edited != "12 + 30 = 42, so 42 * 2 = 84"
        assert close_enough("12 + 30 = 42, so 42 * 2 = 84", edited, 0.5)
    assert subtle_error("no number", seeds.generator(0)) is None
    assert not close_enough("12 + 30", "something else entirely", 0.5)
    assert not close_enough("a ", "a", 0.5)


def test_rise_editing_prefers_the_step_at_its_place() -> None:
    replies = ["2+3=5\n5*2=10\n10-3=7", "1"]
    _group, signals, _sampler, _stages = play("rise_editing", replies, samples=2)
    assert [float(s.extras["pair"][0]) for s in signals] == [1, 1, 2, 2]
    chosen, rejected = signals[2:]
    (_, right, up), (_, wrong, down) = trained(chosen)[0], trained(rejected)[0]
    assert (up, down) == (1.0, -1.0)
    assert right.strip() in replies[0].split("\n")
    assert wrong.strip() not in replies[0].split("\n")
    before = decode(chosen.episode.spans[0].tokens)
    assert before == decode(rejected.episode.spans[0].tokens)
    assert (before + right) in plain() + replies[0]
    other = toys.ScriptedSampler(replies=["5*2=11"])
    asked = play(
        "rise_editing",
        [*replies, "2+3=6"],
        {"group_rollout.editor": "policy", "group_rollout.likeness": 0.0},
        samples=2,
    )
    assert "with one subtle error" in decode(asked[2].asked[2])
    assert other.replies


# ---- laws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "at_work"),
    [
        ("think_tuning", {"group_rollout.first_share": 1.0}, lambda s: s.extras["guidance"].any()),
        ("score", {"credit.first_stage": 0.0}, lambda s: s.advantage[attempt_of(s.episode) == 1].any()),
        ("rise_editing", {"group_rollout.likeness": 0.0}, lambda s: s.extras["pair"][0] == 2),
        (
            "lemma",
            {"group_rollout.injected": 4},
            lambda s: any(p.tag == "correction" for p in s.episode.spans),
        ),
        ("critique_grpo", {}, lambda s: s.extras["refined"].any()),
        ("rltf_sd", {"credit.logp_floor": -100}, lambda s: "distilled" in s.weights),
        ("re_rest", {}, lambda s: any(p.tag == "attempt 2" for p in s.episode.spans)),
    ],
)
def test_the_laws_hold_where_the_method_is_at_work(name: str, settings: dict, at_work) -> None:
    """As in test_laws, for settings under which the part that is the method's own certainly occurs."""
    lesson = toys.lesson(name, settings, tasks=8)
    assert any(at_work(s) for s in lesson.signals)
    whole = toys.gradient(lesson)
    assert whole.norm() > 0
    for cut in (1, 37):
        assert torch.allclose(toys.gradient(lesson, micro_tokens=cut), whole, atol=1e-9)
    without = toys.gradient(lesson, signals=[s for s in lesson.signals if not at_work(s)])
    assert not torch.allclose(without, whole, atol=1e-6), "it changes the gradient"


def test_rise_editing_edits_the_last_step_of_an_answer_that_was_cut_off_as_a_whole() -> None:
    """Without a token that ends it, the last word belongs to the step."""
    _, stages = build(find("rise_editing"), {"group_rollout.likeness": 0.0})
    sampler = toys.ScriptedSampler(replies=["10-3=7", "1"], ends=False)
    spoken = rollouts(stages, sampler.policy, sampler, samples=2)
    spoken.task = toys.task(check=seven)
    group = asyncio.run(spoken.group(stages["group_rollout"]))
    first = group.episodes[0]
    edit = first.notes["edit"]
    assert decode(first.tokens[edit["start"] : edit["end"]]) == "10-3=7"
