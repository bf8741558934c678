"""A conversation that has reached its longest length ends there: judged as cut off, visible, and no error."""

import json
from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.methods import catalogue
from etude.report.turns import screen
from etude.rollout.attempts import attempt
from etude.rollout.conversation import Conversation, Generator
from etude.rollout.full import DROP_OLDEST, FULL, LEFT_OUT
from etude.train.collect import collect
from etude.train.loop import train
from etude.train.run import Run
from etude.train.setup import start
from etude.types import Message, SamplingParams, Task, Verdict
from recipes_apart import apart


def run_with(place: Path, recipe: str = "reinforce", context: int = 4096, **more) -> Run:
    changes = {
        "run__eval_problems": 0,
        "run__tasks_per_step": 2,
        "run__group_size": 4,
        "run__context": context,
        **more,
    }
    return start(letters.plan(place, recipe, 1, **changes), place / "run", letters.pairs())


def opening(run: Run) -> int:
    """Tokens of the longest first prompt."""
    _, drawn = collect(run)
    return max(len(e.spans[0]) for g in drawn for e in g.episodes)


def test_a_world_ends_where_its_conversation_does(tmp_path: Path) -> None:
    probe = run_with(tmp_path / "a")
    first = opening(probe)
    probe.close()
    run = run_with(
        tmp_path / "b", context=first + 3
    )  # room for the first reply of two tokens, not for the second
    _, drawn = collect(run)
    episodes = [e for g in drawn for e in g.episodes]
    assert len(episodes) == 8
    cut = [e for e in episodes if FULL in e.notes]
    assert cut
    for e in cut:
        assert e.stop == "length"
        assert not e.correct
        assert e.reward == 0
        assert "the longest conversation" in e.verdict.feedback
        assert len(e.tokens) <= first + 3
        assert e.spans[-1].sampled, "what got no reply is not part of the episode"
    train(run)
    run.close()
    assert run.directory.metrics()[0]["errors"] == 0
    assert run.directory.metrics()[0]["full"] > 0
    rows = run.directory.episodes().to_pylist()
    row = next(r for r in rows if "longest conversation" in r["verdicts"])
    assert "Cut off" in screen([row])
    assert json.loads(row["notes"])[FULL] == first + 3


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Tokens of the longest first prompt."""
    probe = run_with(tmp_path_factory.mktemp("probe"))
    found = opening(probe)
    probe.close()
    return found


@pytest.mark.parametrize("recipe", apart("rollout", "group_rollout"))
def test_no_recipe_falls_over_a_conversation_that_is_full(recipe: str, first: int, tmp_path: Path) -> None:
    needs = catalogue()[recipe].all_needs
    if {"text", "hints"} & set(needs):
        pytest.skip("takes no worlds")
    more = {"run__teacher": letters.model(tmp_path / "teacher", seed=2)} if "teacher" in needs else {}
    for context in (first + 1, first + 3):
        run = run_with(tmp_path / str(context), recipe, context, **more)
        train(run)
        run.close()
        metrics = run.directory.metrics()
        assert all(m["errors"] == 0 for m in metrics)
        assert any(m["full"] > 0 for m in metrics) or not any(m["length"] for m in metrics)


@pytest.mark.parametrize("recipe", ["grpo", "erl", "score"])
def test_answers_in_words_that_are_cut_by_the_context(recipe: str, tmp_path: Path) -> None:
    changes = {"run__eval_problems": 0, "run__tasks_per_step": 2, "run__group_size": 4}
    for context in (8, 10, 14, 20):
        run = start(
            letters.plan(tmp_path, recipe, 2, run__context=context, **changes),
            tmp_path / str(context),
            letters.words(),
        )
        train(run)
        run.close()
        assert all(m["errors"] == 0 for m in run.directory.metrics())


def test_a_full_conversation_hears_nothing_until_a_new_context(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    task = Task((Message("user", "ab"),), lambda answer: Verdict(0.0, False))
    prompt = len(run.generator.renderer.prompt(task.prompt))
    generator = Generator(
        run.generator.sampler, run.generator.renderer, SamplingParams(max_tokens=2), limit=prompt + 3
    )
    talk = Conversation(task, generator, run.check_runner, key=1)

    async def through() -> None:
        talk.user(task.prompt)
        await talk.reply()
        assert FULL not in talk.notes
        held = [s.tokens.tolist() for s in talk.spans]
        for _ in range(3):
            talk.user("cd")
            assert await talk.reply() == ""
            assert (talk.stop, talk.full) == ("length", True)
            assert [s.tokens.tolist() for s in talk.spans] == held
        talk.new_context("ab")
        await talk.reply()
        assert not talk.full
        assert talk.spans[-1].sampled
        assert talk.spans[-2].restart

    run.loop.run(through())
    run.close()


class Echo:
    """Says what was said to it, for `turns` turns."""

    def __init__(self, seed: int = 0, turns: int = 6) -> None:
        self.left = turns

    def observe(self) -> str:
        return "ab"

    def act(self, text: str) -> tuple[str, Verdict | None]:
        self.left -= 1
        return "cd" * 3 + str(self.left), None if self.left else Verdict(1.0, True)


def test_the_oldest_turns_are_left_out(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    task = Task((Message("user", "question"),), letters.First("a"), environment=Echo)
    render = run.generator.renderer
    longest = (
        len(render.prompt([Message("user", "question\n\nab\n\n(Earlier turns are left out.)\n\ncdcdcd0")]))
        + 24
    )
    talks = {}
    for policy in ("refuse", DROP_OLDEST):
        generator = Generator(
            run.generator.sampler, render, SamplingParams(max_tokens=2), limit=longest, when_full=policy
        )
        talk = Conversation(task, generator, run.check_runner, key=1)
        run.loop.run(attempt(talk, task.prompt, 1, tag="move"))
        talks[policy] = talk
    assert not talks["refuse"].verdicts[0].correct
    assert LEFT_OUT not in talks["refuse"].notes
    one = talks[DROP_OLDEST]
    assert one.verdicts[0].correct
    assert FULL not in one.notes
    events = one.notes[LEFT_OUT]
    assert events
    assert all(messages > 0 for _, messages in events)
    starts = [i for i, span in enumerate(one.spans) if span.restart]
    assert len(starts) == len(events)
    for begin, end in zip([0, *starts], [*starts, len(one.spans)], strict=True):
        assert sum(len(s) for s in one.spans[begin:end]) <= longest
    first = one.messages[0].content  # as text: the tiny tokenizer knows four letters
    assert first.startswith("question\n\nab\n\n(Earlier turns are left out.)")
    assert first.count("left out") == 1
    assert sum(s.sampled for s in one.spans) == 6, "each reply stands once, where it was sampled"
    assert "messages left out of the context" in screen([row_of(one)])
    run.close()


def row_of(talk: Conversation) -> dict:
    """As much of a recorded episode as its screen reads."""
    spans = [
        {
            "start": 0,
            "end": 0,
            "role": s.role,
            "tag": s.tag,
            "text": "",
            "sampled": s.sampled,
            "restart": s.restart,
        }
        for s in talk.spans
    ]
    empty = dict.fromkeys(("scores", "verdicts", "weights", "advantage"))
    notes = json.dumps(talk.notes)
    return {**empty, "id": "0-0", "kind": "echo", "step": 0, "spans": spans, "notes": notes}
