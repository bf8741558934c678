"""Credit finer than the answer: probes, companions and critics, each against its own formula."""

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import test_resume as resumed
import toys
import worlds_of_letters as letters
from etude import seeds
from etude.batch import pack
from etude.credit.group import advantage, constant
from etude.methods import build, find
from etude.methods.preference.t_reg import contrasted_pairs, regularised
from etude.methods.process_credit.pav import prover_progress, value
from etude.methods.process_credit.prime import implicit_outcome, process_advantages, to_go
from etude.methods.process_credit.spa_rl import estimate_progress, executable, turn_ends
from etude.methods.process_credit.spae import accuracy, potential
from etude.methods.process_credit.text2grad import against_reference, read_critique, token_marks
from etude.models.tiny import tiny_directory
from etude.objective.preference import implicit_rewards, pairs_of
from etude.rollout.basic import retry
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.intervene import first_departure, read_proposal
from etude.rollout.probe import step_cuts, step_index, text_ends
from etude.tasks import TaskSet
from etude.testing import laws
from etude.testing.examples import example_episode
from etude.text import tokenizer as tokenizers
from etude.train.step import Learner, Update
from etude.types import Episode, Group, Message, Request, Signal, Span, Task, Verdict
from test_recipes_sft_rl import laws_hold


def setting(name: str, settings: dict | None = None, lr: float = 1e-3, **stages):
    """A recipe's stages, its context with trained companions (copies of the policy), and the groups it gathers."""
    recipe, built = build(find(name), settings or {})
    built |= stages
    policy = toys.TablePolicy(0, dict(built["objective"].heads))
    where = toys.context(policy)
    for other, companion in recipe.all_auxiliary.items():
        if companion.source == "copy":
            copy = toys.TablePolicy(0, dict(companion.heads))
            where.auxiliary[other] = Learner(copy, Update(lr=lr, head_lr=lr, max_norm=0), other)
    return built, where, toys.play(built, policy, [toys.task(i) for i in range(4)])


def trained(episode: Episode, row: np.ndarray) -> np.ndarray:
    return row[episode.sampled]


def scripted(stages, replies: list[str], task: Task | None = None, samples: int = 1) -> tuple[Group, object]:
    """What `gather` collects where the sampler says `replies` in order, and the sampler."""
    sampler = toys.ScriptedSampler(replies=list(replies))
    speaker = toys.generator(sampler.policy, sampler, max_tokens=64)
    parts = (stages["rollout"], stages["reward"], seeds.key("toy"))
    rollouts = GroupRollout(task or toys.task(), Request(), samples, speaker, toys.check_runner, *parts)
    return asyncio.run(rollouts.group(stages["group_rollout"])), sampler


def right_if(*answers: str):
    return lambda text: Verdict(float(text in answers), text in answers)


SHORT = {"credit.better": "good", "credit.worse": "bad"}  # the toy policy knows only its first 64 places
EACH_TOKEN = {"group_rollout.separator": ""}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("t_reg", SHORT),
        ("pav", EACH_TOKEN),
        ("spae", EACH_TOKEN),
        ("intervention", {"group_rollout.proposer": "reference", **EACH_TOKEN}),
    ],
)
def test_laws_hold_where_steps_are_short(name: str, settings: dict) -> None:
    laws_hold(name, settings)


# ---- from text back to tokens -----------------------------------------------------------------------------


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
    assert episode.notes["q"] == [0.5]
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
    found = asyncio.run(value(rollouts, episode, start, 2000))
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


# ---- PAV -------------------------------------------------------------------------------------------------


def test_progress_by_hand() -> None:
    stages, where, groups = setting(
        "pav", {"group_rollout.separator": "", "credit.alpha": 2.0, "credit.best_of": 3}
    )
    for signal, (group, episode) in zip(
        stages["credit"](groups, where), [(g, e) for g in groups for e in g.episodes], strict=True
    ):
        q = [group.rewards.mean(), *episode.notes["q"], episode.reward]
        assert len(q) == episode.sampled.sum() + 1, "a step is a token"
        prover = [1 - (1 - x) ** 3 for x in q]
        expected = [episode.reward - q[0] + 2 * (b - a) for a, b in itertools.pairwise(prover)]
        assert np.allclose(trained(episode, signal.advantage), expected, atol=1e-5)


def test_a_policy_that_proves_for_itself_only_scales_its_gradient() -> None:
    """Two binary steps, exact values: E[sum_h grad log pi (R + alpha A_pi)] = (1 + alpha) E[... R]; not so for
    best-of-4."""
    theta = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    reward = {(0, 0): 1.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 1.0}

    def logp(state: int, action: int) -> torch.Tensor:
        return torch.nn.functional.logsigmoid(theta[state] if action else -theta[state])

    def gradient(alpha: float, best_of: int) -> torch.Tensor:
        p = {(s, a): float(logp(s, a).exp().detach()) for s in range(3) for a in (0, 1)}
        q = {a: sum(p[1 + a, b] * reward[a, b] for b in (0, 1)) for a in (0, 1)}
        start = sum(p[0, a] * q[a] for a in (0, 1))
        total = torch.zeros(3, dtype=torch.float64)
        for a, b in reward:
            progress = prover_progress(np.array([start, q[a], reward[a, b]]), best_of)
            for step, (state, action) in enumerate(((0, a), (1 + a, b))):
                (slope,) = torch.autograd.grad(logp(state, action), theta)
                total += p[0, a] * p[1 + a, b] * slope * (reward[a, b] + alpha * progress[step])
        return total

    assert laws.close(gradient(3.0, 1), 4 * gradient(0.0, 1))
    assert not laws.close(gradient(3.0, 4), 4 * gradient(0.0, 1), 0.05)


# ---- SPAE ------------------------------------------------------------------------------------------------


def test_without_its_terms_spae_is_reinforce_plus_plus_with_a_group_baseline() -> None:
    stages, where, groups = setting(
        "spae", {"credit.xi": 0, "credit.alpha": 0, "group_rollout.separator": ""}
    )
    mixed = stages["filter"](groups, where)
    assert all(e.notes["cuts"] for g in mixed for e in g.episodes if e.sampled.sum() > 1)
    ours, theirs = stages["credit"](mixed, where), advantage(scale="whitened")(mixed)
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a.advantage, b.advantage, atol=1e-5)
    assert any(np.abs(s.advantage).max() > 0.1 for s in ours)


def test_spae_by_hand() -> None:
    stages, where, groups = setting(
        "spae", {"group_rollout.separator": "", "credit.whiten": False, "credit.saturated": -0.2}
    )
    mixed = stages["filter"](groups, where)
    episodes = [e for g in mixed for e in g.episodes]
    phis = [
        potential(a, np.array(e.notes["confidence"]))
        for e, a in zip(episodes, accuracy(episodes, where), strict=True)
    ]
    deltas = [[0.0, *np.diff(phi)] if len(phi) else [] for phi in phis]
    flat = np.concatenate(deltas)
    scale = [np.exp((np.array(d) - flat.min()) / np.ptp(flat)) for d in deltas]
    mean = np.concatenate(scale).mean()
    base = [e.reward - g.rewards.mean() for g in mixed for e in g.episodes]
    damped = False
    for signal, r, phi, g in zip(stages["credit"](mixed, where), base, phis, scale, strict=True):
        expected = []
        for k in range(int(signal.episode.sampled.sum())):
            step = min(k, len(phi) - 1)
            before = sum(p > -0.2 for p in phi[: max(step, 0)])
            damped |= before > 0
            f = 1 - 0.5 * (1 - np.exp(-before))
            expected.append(r * f + 0.5 * (g[k] - mean if k < len(phi) else 0.0))
        assert np.allclose(trained(signal.episode, signal.advantage), expected, atol=1e-5)
    assert damped


def test_accuracy_is_the_probability_of_the_gold_answer() -> None:
    _, where, groups = setting("spae", {"group_rollout.separator": "", "group_rollout.ask": "x"})
    episode = next(e for g in groups for e in g.episodes if e.notes.get("cuts"))
    known = toys.tokenizer()
    lead, gold = int(known.encode("x")[0]), int(known.encode("7")[0])
    for cut, found in zip(episode.notes["cuts"], accuracy([episode], where)[0], strict=True):
        row = where.policy.logits(torch.tensor([lead]), torch.tensor([cut + 1]))[0]
        assert found == pytest.approx(float(torch.softmax(row, -1)[gold].detach()), rel=1e-4)


def test_confidence_is_read_from_the_probe() -> None:
    stages, *_ = setting("spae", {"group_rollout.probes": 1, "group_rollout.tokens": 3})
    task = toys.task(0, right_if("a\nb"))
    group, sampler = scripted(stages, ["a\nb", "a\nc", "7", "8"], task, samples=2)
    for episode in group.episodes:
        assert episode.notes["confidence"] == [pytest.approx(np.exp(-1.0))], "log-probability -1 a token"
    asked = toys.tokenizer().decode(sampler.asked[2][len(group.episodes[0].spans[0]) :])
    assert asked == "a\n**Final Answer** boxed", "the toy vocabulary has no braces"
    agreed, _ = scripted(stages, ["a\nb", "a\nb"], task, samples=2)
    assert all("cuts" not in e.notes for e in agreed.episodes), "no probes where nothing would be learned"


# ---- PRIME -----------------------------------------------------------------------------------------------


def test_an_untrained_reward_model_says_nothing() -> None:
    stages, where, groups = setting("prime", {"credit.whiten": False, "credit.outcome": 1})
    where.auxiliary["reference"] = toys.TablePolicy(0)
    signals = stages["credit"](groups, where)

    for a, b in zip(signals, advantage("leave one out")(groups), strict=True):
        assert np.allclose(a.advantage, b.advantage, atol=1e-6)


@pytest.mark.parametrize("unit", ["token", "whole"])
def test_prime_by_hand(unit: str) -> None:
    settings = {"credit.whiten": False, "credit.released": False, "credit.unit": unit, "credit.outcome": 0.5}
    stages, where, groups = setting("prime", settings)
    episodes = [e for g in groups for e in g.episodes]
    plain = [constant(e, 0.0) for e in episodes]
    prm = where.rows(plain, lambda out: out.logp, policy=where.auxiliary["prm"].policy)
    ref = where.rows(plain, lambda out: out.logp, policy=where.auxiliary["reference"])
    q = {id(e): 0.05 * (a - b)[e.sampled] for e, a, b in zip(episodes, prm, ref, strict=True)}
    if unit == "whole":
        q = {k: np.array([0.0] * (len(row) - 1) + [row.sum()]) for k, row in q.items()}
    most = max(abs(row[t:].sum()) for row in q.values() for t in range(len(row)))
    signals = {id(s.episode): s for s in stages["credit"](groups, where)}
    for group in groups:
        for e in group.episodes:
            others = [x for x in group.episodes if x is not e]
            base = np.mean([q[id(x)].mean() for x in others])
            outcome = e.reward - np.mean([x.reward for x in others])
            row = q[id(e)]
            expected = [5 / most * sum(row[t:] - base) + 0.5 * outcome for t in range(len(row))]
            assert np.allclose(trained(e, signals[id(e)].advantage), expected, atol=1e-4)


def test_the_reward_model_learns_outcomes_and_judges_first() -> None:
    found = {}
    for judged, online in itertools.product(("before", "after"), (True, False)):
        settings = {"credit.judged": judged, "credit.online": online, "credit.beta": 0.5}
        stages, where, groups = setting("prime", settings, lr=3e-2)
        where.auxiliary["reference"] = toys.TablePolicy(0)
        steps = [stages["credit"](groups, where) for _ in range(40)]
        plain = [
            replace(s, extras={"outcome": np.full(len(s.advantage), s.episode.reward, np.float32)})
            for s in steps[0]
        ]
        known, loss = where.completed(plain, {"reference"}), implicit_outcome(0.5)
        (term,), batch = loss.terms, pack(known)
        score = where.auxiliary["prm"].policy.score(batch)
        error = float(term.total(score, batch)[0]) / term.count(batch)
        found[judged, online] = (error, np.concatenate([s.advantage for s in steps[0]]))
    assert found["before", False][0] == pytest.approx(np.log(2), abs=1e-5), "frozen: it knows nothing"
    assert found["before", True][0] < 0.3
    assert np.allclose(found["before", True][1], found["before", False][1]), "judged before its own step"
    assert not np.allclose(found["after", True][1], found["after", False][1])


def test_released_baseline_scales_the_distance_to_the_mean_of_means() -> None:
    rows = [np.array([0.3, -0.1, 0.5]), np.array([0.2]), np.array([-0.4, 0.9])]
    mean = np.mean([r.mean() for r in rows])
    for row, found in zip(rows, process_advantages(rows, True), strict=True):
        assert np.allclose(found, to_go(1.5 * (row - mean)))


def test_only_tasks_in_the_band_are_trained_on() -> None:
    stages, where, groups = setting("prime")
    kept = stages["filter"](groups, where)
    shares = [np.mean([e.correct for e in g.episodes]) for g in kept]
    assert all(0.2 <= s <= 0.8 for s in shares)
    everywhere = replace(
        groups[0], episodes=tuple(replace(e, verdicts=(Verdict(1.0, True),)) for e in groups[0].episodes)
    )
    assert stages["filter"]([everywhere], where) == []


# ---- SPA-RL ----------------------------------------------------------------------------------------------


def two_turns(heard: str) -> Episode:
    turn = Span("assistant", np.array([1, 2]), True, np.zeros(2))
    return replace(
        example_episode(1.0), spans=(turn, Span("user", np.frombuffer(heard.encode(), np.uint8)), turn)
    )


def test_turns_end_with_their_last_token_and_may_do_nothing() -> None:
    assert turn_ends(two_turns("ok")).tolist() == [0, 1, 0, 0, 0, 1]

    def decode(tokens: np.ndarray) -> str:
        return bytes(tokens).decode()

    assert executable(two_turns("Nothing happens."), "nothing happens", decode).tolist() == [0.0, 1.0]
    assert executable(two_turns("ok"), "nothing happens", decode).tolist() == [1.0, 1.0]


def test_progress_of_a_good_fit_adds_up_to_the_outcome() -> None:
    stages, where, groups = setting("spa_rl", {"credit.kl": 0}, lr=1e-1, rollout=retry(3))
    episodes = [e for g in groups for e in g.episodes]
    assert max(turn_ends(e).sum() for e in episodes) == 3
    for step in range(150):
        where.step = step
        stages["credit"](groups, where)
    lessons = [
        replace(constant(e, 0.0), weights={"policy": turn_ends(e).astype(np.float32)}) for e in episodes
    ]
    rows = where.rows(
        lessons, lambda out: out.heads["progress"][:, 0], policy=where.auxiliary["progress"].policy
    )
    for episode, row in zip(episodes, rows, strict=True):
        assert row[turn_ends(episode)].sum() == pytest.approx(episode.reward, abs=0.1)
    model = where.auxiliary["progress"]
    head = model.policy.heads["progress"]
    weights = head.detach().clone()
    stages["credit"](groups, where)
    assert not torch.equal(weights, head), "it goes on learning"
    weights = head.detach().clone()
    where.progress = 1.0
    stages["credit"](groups, where)
    assert torch.equal(weights, head), "frozen from credit.until on"


def test_turns_are_paid_for_their_own_progress() -> None:
    """gamma = lambda = 1 and V = 0: the advantage of a turn is what progress remains, and its own reward."""
    settings = {
        "credit.kl": 0,
        "credit.lam": 1,
        "credit.beta": 0.25,
        "credit.alpha": 2,
        "credit.refusal": "NO",
    }
    stages, where, groups = setting("spa_rl", settings, rollout=retry(3))
    with torch.no_grad():
        where.policy.heads["value"].zero_()
    episodes = [e for g in groups for e in g.episodes]
    lessons = [constant(e, 0.0) for e in episodes]
    model = where.auxiliary["progress"].policy
    rows = where.rows(lessons, lambda out: out.heads["progress"][:, 0], policy=model)
    for signal, row in zip(stages["credit"](groups, where), rows, strict=True):
        episode = signal.episode
        ends = np.flatnonzero(turn_ends(episode))
        # every turn but the last was answered with "no", which the world says of what it could not do
        paid = [2 * row[end] + 0.25 * (i == len(ends) - 1) for i, end in enumerate(ends)]
        raw = signal.extras["returns"]
        for i, end in enumerate(ends):
            assert raw[end] == pytest.approx(sum(paid[i:]), abs=1e-4)


def test_the_estimators_loss_is_the_squared_gap() -> None:
    _, where, groups = setting("spa_rl", rollout=retry(3))
    episodes = [e for g in groups for e in g.episodes]
    ends = [turn_ends(e) for e in episodes]
    lessons = [
        Signal(
            e,
            np.zeros(len(end), np.float32),
            {"policy": end.astype(np.float32)},
            {"outcome": np.full(len(end), e.reward, np.float32)},
        )
        for e, end in zip(episodes, ends, strict=True)
    ]
    batch, model = pack(lessons), where.auxiliary["progress"].policy
    out = model.score(batch)
    (term,) = estimate_progress().terms
    rows = where.rows(lessons, lambda o: o.heads["progress"][:, 0], policy=model)
    expected = np.mean(
        [(r[end].sum() - e.reward) ** 2 for r, end, e in zip(rows, ends, episodes, strict=True)]
    )
    assert float(term.total(out, batch)[0]) / term.count(batch) == pytest.approx(expected, rel=1e-5)


# ---- Text2Grad -------------------------------------------------------------------------------------------


def test_quotations_are_laid_on_the_words_of_their_tokens() -> None:
    known = toys.tokenizer()
    text = "so 3+4 is 8, yes"
    tokens = np.append(known.encode(text), known.stops[0])

    def marks(good, poor, threshold=0.7):
        found = token_marks(known, tokens, good, poor, threshold)
        return "".join({1: "+", -1: "-", 0: "."}[int(m)] for m in found)

    assert marks(["so 3+4"], []) == "++.+.+..........."
    assert marks([], ["is 8,"]) == ".......--.-......", "punctuation is not marked"
    assert marks(["so 3+4 is 8"], ["8"]) == "++.+.+.++.-......", "poor wins"
    assert marks(["so 3-4"], []) == "++.+.+...........", "a slip of the pen"
    assert marks(["nothing like it"], [""]) == "................."
    assert marks(["so 3-4"], [], 1.0) == "................."


def test_critics() -> None:
    task = toys.task(reference="one\ntwo\nthree")
    assert against_reference(task, "one\ntwo\nfour\nthree", "\n") == (["one", "two"], ["four"])
    assert against_reference(task, " three \n", "\n") == (["three"], [])
    assert read_critique('Well: {"good_spans": ["a", 3], "poor_spans": ["b"]}.') == (["a"], ["b"])
    for broken in ("no", '{"good_spans": ["a"', '{"good_spans": 3}', "[1]", "}{"):
        assert read_critique(broken) == ([], [])


def test_the_reference_marks_the_first_line_that_departs() -> None:
    stages, *_ = setting("text2grad")
    group, _ = scripted(stages, ["ab\nxy\ncd"], toys.task(reference="ab\ncd"))
    (episode,) = group.episodes
    assert np.array(episode.notes["marks"])[episode.sampled].tolist() == [1, 1, 0, -1, -1, 0, 0, 0, 0]


def test_a_model_may_be_the_critic() -> None:
    stages, *_ = setting("text2grad", {"group_rollout.critic": "model"})
    group, sampler = scripted(stages, ["ab cd", '"good_spans": ["ab"], "poor_spans": ["cd"]'])
    assert sum(map(abs, group.episodes[0].notes["marks"])) == 0, (
        "the toy vocabulary has no braces to write JSON with"
    )
    asked = toys.tokenizer().decode(sampler.asked[1])
    assert "Response:\nab cd" in asked
    assert [s.tag for s in group.episodes[0].spans] == ["prompt", "attempt"]


def text2grad(marks, **settings):
    plain = {"credit.lam": 1, "credit.beta": 0.0, **settings}
    stages, where, groups = setting("text2grad", plain)
    with torch.no_grad():
        where.policy.heads["value"].zero_()
    marked = [
        replace(g, episodes=tuple(replace(e, notes={"marks": marks(e)}) for e in g.episodes)) for g in groups
    ]
    return [s.extras["returns"][s.episode.sampled] for s in stages["credit"](marked, where)], groups


def test_marks_are_rewards() -> None:
    found, _ = text2grad(lambda e: np.where(e.sampled, -1, 0).tolist())
    assert all(r.tolist() == list(range(-len(r), 0)) for r in found), "all tokens poor"
    found, groups = text2grad(lambda e: np.eye(len(e.tokens), dtype=int)[-1].tolist())
    assert all(np.allclose(r, 1.0) for r in found), "a mark on the last token is an outcome"
    found, groups = text2grad(lambda e: [0] * len(e.tokens), **{"credit.beta": 0.5})
    _, where, _ = setting("text2grad")
    for r, e in zip(found, (e for g in groups for e in g.episodes), strict=True):
        reference = where.rows([constant(e, 0.0)], lambda out: out.logp, policy=where.auxiliary["reference"])[
            0
        ]
        away = (e.logp - reference)[e.sampled]
        assert np.allclose(r, -0.5 * to_go(away), atol=1e-4), "no marks: only the pull to the start"


def test_beta_follows_the_divergence() -> None:
    stages, where, groups = setting("text2grad", {"credit.target": 0.001, "credit.horizon": 16})
    credit = stages["credit"]
    credit(groups, where)
    assert credit.beta == pytest.approx(0.05 * 1.2), "far above its target, over one horizon"
    credit.load_state_dict({"beta": 0.3})
    assert credit.state_dict() == {"beta": 0.3} == credit.report()


# ---- T-REG -----------------------------------------------------------------------------------------------


def test_token_rewards_contrast_two_prompts() -> None:
    _, where, groups = setting("t_reg")
    signals = contrasted_pairs(better="good", worse="bad")(groups, where)
    model, render = where.auxiliary["reference"], where.policy.renderer
    for signal in signals[:4]:
        episode = signal.episode
        said_ = render.decode(episode.tokens[episode.sampled])
        rows = []
        for how in ("good", "bad"):
            text = f"{how}\n\nQuestion: {episode.task.prompt[-1].content}\n\nResponse: {said_}"
            prompt = render.prompt([Message("user", text)])
            tokens = torch.from_numpy(np.concatenate([prompt, episode.tokens[episode.sampled]])).long()
            logp = torch.log_softmax(model.logits(tokens[:-1], torch.arange(1, len(tokens))), -1)
            rows.append(logp.gather(1, tokens[1:, None])[-int(episode.sampled.sum()) :, 0].detach().numpy())
        expected = 1 / (1 + np.exp(rows[1] - rows[0])) - 0.5
        assert np.allclose(trained(episode, signal.extras["token_reward"]), expected, atol=1e-5)
        assert np.abs(expected).max() > 1e-3 or len(expected) == 0
        assert not signal.extras["token_reward"][~episode.sampled].any()


@pytest.mark.parametrize("detach", [True, False])
def test_the_regulariser_by_the_formula(detach: bool) -> None:
    more = {"objective.dpo_beta": 0.3, **SHORT}
    lesson = toys.lesson("t_reg", {"objective.regulariser_weight": 0.5, "objective.detach": detach, **more})
    without = toys.lesson("t_reg", {"objective.regulariser_weight": 0.0, **more})
    mine = toys.gradient(lesson) - toys.gradient(without)
    batch = pack(lesson.signals)
    out = lesson.policy.outputs(batch)
    d = implicit_rewards(out, batch)
    loss = torch.zeros((), dtype=torch.float64)
    chosen, rejected = pairs_of(batch)
    for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True):
        w = torch.sigmoid(0.3 * (d[r] - d[c]))
        for i in (c, r):
            on = (batch.episode == i) & (batch.weight("policy") != 0)
            pull = (0.3 * batch.extras["token_reward"] * out.logp)[on].sum()
            loss = loss - 0.5 * (w.detach() if detach else w) * pull / len(chosen)
    parameters = [p for _, p in lesson.policy.parameters()]
    theirs = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    assert laws.close(mine, theirs, 1e-5)
    assert not laws.close(-mine, theirs, 1e-5)


def test_the_regulariser_is_read_from_the_term() -> None:
    assert [t.name for t in regularised().terms] == ["preference", "regulariser"]
    assert regularised(regulariser_weight=0.0).terms[0].name == "preference"


# ---- InT -------------------------------------------------------------------------------------------------

SUM = toys.task(0, right_if("3+4\n=7"), reference="3+4\n=7", answer="=7")


def intervened(settings: dict, replies: list[str], task: Task = SUM) -> Group:
    stages, *_ = setting("intervention", {"group_rollout.continuations": 2, **settings})
    return scripted(stages, replies, task, samples=2)[0]


def tagged_text(episode: Episode) -> list[tuple[str, str]]:
    return [(s.tag, toys.tokenizer().decode(s.tokens)) for s in episode.spans[1:]]


WRONG = ["3+5\n=8", "x"]


@pytest.mark.parametrize("proposer", ["self", "reference"])
def test_the_first_wrong_step_is_replaced(proposer: str) -> None:
    asked = ["I see.\nStep 1: 3+4"] if proposer == "self" else []
    group = intervened({"group_rollout.proposer": proposer}, [*WRONG, *asked, "=9", "=7"])
    (episode,) = group.demonstrations
    assert tagged_text(episode) == [("intervention", "3+4\n")]
    assert [e.correct for e in group.episodes] == [False, False]
    stages, where, _ = setting("intervention")
    (signal,) = (s for s in stages["credit"]([group], where) if s.episode is episode)
    assert signal.weights["imitation"].sum() == 4


def test_steps_before_it_are_imitated_and_what_follows_only_if_asked() -> None:
    replies = ["3+4\n=8", "x", "2: = seven"]
    task = replace(SUM, check=right_if("3+4\n= seven\nso 7"))
    group = intervened({"group_rollout.suffix": True}, [*replies, "no", "so 7"], task)
    (episode,) = group.demonstrations
    assert tagged_text(episode) == [("prefix", "3+4\n"), ("intervention", "= seven\n"), ("probe", "so 7")]
    for prefix, expected in ((True, 4 + 8 + 5), (False, 8 + 5)):
        stages, where, _ = setting("intervention", {"credit.prefix": prefix})
        signals = stages["credit"]([group], where)
        (signal,) = (s for s in signals if s.episode is episode)
        assert signal.weights["imitation"].sum() == expected
        assert not signal.advantage.any()
    (short,) = intervened({}, [*replies, "no", "so 7"], task).demonstrations
    assert tagged_text(short) == [("prefix", "3+4\n"), ("intervention", "= seven\n")]


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ([*WRONG, "1: 3+4", "=8", "=9"], "no continuation is right"),
        ([*WRONG, "2: =7"], "it gives the answer away"),
        ([*WRONG, "all is well"], "nothing was proposed"),
        ([*WRONG, "3: 3+4"], "there is no such step"),
        (["3+4\n=7", "x"], "an attempt is right"),
    ],
)
def test_no_intervention_where(replies: list[str], why: str) -> None:
    group = intervened({}, replies)
    assert group.demonstrations == (), why
    assert group.failed == ()
    assert len(group.episodes) == 2


def test_proposals_are_read() -> None:
    assert read_proposal("1: no\n Step 2) yes.", 2) == (1, "yes.")
    assert read_proposal("2:", 2) is None
    assert first_departure(["a", "b"], ["a", "c", "d"]) == (1, "c")
    assert first_departure(["a"], ["a", "c"]) is None
    assert first_departure(["a", "b"], ["a"]) is None


def test_grpo_may_begin_later() -> None:
    stages, where, groups = setting("intervention", {"credit.begin": 0.5})
    assert stages["credit"](groups, where) == []
    where.progress = 0.5
    assert len(stages["credit"](groups, where)) == 16


# ---- runs ------------------------------------------------------------------------------------------------


class Second:
    """Right iff the second letter is this. Picklable."""

    def __init__(self, letter: str) -> None:
        self.letter = letter

    def __call__(self, answer: str) -> Verdict:
        right = answer.strip()[1:2] == self.letter
        return Verdict(float(right), right)


def letter_tasks() -> TaskSet:
    found = []
    for word in map("".join, itertools.product(letters.LETTERS, repeat=4)):
        other = letters.LETTERS[(letters.LETTERS.index(word[1]) + 1) % 4]
        found.append(
            Task((Message("user", word),), Second(word[1]), answer=word[1], reference=other + word[1])
        )
    return TaskSet.of(found, name="words")


PROBING = {
    "pav": {"group_rollout__probes": 2},
    "spae": {"group_rollout__probes": 2, "group_rollout__tokens": 2},
    "intervention": {
        "group_rollout__proposer": "reference",
        "group_rollout__continuations": 4,
        "group_rollout__until": 1.0,
    },
}


@pytest.mark.parametrize("recipe", list(PROBING))
def test_probing_runs_resume_exactly(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared test's answers hold no separator; here every token is a step."""
    more = {"group_rollout__separator": "", "run__max_tokens": 3, **PROBING[recipe]}
    plan = letters.plan
    monkeypatch.setattr(letters, "words", letter_tasks)
    monkeypatch.setattr(letters, "plan", lambda *a, **k: plan(*a, **{**k, "run__group_size": 3, **more}))
    resumed.test_two_and_two_steps_are_four(recipe, tmp_path)
    metrics, rows = resumed.facts(tmp_path / "whole")
    if recipe == "intervention":
        assert any("loss/imitation" in m for m in metrics)
        assert any(m["loss/policy"] for m in metrics if "loss/policy" in m)
    assert rows
