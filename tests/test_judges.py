"""Judges: what they are asked, how what they say is read, and what happens where they fail."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import worlds_of_letters as letters
from etude.cli import app
from etude.errors import Refused, UserError
from etude.fixtures.examples import EXAMPLE_TASK, example_episode
from etude.report.health import Health
from etude.reward.asking import JudgeError, _sampled
from etude.reward.combined import Combined
from etude.reward.judge import Criterion, Judge, criteria_of, made, rubric_in, share_of_points
from etude.reward.model import made as reward_model
from etude.reward.parts import Options, Part, parse, read
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Message

Reply = Callable[[str], str | int]


@contextmanager
def server(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address that answers as `reply(prompt)` says (a number: that status), and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({**body, "path": self.path, "auth": self.headers.get("Authorization")})
            said = reply(body["messages"][0]["content"])
            if isinstance(said, int):
                self.send_error(said)
                return
            found = {"choices": [{"message": {"content": said}}], "usage": {"total_tokens": 10}}
            data = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None: ...

    held = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=held.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{held.server_port}/v1#m", asked
    finally:
        held.shutdown()
        held.server_close()


class Says:
    """Who judges, by a function of the prompt."""

    name = "says"

    def __init__(self, reply: Callable[[str], str]) -> None:
        self.says, self.asked = reply, []

    async def reply(self, messages: list[Message], max_tokens: int) -> str:
        self.asked.append(messages[0].content)
        return self.says(messages[0].content)


TASK = replace(EXAMPLE_TASK, prompt=(Message("user", "Q"),))


def longest(prompt: str) -> str:
    """Prefers the longer answer, wherever it stands."""
    a, b = prompt.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
    return f"Better: {'A' if len(a) > len(b.split(chr(10))[0]) else 'B'}"


def test_a_score_is_read_from_the_last_line() -> None:
    judge = Judge(Says(lambda prompt: "Score: 3 would be harsh.\nScore: 7"))
    assert asyncio.run(judge.judged(TASK, "an answer"))[0] == 0.7
    assert "an answer" in judge.who.asked[0]


@pytest.mark.parametrize("said", ["very good", "Score: 11", "Score: -1", ""])
def test_words_that_say_nothing_are_an_error(said: str) -> None:
    with pytest.raises(JudgeError, match="no score"):
        asyncio.run(Judge(Says(lambda prompt: said)).judged(TASK, "x"))


def test_a_rubric_gives_the_share_of_its_points() -> None:
    criteria = (Criterion("is short", 2.0), Criterion("is rude", -1.0), Criterion("is right", 1.0))
    assert share_of_points(criteria, [True, True, False]) == pytest.approx(1 / 3)
    judge = Judge(Says(lambda prompt: "1: yes\n2: no\n3: yes"), "rubric", criteria)
    assert asyncio.run(judge.judged(TASK, "x"))[0] == 1.0
    half = Judge(Says(lambda prompt: "1: yes\n2: no"), "rubric", criteria)
    with pytest.raises(JudgeError, match="all of 3"):
        asyncio.run(half.judged(TASK, "x"))
    own = replace(TASK, meta={"rubric": [{"criterion": "rhymes", "points": 4}, "is short"]})
    of_task = Judge(Says(lambda prompt: "1: no\n2: yes"), "rubric")
    assert asyncio.run(of_task.judged(own, "x"))[0] == pytest.approx(1 / 5)


def test_a_judge_that_favours_a_place_says_nothing() -> None:
    first = Judge(Says(lambda prompt: "Better: A"), "pairwise")
    assert asyncio.run(first.compare(TASK, "x", "y"))[0] == 0.5
    true = Judge(Says(longest), "pairwise")
    assert asyncio.run(true.compare(TASK, "long one", "y"))[0] == 1.0
    assert asyncio.run(true.compare(TASK, "y", "long one"))[0] == 0.0


def test_groups_are_ranked_by_pairs_and_by_lists() -> None:
    answers = ["a", "aaa", "aa"]
    pairs = Judge(Says(longest), "pairwise")
    assert asyncio.run(pairs.tournament(TASK, answers))[0] == [0.0, 1.0, 0.5]
    shown = Judge(Says(lambda prompt: "Order: A > B > C"), "listwise")  # favours the place alone
    assert asyncio.run(shown.listed(TASK, answers))[0] == [0.5, 0.5, 0.5]
    with pytest.raises(JudgeError, match="did not rank"):
        asyncio.run(Judge(Says(lambda prompt: "Order: A > B"), "listwise").listed(TASK, answers))


def test_a_group_judged_together_passes_gates_first() -> None:
    judge = Judge(Says(longest), "pairwise")
    parts = [
        Part("ok", lambda e: float("z" not in e.text), Options("ok", gate=1.0)),
        Part("j", judge, Options("j", weight=2.0)),
    ]
    stage = Combined(parts)
    episodes = [replace(example_episode(1.0), task=TASK, text=t) for t in ("aaa", "a", "zzzzzz")]
    episodes = [e.with_scores(asyncio.run(stage(e))) for e in episodes]
    added = asyncio.run(stage.score_group(episodes))
    assert [s.get("reward") for s in added] == [2.0, 0.0, None]
    assert "judgement" in added[0].notes["j"]


def test_the_same_words_are_asked_once_and_kept_in_a_file(tmp_path: Path) -> None:
    place = tmp_path / "said.jsonl"
    who = Says(lambda prompt: "Score: 5")
    for _ in range(2):  # the second judge reads the file
        judge = Judge(who, cache=place)
        asyncio.run(judge.judged(TASK, "x"))
        asyncio.run(judge.judged(TASK, "x"))
    assert len(who.asked) == 1
    asyncio.run(judge.judged(TASK, "y"))
    assert len(who.asked) == 2


def test_an_address_is_asked_again_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    answers: list[str | int] = [503, 429, "Score: 4"]
    with server(lambda prompt: answers.pop(0)) as (address, asked):
        judge = made(address, {"key": "MY_KEY"})
        assert asyncio.run(judge.judged(TASK, "x"))[0] == 0.4
    assert len(asked) == 3
    assert (asked[0]["path"], asked[0]["model"], asked[0]["temperature"]) == ("/v1/chat/completions", "m", 0)
    assert asked[0]["auth"] == "Bearer secret"


def test_a_judge_that_fails_is_an_error_and_never_a_zero(tmp_path: Path) -> None:
    with server(lambda prompt: 500) as (address, _):
        with pytest.raises(JudgeError, match=r"no answer within 0\.3 s"):
            asyncio.run(made(address, {"seconds": "0.3"}).judged(TASK, "x"))
        plan = letters.plan(tmp_path, "grpo", 1, run__eval_problems=0, run__tasks_per_step=1)
        plan = plan.but(rewards=(f"judge:{address},seconds=0.2",))
        run = start(plan, tmp_path / "run", letters.words())
        with pytest.raises(Refused, match="JudgeError"):
            train(run)
        run.close()
    with server(lambda prompt: 401) as (address, asked), pytest.raises(JudgeError, match="refuses: 401"):
        asyncio.run(made(address, {}).judged(TASK, "x"))
    assert len(asked) == 1


def test_a_budget_of_tokens_is_kept() -> None:
    with server(lambda prompt: "Score: 4") as (address, asked):
        judge = made(address, {"budget": "15"})
        asyncio.run(judge.judged(TASK, "x"))
        asyncio.run(judge.judged(TASK, "y"))
        with pytest.raises(JudgeError, match="budget of 15 tokens is spent"):
            asyncio.run(judge.judged(TASK, "z"))
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("judge:http://h/v1", "must read http://HOST/v1#MODEL"),
        ("judge:policy,how=guess", "how is 'guess'"),
        ("judge:policy,seconds=3", "goes with an address"),
        ("judge:http://h/v1#m,budget=lots", "must be a number"),
        ("judge:policy,rubric=nowhere.toml", "cannot be read"),
    ],
)
def test_what_is_no_judge_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(text)


def test_rubrics_are_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "rubric.toml"
    path.write_text(
        '[[criterion]]\ncriterion = "is short"\npoints = 2\n[[criterion]]\ncriterion = "is rude"\npoints = -1\n'
    )
    assert rubric_in(str(path)) == (Criterion("is short", 2.0), Criterion("is rude", -1.0))
    assert read(f"judge:policy,rubric={path}")[0].score.how == "rubric"
    with pytest.raises(UserError, match="points above 0"):
        criteria_of([{"criterion": "is rude", "points": -1}], "this")


def test_a_run_keeps_what_its_judge_said_and_the_judge_is_examined_first(tmp_path: Path) -> None:
    def likes_a(prompt: str) -> str:
        answer = prompt.split("Answer:\n")[1].split("\n\n")[0]
        return f"It has {answer.count('a')}.\nScore: {min(10, answer.count('a'))}"

    pairs = tmp_path / "held.jsonl"
    rows = ({"prompt": f"q{i}", "chosen": "a" * (i + 1), "rejected": "bcd" * 9} for i in range(8))
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with server(likes_a) as (address, _):
        plan = letters.plan(tmp_path, "grpo", 1, run__eval_problems=0, run__tasks_per_step=2)
        run = start(plan.but(rewards=(f"judge:{address}",)), tmp_path / "run", letters.words())
        train(run)
        run.close()
        row = run.directory.episodes(columns=["notes", "scores"]).to_pylist()[0]
        said = json.loads(row["notes"])["judge"]["judgement"]
        assert said.endswith(f"Score: {round(10 * json.loads(row['scores'])['judge'])}")
        shown = CliRunner().invoke(app, ["show", str(tmp_path / "run")])
        assert "[said of it: judge]" in shown.output, shown.output
        good = CliRunner().invoke(app, ["check", "--pairs", str(pairs), "--reward", f"judge:{address}"])
        assert good.exit_code == 0, good.output
    with server(lambda prompt: "Score: 5") as (address, _):
        blind = CliRunner().invoke(app, ["check", "--pairs", str(pairs), "--reward", f"judge:{address}"])
    assert blind.exit_code == 2
    assert "no better than chance" in blind.output


def test_the_policy_judges_itself_and_so_does_its_frozen_start(tmp_path: Path) -> None:
    """A model of a few letters says nothing that can be read: each attempt fails, and says so."""
    for who in ("policy", "frozen"):
        plan = letters.plan(tmp_path, "grpo", 1, run__eval_problems=0, run__tasks_per_step=1)
        run = start(plan.but(rewards=(f"judge:{who}",)), tmp_path / who, letters.words())
        with pytest.raises(Refused, match="no score from 0 to 10"):
            train(run)
        run.close()


# ---- reward hacking ----------------------------------------------------------------------------------


def hacked(second: Callable[[int], float], first: Callable[[int], float] = lambda s: 0.1 * s) -> list[str]:
    health = Health()
    found = []
    for step in range(1, 31):
        jitter = 0.01 * (-1) ** step
        metrics = {"reward": first(step) + jitter, "score/watched/honest": second(step) + jitter}
        found += [f.name for f in health.observe(step, metrics)]
    return found


def test_a_reward_that_parts_from_the_second_opinion_is_a_finding() -> None:
    assert hacked(lambda step: -0.1 * step) == ["reward hacking"]


def test_no_finding_where_both_rise_or_one_stands_still() -> None:
    assert not hacked(lambda step: 0.1 * step)
    assert not hacked(lambda step: 0.5)
    assert not hacked(lambda step: -0.1 * step, lambda step: 0.5)


def test_a_judge_says_no_more_than_its_context_leaves() -> None:
    asked = []

    class Sampler:
        async def refresh(self) -> None: ...

        async def sample(self, tokens: Any, params: Any, key: int) -> Any:
            asked.append(params.max_tokens)
            return SimpleNamespace(tokens=tokens)

    renderer = SimpleNamespace(prompt=lambda messages, asks: np.arange(6), decode=lambda tokens: "yes")
    for limit in (8, 100):
        generator: Any = SimpleNamespace(sampler=Sampler(), renderer=renderer, limit=limit)
        assert asyncio.run(_sampled(generator, [Message("user", "?")], 10)) == "yes"
    assert asked == [2, 10]


def test_options_of_a_reward_model_are_read_before_it_is_loaded() -> None:
    with pytest.raises(UserError, match="there is no option 'weight'"):
        reward_model("nowhere", {"weight": "1"})
    with pytest.raises(UserError, match="nominal_weight is 'x'; it must be a number"):
        reward_model("nowhere", {"aggregate": "min", "nominal_weight": "x"})
