"""Sampling by servers: the same episodes as in this process, lost requests, new weights, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import worlds_of_letters as letters
from etude import seeds
from etude.assembly import build
from etude.errors import Refused, UserError
from etude.methods import catalogue
from etude.models.policy import Policy
from etude.models.tiny import LETTERS, tiny_directory
from etude.report.run import RunDirectory
from etude.rollout.conversation import Conversation, Generator
from etude.sampling.engine import sampler_for
from etude.sampling.protocol import Unanswered
from etude.scale.fleet import Fleet
from etude.scale.place import Place
from etude.scale.sampler import EngineSampler
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start
from etude.types import Request, SamplingParams
from recipes_apart import apart
from scripted_engine import Engine, served

NEWER = "grpo"  # also plays with weights that are not the first
SMALL = {"run__tasks_per_step": 3, "run__oversample": 2, "run__group_size": 3, "run__eval_problems": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return letters.model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engine(model: str) -> Iterator[tuple[Engine, str]]:
    made = Engine(model)
    with served(made) as (address,):
        yield made, address


def place_of(*addresses: str, **more: Any) -> Place:
    return Place.of({"engines": {"address": list(addresses), "patience": 0.0, **more}})


def sampler_on(policy: Policy, *addresses: str, context: int = 256, **more: Any) -> EngineSampler:
    """A sampler whose servers were inspected and given the policy's weights."""

    async def made() -> EngineSampler:
        sampler = await place_of(*addresses, **more).sampler(policy, 32, context)
        assert isinstance(sampler, EngineSampler)
        await sampler.refresh()
        return sampler

    return asyncio.run(made())


def prompts(policy: Policy, n: int) -> list[np.ndarray]:
    return [np.array([3 + i % 4, 7, 8, 8 + i % 3], np.int32) for i in range(n)]


PARAMS = (
    SamplingParams(max_tokens=6),
    SamplingParams(0.7, max_tokens=6),
    SamplingParams(1.3, top_k=4, max_tokens=6),
    SamplingParams(top_p=0.8, max_tokens=6),
    SamplingParams(greedy=True, max_tokens=6),
)


@pytest.mark.parametrize("params", PARAMS)
def test_replies_are_those_of_this_process(
    model: str, engine: tuple[Engine, str], params: SamplingParams
) -> None:
    policy = Policy.load(model, "fp32")
    there, here = sampler_on(policy, engine[1]), sampler_for(policy)

    async def all_of(sampler: Any) -> list[Any]:
        work = (sampler.sample(p, params, seeds.key("t", i)) for i, p in enumerate(prompts(policy, 6)))
        return await asyncio.gather(*work)

    for a, b in zip(asyncio.run(all_of(there)), asyncio.run(all_of(here)), strict=True):
        assert np.array_equal(a.tokens, b.tokens)
        assert np.allclose(a.logp, b.logp, atol=1e-6)
        assert (a.stop, a.version) == (b.stop, b.version)


def episodes(path: Path) -> list[dict[str, Any]]:
    columns = ["step", "tokens", "logp", "advantage", "reward"]
    return RunDirectory.open(path).episodes(columns=columns).to_pylist()


@pytest.mark.parametrize("recipe", apart("rollout", "group_rollout", always=[NEWER]))
def test_every_recipe_plays_through_a_server_as_it_does_here(recipe: str, tmp_path: Path, model: str) -> None:
    more: dict[str, object] = dict(SMALL)
    if "teacher" in catalogue()[recipe].all_needs:
        more["run__teacher"] = letters.model(tmp_path / "teacher", seed=2)
    # What new weights are to a server is nothing that a recipe has a say in.
    steps = 2 if recipe == NEWER else 1
    settings = letters.plan(tmp_path, recipe, steps, **more)
    made = Engine(settings.model)
    with served(made) as (address,):
        if why := [
            s.in_process for s in build(catalogue()[recipe])[1].values() if getattr(s, "in_process", "")
        ]:
            with pytest.raises(Refused, match=f"{recipe} {why[0]}; sample in this process"):
                start(settings, tmp_path / "there", letters.words(), place=place_of(address))
            return
        for name, place in (("here", None), ("there", place_of(address))):
            run = start(settings, tmp_path / name, letters.words(), place=place)
            train(run)
            run.close()
    assert episodes(tmp_path / "there") == episodes(tmp_path / "here")
    config = RunDirectory.open(tmp_path / "there").config
    assert config["placement"]["engines"]["address"] == [address]
    labels = {label for label, _ in made.sampled if label != "default"}
    assert all(label.partition(".")[2].startswith("1.") for label in labels)


def test_a_lost_request_is_asked_again_elsewhere(model: str) -> None:
    policy, first, second = Policy.load(model, "fp32"), Engine(model), Engine(model)
    with served(first, second) as addresses:
        sampler = sampler_on(policy, *addresses)
        wanted = asyncio.run(sampler.sample(prompts(policy, 1)[0], PARAMS[0], 2))
        first.failing = 1
        again = asyncio.run(sampler.sample(prompts(policy, 1)[0], PARAMS[0], 2))
        assert np.array_equal(again.tokens, wanted.tokens)  # the same seed
        assert [m.ready for m in sampler.fleet.members] == [False, True]
        asyncio.run(sampler.refresh())  # it is well: it comes back, with its weights checked
        assert [m.ready for m in sampler.fleet.members] == [True, True]
        second.dropping = 1
        third = asyncio.run(sampler.sample(prompts(policy, 1)[0], PARAMS[0], 3))
        assert len(third.tokens)
        assert [m.ready for m in sampler.fleet.members] == [True, False]


def test_a_request_that_nobody_answers_is_a_failure_of_the_episode(model: str) -> None:
    policy, engine = Policy.load(model, "fp32"), Engine(model)
    with served(engine) as (address,):
        sampler = sampler_on(policy, address)
    with pytest.raises(Unanswered, match=r"asked 3 times.*127\.0\.0\.1"):
        asyncio.run(sampler.sample(prompts(policy, 1)[0], PARAMS[0], 2))
    generator = Generator(sampler, policy.renderer, PARAMS[0])
    task = letters.words().draw(Request(), 0, 0)
    talk = Conversation(task, generator, None, 1)  # type: ignore[arg-type]
    talk.user("abcd")
    with pytest.raises(Exception, match="asked 3 times") as caught:
        asyncio.run(talk.reply())
    assert caught.value.failure.where == "sampler"  # type: ignore[attr-defined]


def test_a_run_without_engines_left_ends_in_a_sentence_and_resumes(tmp_path: Path) -> None:
    settings = letters.plan(tmp_path, "grpo", 3, run__checkpoint_every=1, **SMALL)
    engine = Engine(settings.model)
    with served(engine) as (address,):
        run = start(settings, tmp_path / "run", letters.words(), place=place_of(address))
        run.checkpoint()

        def stop(step: int, metrics: dict[str, Any]) -> None:
            engine.failing = 1 << 20

        run.on_step = stop
        with pytest.raises((Refused, UserError), match=r"no engine can be sampled from|in sampler") as caught:
            train(run)
        assert "\n" not in str(caught.value).partition("Traceback")[0].strip()
        run.close()
        engine.failing = 0
        whole = start(settings, tmp_path / "whole", letters.words(), place=place_of(address))
        train(whole)
        whole.close()
        again, warnings = resume(tmp_path / "run", letters.words())
        assert not warnings
        train(again)
        again.close()
    assert episodes(tmp_path / "run") == episodes(tmp_path / "whole")


def fault(engine: Engine, name: str) -> None:
    values = {"version": "0.31.1", "longest": 100, "private": False, "tokens": False}
    setattr(engine, name, values.get(name, True))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("version", "is vLLM 0.31.1; tested is 0.32"),
        ("private", "VLLM_SERVER_DEV_MODE=1"),
        ("tokens", "--enable-scale-out"),
        ("longest", "--max-model-len 256"),
        ("raw", "--logprobs-mode processed_logprobs"),
        ("deaf", "does not heed the seed"),
    ],
)
def test_a_server_that_cannot_give_what_training_needs_is_refused(model: str, name: str, words: str) -> None:
    policy, engine = Policy.load(model, "fp32"), Engine(model)
    fault(engine, name)
    with served(engine) as (address,), pytest.raises(UserError, match=words) as caught:
        sampler_on(policy, address)
    assert "\n" not in str(caught.value)
    assert address in str(caught.value)


@pytest.mark.parametrize("words", ["smaller", "larger"])
def test_another_vocabulary_is_refused(words: str, model: str, tmp_path: Path) -> None:
    large = str(tiny_directory(tmp_path / "large", LETTERS))
    ours, served_one = (large, model) if words == "smaller" else (model, large)
    policy, engine = Policy.load(ours, "fp32"), Engine(served_one)
    with served(engine) as (address,), pytest.raises(UserError, match=f"has a {words} vocabulary"):
        sampler_on(policy, address)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("garbled", "other log-probabilities than the trainer"),
        ("stale", "still computes with the weights that it had before"),
        ("keeps", "did not forget"),
    ],
)
def test_weights_that_did_not_arrive_are_noticed(model: str, name: str, words: str) -> None:
    policy, good, bad = Policy.load(model, "fp32"), Engine(model), Engine(model)
    with served(good, bad) as addresses:
        sampler = sampler_on(policy, *addresses)
        fault(bad, name)
        for _, p in policy.parameters():
            p.data.mul_(1.01)
        policy.publish()
        asyncio.run(sampler.refresh())
        assert [m.ready for m in sampler.fleet.members] == [True, False]
        before = len(bad.sampled)
        for key in range(4):
            assert asyncio.run(sampler.sample(prompts(policy, 1)[0], PARAMS[0], key)).version == 1
        assert len(bad.sampled) == before  # never sampled from
        fault(good, name)
        for _, p in policy.parameters():
            p.data.mul_(1.01)
        policy.publish()
        with pytest.raises(UserError, match=words) as caught:
            asyncio.run(sampler.refresh())
        assert "\n" not in str(caught.value)


def test_a_reply_of_other_weights_is_not_used(model: str) -> None:
    policy, engine = Policy.load(model, "fp32"), Engine(model)
    with served(engine) as (address,):
        sampler = sampler_on(policy, address)
        engine.mislabels = True
        with pytest.raises(Unanswered, match=r"sampled with the weights \['old'\]"):
            asyncio.run(sampler.sample(prompts(policy, 1)[0], PARAMS[0], 2))


def test_every_wait_has_a_deadline_and_says_for_whom(model: str) -> None:
    policy, engine = Policy.load(model, "fp32"), Engine(model)
    with served(engine) as (address,):
        sampler = sampler_on(policy, address, deadline=0.5)
        engine.slow = 0.8
        policy.publish()
        with pytest.raises(UserError, match=rf"{address} did not finish what it samples within 0.5 s"):
            asyncio.run(sampler.refresh())
        engine.slow = 0.0


def test_the_key_is_sent_and_needed(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, engine = Policy.load(model, "fp32"), Engine(model, key="hush")
    with served(engine) as (address,):
        with pytest.raises(UserError, match="401"):
            sampler_on(policy, address)
        with pytest.raises(UserError, match="variable ENGINE_KEY, which holds the engines' key, is not set"):
            sampler_on(policy, address, key="ENGINE_KEY")
        monkeypatch.setenv("ENGINE_KEY", "hush")
        assert isinstance(sampler_on(policy, address, key="ENGINE_KEY").fleet, Fleet)


def test_weights_leave_nothing_behind(model: str, tmp_path: Path) -> None:
    policy, engine = Policy.load(model, "fp32"), Engine(model)

    async def work(address: str) -> list[int]:
        place, kept = place_of(address, weights=str(tmp_path / "shared")), []
        sampler = await place.sampler(policy, 8, 256)
        for _ in range(4):
            await sampler.refresh()
            kept.append(len(list(next((tmp_path / "shared").iterdir()).iterdir())))
            policy.publish()
        await place.close()
        return kept

    with served(engine) as (address,):
        assert max(asyncio.run(work(address))) == 2
    assert list((tmp_path / "shared").iterdir()) == []
