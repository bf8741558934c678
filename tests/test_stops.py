"""Stop strings: a reply ends with the token that completes one, on every engine, in training, when resumed and in use."""

from __future__ import annotations

import asyncio
import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import etude
import worlds_of_letters as letters
from etude import cli
from etude.errors import UserError
from etude.fixtures.given import Letters
from etude.models.policy import Policy
from etude.models.tiny import tiny, tiny_directory
from etude.parsing import unescaped
from etude.rollout.conversation import Conversation, Generator
from etude.sampling.engine import sampler_for
from etude.sampling.native import NativeSampler
from etude.sampling.paged import PagedEngine
from etude.sampling.protocol import Sample
from etude.sampling.scheduler import Scheduler
from etude.scale.place import Place
from etude.text.stream import reached
from etude.train.config import as_text, parse_changes
from etude.train.settings import run_settings
from etude.types import Message, SamplingParams, Task, Verdict
from scripted_engine import Engine, served
from test_resume import facts, same_weights

PLAIN = SamplingParams(max_tokens=24)
ENGINES = {
    "dense": {"precision": "fp32"},
    "paged": {"precision": "bf16"},
    "transformers": {"precision": "fp32", "backbone": "transformers"},
}


def replies(policy: Policy, params: SamplingParams) -> list[Sample]:
    sampler: Scheduler = sampler_for(policy)

    async def all_of_them() -> list[Sample]:
        prompts = [policy.renderer.prompt([Message("user", text)]) for text in ("one", "seven")]
        found = await asyncio.gather(
            *(sampler.sample(prompt, params, key) for prompt in prompts for key in range(4))
        )
        await sampler.close()
        return list(found)

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reply_ends_with_the_token_that_completes_a_stop_string(engine: str) -> None:
    """It is the reply without stop strings, up to there: the same tokens, with the same log-probabilities."""
    policy = tiny(seed=3, **ENGINES[engine])  # type: ignore[arg-type]
    sampler = sampler_for(policy)
    if isinstance(sampler, NativeSampler):
        paged = isinstance(sampler.engine, PagedEngine)
        if engine == "paged" and not paged:
            pytest.skip("this machine has no kernels for the paged engine")
        assert paged == (engine == "paged")
    whole = replies(policy, PLAIN)
    decode = policy.renderer.decode
    texts = [decode(s.tokens) for s in whole]
    stop = next(text for text in texts if len(text) > 8)[4:6]
    ended = 0
    for free, cut in zip(
        whole, replies(policy, SamplingParams(max_tokens=24, stop=(stop, "never"))), strict=True
    ):
        n = reached(decode, free.tokens.tolist(), (stop,)) or len(free.tokens)
        assert cut.tokens.tolist() == free.tokens[:n].tolist()
        assert np.array_equal(cut.logp, free.logp[:n]) or engine == "transformers"
        assert np.allclose(cut.logp, free.logp[:n], atol=1e-5)
        met = stop in decode(cut.tokens)
        assert cut.stop == ("cut" if met else free.stop)
        assert not met or stop not in decode(cut.tokens[:-1])
        ended += met
    assert ended


def test_a_server_is_not_told_of_stop_strings(tmp_path: Path) -> None:
    """What it samples is cut here, to what this process would have sampled; the tokens behind are paid for."""
    directory = letters.model(tmp_path)
    policy, params = Policy.load(directory, "fp32"), SamplingParams(max_tokens=8)
    policy.renderer.decode = Letters().decode  # type: ignore[method-assign]
    asked = [np.array([3 + i % 4, 7, 8, 8 + i % 3], np.int32) for i in range(8)]

    async def sampled(sampler: Any, stop: tuple[str, ...]) -> list[Sample]:
        told = replace(params, stop=stop)
        return list(await asyncio.gather(*(sampler.sample(p, told, i) for i, p in enumerate(asked))))

    with served(Engine(directory)) as (address,):

        async def made() -> Any:
            place = Place.of({"engines": {"address": [address], "patience": 0.0}})
            sampler = await place.sampler(policy, 32, 256)
            await sampler.refresh()
            return sampler

        there = asyncio.run(made())
        free = asyncio.run(sampled(there, ()))
        stop = next(text for s in free if len(text := Letters().decode(s.tokens)) > 4)[2:4]
        before = policy.meter.generated
        found = asyncio.run(sampled(there, (stop,)))
        assert policy.meter.generated - before == sum(len(s.tokens) for s in free)
    here = asyncio.run(sampled(sampler_for(policy), (stop,)))
    assert any(s.stop == "cut" for s in found)
    for a, b in zip(found, here, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        assert np.allclose(a.logp, b.logp, atol=1e-6)
        assert a.stop == b.stop


class Said:
    """A sampler that gives what it is told to, up to the first stop string."""

    def __init__(self, text: str) -> None:
        self.tokens = Letters().encode(text)

    async def sample(self, prompt: Any, params: SamplingParams, key: int) -> Sample:
        n = reached(Letters().decode, self.tokens.tolist(), params.stop)
        tokens = self.tokens[:n]
        return Sample(tokens, np.zeros(len(tokens), np.float32), "cut" if n else "length", 0)


class Turns(Letters):
    """A template that ends every turn with the token 0."""

    def extend(self, messages: Any, new: Any, ended: bool = True, asks: int = 0) -> tuple[Any, bool]:
        return np.array([*([] if ended else [0]), *self.encode(new[-1].content)], np.int32), False


def test_its_tokens_stay_and_its_text_goes() -> None:
    async def talk(text: str) -> Conversation:
        params = SamplingParams(stop=("\n\n",))
        generator = Generator(Said(text), Turns(), params)  # type: ignore[arg-type]
        made = Conversation(Task("?", check=lambda reply: Verdict(0.0, False)), generator, None, 0)  # type: ignore[arg-type]
        made.user("?")
        made.force_prefix(Letters().encode("A\n\n"))
        await made.reply()
        return made

    held = asyncio.run(talk("4\n\nQ: what"))
    assert held.text == "A\n\n4"  # a stop string in what was not sampled ends nothing
    assert Letters().decode(held.spans[-1].tokens) == "4\n\n"
    assert held.stop == "end"
    assert not held.ended
    held.user("more")
    held._render()
    assert held.spans[-1].tokens[0] == 0, "the turn is closed by what follows, as nothing sampled closed it"
    assert asyncio.run(talk("4, Q: what")).stop == "length"


@pytest.mark.parametrize(
    "stops", [["\n\n"], ["a;b", " x "], ["[y]"], ["\\n"], ["\u00e9\t", "\r\n"], [" "], []]
)
def test_a_stop_string_survives_being_written(stops: list[str]) -> None:
    assert run_settings({}, {"stop": as_text(stops)}).stop == tuple(stops)
    words = parse_changes([f"run.stop={as_text(stops)}"])
    assert run_settings({}, {"stop": words["run.stop"]}).stop == tuple(stops)


def test_how_a_stop_string_is_written() -> None:
    assert run_settings({}, {"stop": r"\n\n;Question:"}).stop == ("\n\n", "Question:")
    assert run_settings({}, {"stop": "\n"}).stop == ("\n",)  # from Python, or a plan
    with pytest.raises(UserError, match="holds an empty text"):
        run_settings({}, {"stop": ["a", ""]})
    with pytest.raises(UserError, match="half a character"):
        run_settings({}, {"stop": ["a", "\ud800"]})
    assert unescaped(r"\d\n\x3b") == "\\d\n;"


QUICK = {
    **{"run.precision": "fp32", "run.max_tokens": 16, "run.eval_problems": 2, "run.eval_samples": 1},
    **{"run.tasks_per_step": 2, "run.group_size": 4, "run.preflight": 2, "run.checkpoint_every": 1},
    **{"run.stop": ["\n", "7"], "run.prompt": "Q: {question}\nA:", "run.system": "Add."},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without a chat template, and sums."""
    here = tmp_path_factory.mktemp("base")
    letters = string.digits + "+= QA:?d\n."
    tiny_directory(here / "m", letters, layers=1, width=16, heads=2, kv_heads=1, template=None, context=256)
    rows = [json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) for i in range(20)]
    (here / "t.jsonl").write_text("\n".join(rows))
    return here


def trained(place: Path, steps: int, name: str) -> etude.TrainedRun:
    return etude.train(
        "grpo",
        str(place / "m"),
        str(place / "t.jsonl"),
        steps,
        settings=QUICK,
        out=place / name,
        force=True,
        progress=False,
    )


@pytest.fixture(scope="module")
def run(place: Path) -> etude.TrainedRun:
    return trained(place, 2, "whole")


def test_nothing_behind_a_stop_string_is_trained_on(run: etude.TrainedRun) -> None:
    rows = run.directory.episodes(columns=["tokens", "sampled", "stop"]).to_pylist()
    policy = Policy.load(str(run.model), precision="fp32")
    said = [policy.renderer.decode(np.array(r["tokens"])[np.array(r["sampled"], bool)]) for r in rows]
    assert all("\n" not in text[:-1] and "7" not in text[:-1] for text in said)
    by = [text[-1:] in ("\n", "7") for text in said]
    assert any(by)
    assert all(row["stop"] == "end" for row, met in zip(rows, by, strict=True) if met)


def test_a_resumed_run_stops_at_them_too(place: Path, run: etude.TrainedRun) -> None:
    half = trained(place, 1, "half")
    etude.resume(half, budget="2-steps", progress=False)
    assert same_weights(run.path, half.path)
    assert facts(run.path)[1] == facts(half.path)[1]


def heard(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[tuple[str, tuple[str, ...]]]:
    """The prompts that a command gives to its sampler, and the stop strings at which replies end."""
    found: list[tuple[str, tuple[str, ...]]] = []
    inner = Scheduler.sample

    async def sample(
        self: Scheduler, prompt: Any, params: SamplingParams, key: int, watch: Any = None
    ) -> Sample:
        found.append((self.policy.tokenizer.decode(prompt), params.stop))
        return await inner(self, prompt, params, key, watch)

    monkeypatch.setattr(Scheduler, "sample", sample)
    monkeypatch.chdir(place)
    assert cli.run(list(words)) == 0
    return found


def test_a_models_user_asks_as_its_run_did(
    place: Path, run: etude.TrainedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "Add.\nQ: 3+4=\nA:"
    known = "".join(c for c in asked if c in string.digits + "+= QA:?d\n.")
    assert cli.run(["export", str(run.path), "--to", str(place / "out")]) == 0
    for where in (str(run.path), str(run.model), str(place / "out")):
        (prompt, stops), *more = heard(place, monkeypatch, "sample", where, "3+4=", "--max-tokens", "4")
        assert prompt == known
        assert stops == ("\n", "7")
        assert not more
        ((prompt, _),) = heard(place, monkeypatch, "ask", where, "3+4=", "--max-tokens", "4")
        assert prompt == known
        ((prompt, _),) = heard(place, monkeypatch, "ask", where, "3+4=", "--max-tokens", "4", "--plain")
        assert prompt == "3+4="
    answers = [a for a in capsys.readouterr().out.splitlines() if a]
    assert answers
    with_run = heard(
        place, monkeypatch, "eval", str(place / "out"), "-t", "t.jsonl", "--problems", "1", "-k", "1"
    )
    assert with_run[0][0].startswith(known[:6])
    assert with_run[0][1] == ("\n", "7")


def test_the_system_message_of_all_tasks_is_asked_with(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRL's conversational prompts bring their own; a model that never heard a question without it is not asked so."""
    rows = [
        {"prompt": [{"role": "system", "content": "QA"}, {"role": "user", "content": f"{i}+1="}], "answer": i}
        for i in range(9)
    ]
    (place / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {**QUICK, "run.system": "", "run.prompt": ""}
    given: dict[str, Any] = {"settings": settings, "force": True, "progress": False}
    run = etude.train("grpo", str(place / "m"), str(place / "own.jsonl"), 1, out=place / "own", **given)
    run.save(place / "own-model")
    for where in (str(run.path), str(place / "own-model")):
        ((prompt, _),) = heard(place, monkeypatch, "ask", where, "3+4=", "--max-tokens", "4")
        assert prompt == "QA\n3+4="
        ((prompt, _),) = heard(place, monkeypatch, "ask", where, "3+4=", "--max-tokens", "4", "--plain")
        assert prompt == "3+4="
        told = heard(place, monkeypatch, "eval", where, "-t", "t.jsonl", "--problems", "1", "-k", "1")
        assert not told[0][0].startswith("QA"), "an examination leaves it to the tasks"


def test_what_lies_in_a_models_directory_is_checked(
    place: Path, run: etude.TrainedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run.save(place / "edited")
    (place / "edited" / "etude.json").write_text('{"examples": [1]}')
    assert cli.run(["sample", str(place / "edited"), "3"]) == 2
    assert "does not say how the model was asked" in capsys.readouterr().err
