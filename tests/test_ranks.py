"""Models that two processes share: the numbers of a process alone, checkpoints of parts, a rank that ends."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import worlds_of_letters as letters
from etude.assembly import build
from etude.batch import Batch
from etude.methods import find
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from etude.objective.terms import Objective
from etude.scale import mirrored
from etude.scale.place import Place
from etude.scale.ranks import Held, RankLost, Ranks
from etude.train.loop import train
from etude.train.measure import checkpoint_policy
from etude.train.reopen import resume
from etude.train.run import Run
from etude.train.setup import start
from scripted_engine import Engine, served
from test_packed import uneven
from two_ranks import forget, same_as_alone, two_ranks

# of every kind one: heads, a frozen model, groups as a unit, the whole batch as one, trained companions, hidden states,
# gradients as credit, a model that follows, corrupted inputs
SAMPLE = ("grpo", "ppo", "score", "dpo", "carft", "spa_rl", "otr", "dynamic_rewards", "t1", "masked_thought")
SMALL = {
    "run__tasks_per_step": 3,
    "run__group_size": 4,
    "run__eval_problems": 0,
    "run__checkpoint_every": 2,
    "run__micro_tokens": 16,
    "run__backbone": "transformers",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    place = tmp_path_factory.mktemp("models")
    first, second = (str(tiny_directory(place / f"m{s}", width=32, seed=s)) for s in (1, 2))
    return first, second


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with two_ranks() as group:
        yield group


class Lent(Place):
    """A place with ranks that stay when the run is over."""

    async def close(self) -> None:
        assert self.ranks is not None
        self.ranks.everywhere(forget)
        ranks, self.ranks = self.ranks, None
        await super().close()
        self.ranks = ranks


def lent(ranks: Ranks) -> Place:
    place = Place.of({"trainer": {"ranks": 2}})
    return Lent(place.engines, place.trainer, ranks)


@pytest.mark.parametrize("recipe", SAMPLE)
def test_two_ranks_train_as_one_process(recipe: str, models: tuple[str, str], ranks: Ranks) -> None:
    same_as_alone(recipe, *models, ranks)


def test_adapters_are_shared_too(models: tuple[str, str], ranks: Ranks) -> None:
    how: dict[str, Any] = {"precision": "fp32", "lora_rank": 2, "heads": {"value": 1}}
    alone = Policy.load(models[0], backbone="transformers", **how)
    shared = mirrored.load(ranks, "adapted", models[0], **how)
    with torch.no_grad():  # adapters are 0 at first
        state = alone.state_dict()
        for name, tensor in state["weights"].items():
            tensor += 0.02 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
    alone.load_state_dict(state)
    shared.load_state_dict(state)
    for mine, theirs in ((alone, shared), (alone.clone(), shared.clone())):
        a, b = (p.score(uneven(), frozenset({"entropy", "hidden"})) for p in (mine, theirs))
        for x, y in (
            (a.logp, b.logp),
            (a.entropy, b.entropy),
            (a.hidden, b.hidden),
            (a.heads["value"], b.heads["value"]),
        ):
            assert x is not None
            assert y is not None
            assert torch.allclose(x, y, atol=1e-5)
        rows = uneven().needed
        assert torch.allclose(a.logits(rows), b.logits(rows), atol=1e-5)
    merged, other = dict(alone.backbone.export()), dict(shared.backbone.export())
    assert merged.keys() == other.keys()
    assert all(torch.allclose(merged[n], other[n], atol=1e-6) for n in merged)
    ranks.everywhere(forget)


def test_bfloat16_rounds_what_computes_and_not_what_is_kept(models: tuple[str, str], ranks: Ranks) -> None:
    alone = Policy.load(models[0], "bf16", backbone="transformers")
    shared = mirrored.load(ranks, "rounded", models[0], precision="bf16")
    assert {p.dtype for _, p in shared.parameters()} == {torch.float32}
    gap = (alone.score(uneven()).logp - shared.score(uneven()).logp).abs().max()
    assert gap < 0.03
    assert torch.equal(alone.score(uneven()).logp, alone.score(uneven()).logp)
    ranks.everywhere(forget)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in run.learner.policy.state_dict()["weights"].items()}


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[n] - b[n]).abs().max()) for n in a)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, ranks: Ranks
) -> tuple[Path, dict[str, dict[str, torch.Tensor]]]:
    """Runs of four steps by two ranks and by one process; their weights."""
    place, found = tmp_path_factory.mktemp("runs"), {}
    plan = letters.plan(place, "ppo", 4, **SMALL)
    for name, where in (("two", lent(ranks)), ("one", None)):
        run = start(plan, place / name, letters.words(), place=where)
        train(run)
        found[name] = weights(run)
        run.close()
    return place, found


def again(run: Path, place: Path, name: str) -> Path:
    """The run as it was after its second step."""
    copy = place / name
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "step-000004")
    return copy


def test_a_run_by_two_ranks_is_that_of_one_process(trained: Any) -> None:
    assert apart(trained[1]["one"], trained[1]["two"]) < 1e-5


def test_two_ranks_resume_to_the_last_bit(trained: Any, ranks: Ranks) -> None:
    place, found = trained
    run, said = resume(again(place / "two", place, "two-two"), letters.words(), place=lent(ranks))
    assert not said
    train(run)
    assert apart(weights(run), found["two"]) == 0
    run.close()


def test_engines_sample_what_ranks_train(trained: Any, ranks: Ranks, tmp_path: Path) -> None:
    """The parts of the weights are put together for the servers, at every step."""
    place, found = trained
    plan = letters.plan(place, "ppo", 4, **SMALL)
    engine = Engine(plan.model)
    with served(engine) as (address,):
        where = Place.of({"engines": {"address": [address]}, "trainer": {"ranks": 2}})
        run = start(plan, tmp_path / "run", letters.words(), place=Lent(where.engines, where.trainer, ranks))
        train(run)
        assert apart(weights(run), found["one"]) < 1e-5
        run.close()
    versions = {label for label, _ in engine.sampled if label != "default"}
    assert len(versions) == 4, versions


def test_another_number_of_ranks_resumes_and_says_so(trained: Any, ranks: Ranks) -> None:
    place, found = trained
    one = Place.of({"trainer": {"ranks": 1}})
    for name, where, was, now in (("two", one, 2, 1), ("one", lent(ranks), 1, 2)):
        run, said = resume(again(place / name, place, f"{was}-{now}"), letters.words(), place=where)
        assert any(f"ranks was '{was}', is '{now}'" in sentence for sentence in said)
        train(run)
        assert apart(weights(run), found["two"]) < 1e-5
        run.close()


def test_the_model_of_a_run_by_ranks_is_read_by_a_process_alone(trained: Any) -> None:
    place, found = trained
    step, policy = checkpoint_policy(place / "two")
    assert step == 4
    assert apart({n: p.detach() for n, p in policy.parameters()}, found["two"]) == 0


def test_shards_that_were_cut_off_are_passed_over(trained: Any, ranks: Ranks) -> None:
    place, _ = trained
    files = [p for p in (place / "two" / "checkpoints" / "step-000004").rglob("*") if p.is_file()]
    assert len(files) == 5  # one of each rank, what lies where, the run's own, and the list of all
    for number, file in enumerate(f for f in files if f.name != "manifest.json"):
        copy = place / f"cut{number}"
        shutil.copytree(place / "two", copy)
        damaged = copy / file.relative_to(place / "two")
        damaged.write_bytes(damaged.read_bytes()[: -1 - number * 7])
        run, said = resume(copy, letters.words(), place=lent(ranks))
        assert any("is damaged and was passed over" in sentence for sentence in said)
        assert run.context.step == 2
        run.close()


METHOD = """
from etude import Recipe, stage
from etude.objective.terms import Term, objective, per_token

def loss(out, batch):
    return -batch.advantage * out.logp

def own_loss():
    return objective(Term("mine", loss, per_token))

RECIPE = Recipe(name="mine", stages={"objective": stage(own_loss)}, idea="One. Two.", equation="x")
"""


def losses(held: Held, whole: Objective) -> list[str]:
    return [term.loss.__name__ for term in whole.terms]


def test_a_method_in_a_file_reaches_the_ranks(ranks: Ranks, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD, encoding="utf-8")
    _, stages = build(find(str(tmp_path / "mine.py")))
    assert ranks.everywhere(losses, stages["objective"]) == [["loss"], ["loss"]]


def test_pieces_are_dealt_by_their_size() -> None:
    class Piece(list[int]):
        pass

    pieces: list[Any] = [Piece(range(n)) for n in (5, 9, 1, 4)]
    assert mirrored.dealt(pieces, 2) == [[1], [0, 2, 3]] or mirrored.dealt(pieces, 2) == [[1, 2], [0, 3]]
    assert mirrored.dealt(pieces[:1], 3) == [[0], [], []]
    assert isinstance(mirrored.idle(), Batch)


def test_a_rank_that_is_killed_ends_the_run_in_a_sentence(ranks: Ranks) -> None:
    """The last test here: the group is gone afterwards."""
    process = ranks._processes[0]
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(
        RankLost, match="trainer rank 1 was ended by SIGKILL while it was to forget; the run is whole"
    ) as caught:
        ranks.everywhere(forget)
    assert "\n" not in str(caught.value)
    with pytest.raises(RankLost, match="was ended by SIGKILL"):
        ranks.everywhere(forget)
    assert process.poll() is not None
    assert not torch.distributed.is_initialized()
