"""Methods of inference: what they may see, what they are charged, and that they are played, compared and learnt from."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import worlds_of_letters as letters
from etude.cli import run as etude
from etude.compare.inference import InferenceComparison, compare_inference, screen
from etude.errors import UserError
from etude.evaluate.inference import grid, played
from etude.fixtures.inference import Reply, answered
from etude.methods import catalogue
from etude.models.policy import Policy
from etude.recipe import Recipe
from etude.report.page import comparison_data
from etude.report.run import RunDirectory
from etude.sampling.engine import sampler_for
from etude.search.ledger import Exhausted, Ledger, Limit
from etude.search.session import SEARCH, Draft, Session, answering
from etude.search.tree import Tree
from etude.settings import stage
from etude.testing import toys
from etude.train.loop import train
from etude.train.setup import start
from etude.types import Message, SamplingParams, Task, Verdict


def method(coroutine, **more) -> Recipe:
    return Recipe(name="mine", stages={"rollout": stage(lambda: answering(coroutine, **more))})


def test_a_method_sees_neither_answer_nor_checker() -> None:
    seen: list[Task] = []

    async def look(session: Session) -> Draft:
        seen.append(session.task)
        draft = await session.draft()
        with pytest.raises(UserError, match="oracle"):
            session.task.check("7")
        with pytest.raises(UserError, match="oracle"):
            await session.verdict(draft)
        with pytest.raises(UserError, match="oracle"):
            await draft.line.check("7")
        return draft

    assert answered(method(look), "7").episode.correct
    (task,) = seen
    assert (task.answer, task.reference, task.hints, task.environment, dict(task.meta)) == (
        None,
        None,
        (),
        None,
        {},
    )


def test_an_oracle_says_so() -> None:
    async def ask(session: Session) -> Draft:
        drafts = await session.drafts(2)
        right = [(await session.verdict(d)).correct for d in drafts]
        return drafts[right.index(True)]

    found = answered(method(ask, oracle=True), "5", "7").episode
    assert found.correct
    assert found.notes[SEARCH]["oracle"]
    assert played("best_of_n:by=verifier").label.endswith("(oracle)")
    assert not played("best_of_n:by=logp").oracle


def test_a_prompt_that_goes_on_is_charged_for_the_rest() -> None:
    async def work() -> Ledger:
        ledger = Ledger()
        for prompt, said in (([1, 2, 3], [4, 5]), ([1, 2, 3, 4, 6], [7]), ([2], [9])):
            number, _ = await ledger.reserve("policy", 2.0, np.array(prompt), 8)
            ledger.settle(number, "policy", 2.0, np.array(prompt), np.array(said))
        return ledger

    spent = asyncio.run(work()).of("policy")
    assert (spent.prompt, spent.shared, spent.generated) == (3 + 1 + 1, 0 + 4 + 0, 4)
    assert spent.flops == 2.0 * (5 + 4)


def test_a_budget_is_never_overdrawn() -> None:
    """Replies that are asked for together wait for each other, and the last one is cut short."""

    async def work() -> tuple[Ledger, list[int]]:
        ledger, lengths = Ledger(Limit(tokens=10)), []

        async def one(i: int) -> None:
            number, longest = await ledger.reserve("policy", 1.0, np.array([i]), 6)
            lengths.append(longest)
            await asyncio.sleep(0)
            ledger.settle(number, "policy", 1.0, np.array([i]), np.arange(min(longest, 4)))

        found = await asyncio.gather(*map(one, range(5)), return_exceptions=True)
        assert [type(f) for f in found if f] == [Exhausted] * 2
        return ledger, lengths

    ledger, lengths = asyncio.run(work())
    assert lengths == [6, 6, 2]
    assert (ledger.generated, ledger.exhausted) == (10, True)


@pytest.mark.parametrize("text", ["", "many", "-5-flops", "0-tokens", "5m"])
def test_a_budget_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="flops-a-problem"):
        Limit.parse(text)


def test_budgets_are_read() -> None:
    assert Limit.parse("2e10-flops-a-problem") == Limit(flops=2e10)
    assert Limit.parse("500-tokens") == Limit(tokens=500)


def test_names_of_methods() -> None:
    assert [m.name for m in grid("majority:n=4,8")] == ["majority:n=4", "majority:n=8"]
    assert [m.name for m in grid("beam:width=2,3,by=logp")] == [
        "beam:width=2,by=logp",
        "beam:width=3,by=logp",
    ]
    for words, match in (
        ("grpo", "does not say how an answer is produced"),
        ("majority:n", "looks like"),
        ("majority:m=3", "no setting 'rollout.m'"),
        ("majority:n=2,3", "names 2 methods"),
        ("majorty", "there is no recipe"),
    ):
        with pytest.raises(UserError, match=match):
            played(words)


def test_what_is_left_when_the_budget_ends_is_answered() -> None:
    found = answered(
        catalogue()["best_of_n"], "7", "7", "7", settings={"n": 3, "by": "judge"}, limit=Limit(flops=60.0)
    )
    assert found.text == "7"  # the judge could not be paid for
    assert found.spent["exhausted"]
    assert answered(catalogue()["majority"], limit=Limit(tokens=0.5)).text == ""


def test_steps_of_a_reply_are_one_turn() -> None:
    async def walk(session: Session) -> Draft:
        line = session.line("walk")
        first = await session.go_on(line, until="\n")
        assert (first.text, line.stop) == ("a\n", "cut")
        second = await session.go_on(line.fork(0), until="\n")
        assert second.text == "a\nb\n"
        last = await session.go_on(second.line)
        assert [m.content for m in last.line.messages[1:]] == ["a\nb\n7"]
        last.line.interject("Wait", tag="wait")
        again = await session.go_on(last.line)
        assert again.text == "a\nb\n7Wait 7"
        return again

    found = answered(method(walk), "a\nb\n7", " 7").episode
    assert [s.sampled for s in found.spans] == [False, True, True, True, False, True]
    assert len(found.spans[3]) == 1, "the end of the reply that was gone on from is no part of it"


def test_steps_that_say_the_same_are_one_child() -> None:
    async def grow(session: Session) -> Draft:
        async def zero(session: Session, drafts: list[Draft]) -> list[float]:
            return [0.0] * len(drafts)

        tree = Tree(session, zero, "\n", 64, 4)
        children = await tree.expand(tree.root, 3)
        assert [c.draft.text for c in children] == ["a\n", "b\n"]
        return children[0].draft

    answered(method(grow), Reply("a\n"), Reply("a\n"), Reply("b\n"))


def test_certainty_is_the_divergence_from_a_uniform_choice(tmp_path: Path) -> None:
    """Of the sampler, at any temperature: the mean over the vocabulary of log(1 / (V p)), p at temperature 1."""
    policy = Policy.load(str(letters.model(tmp_path)), precision="fp32")
    prompt = policy.renderer.prompt([Message("user", "abcd")])
    params = SamplingParams(temperature=0.5, max_tokens=3)
    sample = asyncio.run(sampler_for(policy).sample(prompt, params, 1, certainty=True))
    from etude.batch import pack
    from etude.types import Episode, Signal, Span

    spans = (Span("user", prompt), Span("assistant", sample.tokens, True, sample.logp))
    batch = pack(
        [Signal(Episode(toys.task(), spans), np.zeros(len(prompt) + len(sample.tokens), np.float32))]
    )
    out = policy.score(batch, frozenset({"hidden"}))
    logits = out.logits(batch.needed)
    wanted = -(torch.log_softmax(logits, -1) + np.log(logits.shape[1])).mean(-1)
    assert sample.certainty is not None
    assert np.allclose(sample.certainty, wanted.detach().numpy(), atol=1e-4)
    assert asyncio.run(sampler_for(policy).sample(prompt, params, 1)).certainty is None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "words.jsonl"
    rows = [{"question": f"{a}{b} begins with?", "answer": a} for a in "abcd" for b in "abcd"]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_eval_plays_two_methods_on_the_same_problems(tmp_path: Path, file: Path, capsys) -> None:
    words = [
        "eval",
        str(letters.model(tmp_path)),
        "-t",
        str(file),
        "--problems",
        "6",
        "--set",
        "run.max_tokens=4",
    ]
    assert etude([*words, "--with", "majority:n=3", "--versus", "best_of_n:n=3,by=verifier", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    mine, theirs = found["inference"], found["versus"]["inference"]
    assert mine["method"] == "majority:n=3"
    assert (mine["oracle"], theirs["oracle"]) == (False, True)
    assert mine["calls"] == 3
    assert mine["tokens"] == theirs["tokens"], "the same draws"
    assert mine["shared"] == pytest.approx(2 / 3)
    assert 0.7 < mine["measured_flops"] / mine["flops"] < 1.5
    assert found["difference"]["arm"] == "majority:n=3"
    assert etude([*words, "--with", "majority:n=3", "--budget", "5-tokens-a-problem"]) == 0
    assert "budget ended first" in capsys.readouterr().out
    assert etude([*words, "--budget", "5-tokens-a-problem"]) == 2


def test_methods_are_compared_without_training(tmp_path: Path, file: Path) -> None:
    def comparison(*methods: str, **more) -> InferenceComparison:
        settings = {"run.max_tokens": "4"}
        return InferenceComparison(
            methods, str(letters.model(tmp_path)), str(file), tmp_path / "out", changes=settings, **more
        )

    said: list[str] = []
    first = compare_inference(
        comparison("greedy", "majority:n=2,4", "beam:width=2,branch=2", problems=5), said.append
    )
    assert [arm["name"] for arm in first["arms"]] == [
        "greedy",
        "majority:n=2",
        "majority:n=4",
        "beam:width=2,branch=2",
    ]
    assert first["arms"][0]["flops"] < first["arms"][1]["flops"] < first["arms"][2]["flops"]
    assert len(said) == 4
    again = compare_inference(
        comparison("greedy", "majority:n=2,4", "beam:width=2,branch=2", problems=5), said.append
    )
    assert len(said) == 4, "what was found is kept"
    assert again["arms"] == first["arms"]
    assert "majority:n=4" in screen(first)
    with pytest.raises(UserError, match="holds another comparison"):
        compare_inference(comparison("greedy", "majority:n=2", problems=5), said.append)
    with pytest.raises(UserError, match="two methods"):
        compare_inference(comparison("greedy"), said.append)
    page = comparison_data(tmp_path / "out")
    run = page["results"]["arms"][3]["runs"][0]
    (tree, *_) = [row["notes"]["search"] for row in page["runs"][run]["episodes"]["rows"]]
    assert any(node.get("chosen") for node in tree["nodes"])
    assert all(node["parent"] is None or node["parent"] < i for i, node in enumerate(tree["nodes"]))


def test_training_learns_from_what_a_method_answered(tmp_path: Path) -> None:
    run = start(
        letters.plan(tmp_path, "majority", 2, rollout__n=3, run__eval_problems=0),
        tmp_path / "run",
        letters.words(),
    )
    train(run)
    run.close()
    metrics = RunDirectory.open(tmp_path / "run").metrics()
    assert metrics[-1]["tokens/generated"] >= 2 * 3
    assert metrics[-1]["tokens/trained"] > 0


def test_the_checker_is_asked_once_about_the_answer() -> None:
    asked: list[str] = []

    def check(answer: str) -> Verdict:
        asked.append(answer)
        return Verdict(1.0, True)

    from etude.assembly import build

    _, stages = build(catalogue()["majority"], {"rollout.n": 4})
    toys.play(stages, toys.TablePolicy(), [toys.task(0, check)], samples=1)
    assert len(asked) == 1


def test_a_method_answers_a_conversation(tmp_path: Path) -> None:
    """Behind `ask` and `serve`, where nobody knows what is right: the answer and what it cost; oracles are refused."""
    from etude.serve.methods import answer, usable
    from etude.serve.replies import Speaker

    speaker = Speaker(Policy.load(str(letters.model(tmp_path)), precision="fp32"))
    said = [Message("user", "abcd")]
    params = SamplingParams(max_tokens=3)
    first = asyncio.run(answer(speaker, usable("majority:n=3"), said, params, 1))
    assert first[1]["models"]["policy"]["calls"] == 3
    assert asyncio.run(answer(Speaker(speaker.policy), usable("majority:n=3"), said, params, 1)) == first
    with pytest.raises(UserError, match="asks the checker"):
        usable("best_of_n:by=verifier")
    with pytest.raises(UserError, match="second model"):
        usable("cascade")


def test_passages_are_found_by_the_words_of_a_question(tmp_path: Path) -> None:
    pytest.importorskip("rank_bm25", reason="skipped: no rank-bm25 here (pip install rank-bm25)")
    from etude.tools.retrieval import corpus_of

    (tmp_path / "a.txt").write_text("The capital of Norway is Oslo.\n\nMadrid has the Prado.")
    (tmp_path / "b.txt").write_text("Rain falls in spring.\n\nSnow falls in winter.")
    corpus = corpus_of(str(tmp_path))
    assert corpus is not None
    assert corpus.best("Where is the Prado?", 1) == ["Madrid has the Prado."]
    assert corpus.best("zebra", 1) == []
    assert corpus_of("") is None
    with pytest.raises(UserError, match="cannot be read"):
        corpus_of(str(tmp_path / "none.txt"))
    found = answered(
        catalogue()["self_ask"],
        " What is the capital of Norway?\n",
        " Oslo",
        settings={"follow_ups": 1, "corpus": str(tmp_path)},
    )
    assert "The capital of Norway is Oslo." in found.asked[1]
