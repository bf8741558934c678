"""Step boundaries, and branches from a prefix."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import toys
from etude.assembly import build
from etude.methods import find
from etude.methods.process_credit.pav import continuations
from etude.models.tiny import tiny_directory
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.probe import step_cuts, step_index, text_ends
from etude.text import tokenizer as tokenizers
from etude.types import Episode, Request, Span, Verdict
from lessons import right_if, scripted, setting


def test_characters_are_found_in_tokens_of_any_size(tmp_path: Path) -> None:
    words = ["hello", "he", "llo", *"abcdefgh \n.,"]
    known = tokenizers.read(tiny_directory(tmp_path / "m", words))
    tokens = np.array([known.backend.token_to_id(w) for w in ("he", "llo", " ", "hello", "\n", "a", "<end>")])
    assert text_ends(known, tokens).tolist() == [2, 5, 6, 11, 12, 13, 13]


def test_a_character_of_two_tokens_belongs_to_the_last() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    known = tokenizers.Tokenizer(backend, {}, None, (), {})
    assert text_ends(known, known.encode("aéb\n")).tolist() == [1, 1, 2, 3, 4]


def answer(text: str) -> Episode:
    tokens = toys.tokenizer().encode(text)
    prompt = Span("user", np.array([3, 4], np.int32), tag="prompt")
    spoken = Span("assistant", tokens, True, np.full(len(tokens), -1.0, np.float32), tag="attempt")
    return Episode(toys.task(), (prompt, spoken))


def test_steps_end_at_separators_and_not_at_the_end() -> None:
    known = toys.tokenizer()
    assert step_cuts(known, answer("ab\nc\n\nd\n"), "\n", 9) == [2 + 3, 2 + 6]
    assert step_cuts(known, answer("ab"), "\n", 9) == []
    assert step_cuts(known, answer("a;;b;;c"), ";;", 9) == [2 + 3, 2 + 6]
    assert step_cuts(known, answer("abcd"), "", 9) == [3, 4, 5]
    assert step_cuts(known, answer("abcdefgh"), "", 3) == [3, 9], "at most three steps"
    assert step_cuts(known, answer("abcdefgh"), "", 1) == []
    assert step_index(answer("ab\nc"), [5]).tolist() == [0, 0, 0, 0, 0, 1]


def test_a_probe_goes_on_from_the_prefix_and_is_judged_with_it() -> None:
    stages, *_ = setting("pav", {"group_rollout.probes": 2})
    task = toys.task(0, right_if("a\nbc", "a\nd"))
    group, sampler = scripted(stages, ["a\nd", "bc", "x"], task)
    (episode,) = group.episodes
    assert episode.notes["continued"] == [[1.0, 0.0]]
    assert episode.notes["cuts"] == [len(episode.spans[0]) + 2]
    asked = [toys.tokenizer().decode(a[len(episode.spans[0]) :]) for a in sampler.asked[1:]]
    assert asked == ["a\n", "a\n"]
    assert [s.tag for s in episode.spans] == ["prompt", "attempt"], "probes are not part of the episode"


def test_the_value_of_a_prefix_is_its_chance_of_success() -> None:
    """Against the exact probability that a table policy's next token is right."""
    policy = toys.TablePolicy(scale=2.0)
    stages = build(find("pav"))[1]
    episode = answer("ab")
    start = len(episode.tokens) - 1
    row = policy.logits(torch.tensor([int(episode.tokens[start - 1])]), torch.tensor([start]))[0]
    best = int(row.argmax())
    letter = toys.tokenizer().decode([best])
    check = right_if("a" + letter)
    speaker = toys.generator(policy, toys.TableSampler(policy, longest=1))
    parts = (stages["rollout"], stages["reward"], 5)
    rollouts = GroupRollout(
        replace(episode.task, check=check), Request(), 1, speaker, toys.check_runner, *parts
    )
    found = np.mean(asyncio.run(continuations(rollouts, episode, start, 2000)))
    exact = float(torch.softmax(row, -1)[best].detach())
    assert 0.05 < exact < 0.95
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 2000))


def test_a_check_that_breaks_on_a_probe_fails_the_episode_and_not_the_run() -> None:
    def fragile(text: str) -> Verdict:
        if text == "a\nx":
            raise ValueError("the checker fell over")
        return Verdict(1.0, True)

    async def check_runner(task, text):
        from etude.rollout.conversation import Failed

        try:
            return task.check(text)
        except ValueError as error:
            raise Failed("check", error) from error

    stages, *_ = setting("pav", {"group_rollout.probes": 1})
    sampler = toys.ScriptedSampler(replies=["a\nb", "a\nb", "c", "x"])
    speaker = toys.generator(sampler.policy, sampler, max_tokens=64)
    parts = (stages["rollout"], stages["reward"], 5)
    rollouts = GroupRollout(toys.task(0, fragile), Request(), 2, speaker, check_runner, *parts)
    group = asyncio.run(rollouts.group(stages["group_rollout"]))
    assert [len(group.episodes), len(group.failed)] == [1, 1]
    assert group.failed[0].failure.where == "check"
