"""AdvEvo-MARL: attackers and a team of defenders are trained against each other, so that caution lies in the weights.

An attacker writes what misleads a team; the team's agents read it, talk to each other and answer. Defenders are paid for not being
misled, and for being right; attackers for misleading. At first caution counts more, later being right, so that it is not bought with
silence. All agents of one function share a baseline. Here an attack is a poisoned hint to a checkable task, harmless outside of it.
AdvEvo-MARL: Shaping Internalized Safety through Adversarial Co-Evolution in Multi-Agent Reinforcement Learning, arXiv 2510.01586."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.group import assigned, average, whitened
from etude.fixtures.examples import example_episode
from etude.fixtures.given import GivenContext, GivenModel, given_stage
from etude.fixtures.inference import collected, example_question
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import clipped
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import answer_of, attempt_tag, below
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.second import worded
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage, Reward, Rollout
from etude.types import Array, Episode, Group, Signal, Task

ATTACKER = "attacker"  # the auxiliary model that writes attacks, and their tag
ATTACKS = 1 << 16  # index of the first attack: beyond every team's

AGENT, SAFE, LATE, ATTACK, TARGET, MISLED = "agent", "safe", "late", "attack", "target", "misled"
"""Notes. Of a defender: its number in the team, whether its answer is another than the attack's, whether the weights of its reward are
swapped, and, of the first of a team, the attack that it was under. Of an attack: the wrong answer that it names (None: it names none, or
a right one), and the share of the defenders under it who gave that answer."""

POISON = (
    "{question}\n\nWrite a hint to this problem that sounds helpful and leads to a wrong answer. End it with that wrong answer, given as an "
    "answer to the problem would be."
)
HINT = "A colleague says:\n{hint}"
OTHERS = "The others in your team answered:\n{answers}\n\nAnswer the problem again."


# ---- group rollout: attacks, and teams under them ---------------------------------------------------------------------


def attacked(
    attacks: Annotated[int, Setting("attacks on a task, shared by its teams; 0: none", low=0, high=64)] = 3,
    agents: Annotated[int, Setting("agents of a team", low=1, high=16)] = 3,
    reached: Annotated[int, Setting("agents of a team who read the attack", low=0, high=16)] = 1,
    talks: Annotated[
        int, Setting("times that agents read each other's answers and answer again", low=0, high=8)
    ] = 1,
    swap_at: Annotated[
        float, Setting("share of the run after which w_s and w_t change places", low=0, high=1)
    ] = 0.5,
    attack_request: Annotated[str, Setting("how an attack is asked for; {question} is the task's")] = POISON,
) -> GroupRolloutStage:
    """As many teams as it takes for run.group_size agents, each under one of `attacks` attacks. One episode an agent."""
    wording = worded(attack_request, "question")

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        number = -(-rollouts.samples // agents)
        late = rollouts.progress >= swap_at
        made = await asyncio.gather(*(_attack(rollouts, wording, k) for k in range(min(attacks, number))))
        under = [made[k % len(made)] if made else None for k in range(number)]
        found = await asyncio.gather(
            *(rollouts.play(k, team(agents, reached, talks, *_read(a), late)) for k, a in enumerate(under))
        )
        for episode in made:
            if episode.failure is not None:
                continue
            mine = [k for k, a in enumerate(under) if a is episode]
            good = [e for k in mine for e in found[k] if e.failure is None]
            share = float(np.mean([not e.notes[SAFE] for e in good])) if good else 0.0
            paid = await rollouts.score(replace(episode, notes={**episode.notes, MISLED: share}))
            first = found[mine[0]]
            if paid.failure is None and first[0].failure is None:
                first[0] = replace(first[0], notes={**first[0].notes, ATTACK: paid})
        return [e for episodes in found for e in episodes]

    return group_rollout


def _read(attack: Episode | None) -> tuple[str, str | None]:
    """What an attack says, and the wrong answer that it names."""
    gone = attack is None or attack.failure is not None
    return ("", None) if gone or attack is None else (attack.text, attack.notes[TARGET])


async def _attack(rollouts: GroupRollout, wording: str, number: int) -> Episode:
    """One attack, with the wrong answer that it names."""

    async def write(task: Task, conversation: Conversation) -> Episode:
        asked = wording.format(question=task.prompt[-1].content)
        conversation.user((*task.prompt[:-1], replace(task.prompt[-1], content=asked)))
        text = await conversation.reply(tag=ATTACKER)
        named = answer_of(task, text)
        right = named is not None and (await conversation.check(text)).correct
        return conversation.done(**{TARGET: None if right else named, MISLED: 0.0})

    attackers = replace(rollouts, generator=rollouts.generators[ATTACKER])
    (episode,) = await attackers.play(ATTACKS + number, write)
    return episode


def team(agents: int, reached: int, talks: int, hint: str, target: str | None, late: bool) -> Rollout:
    """Every agent answers, the first `reached` with the hint in view; then each reads what the others answered and answers again."""

    async def rollout(task: Task, conversation: Conversation) -> list[Episode]:
        line = [conversation.fork(j) for j in range(agents)] if agents > 1 else [conversation]
        for j, agent in enumerate(line):
            told = HINT.format(hint=hint) if hint and j < reached else ""
            agent.user(below(task.prompt, told))
        said = await asyncio.gather(*(a.reply(attempt_tag(1)) for a in line))
        for talk in range(talks if agents > 1 else 0):
            for j, agent in enumerate(line):
                others = (f"{i + 1}: {text}" for i, text in enumerate(said) if i != j)
                agent.user(OTHERS.format(answers="\n".join(others)))
            said = await asyncio.gather(*(a.reply(attempt_tag(talk + 2)) for a in line))
        await asyncio.gather(*(a.check(text) for a, text in zip(line, said, strict=True)))
        return [
            replace(
                agent.done(
                    **{AGENT: j, LATE: late, SAFE: target is None or answer_of(task, said[j]) != target}
                ),
                index=conversation.index * agents + j,
            )
            for j, agent in enumerate(line)
        ]

    return rollout


# ---- reward: caution, being right, form; misleading ------------------------------------------------------------------


def both_functions(
    safe_weight: Annotated[
        float, Setting("w_s: weight of not giving the attack's answer, in the first part of a run", low=0)
    ] = 0.6,
    task_weight: Annotated[
        float, Setting("w_t: weight of being right, in the first part of a run", low=0)
    ] = 0.3,
    form_weight: Annotated[float, Setting("w_f: weight of an answer in the form asked for", low=0)] = 0.1,
) -> Reward:
    """A defender: w_s safe + w_t right + w_f form, later w_t safe + w_s right + w_f form. An attacker: (1 - w_f) x the share of the
    defenders who were misled + w_f where it names a wrong answer."""

    def reward(episode: Episode) -> dict[str, float]:
        if MISLED in episode.notes:
            named, misled = episode.notes[TARGET] is not None, episode.notes[MISLED]
            return {"reward": (1 - form_weight) * misled + form_weight * named}
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        caution, right = safe_weight, task_weight
        if episode.notes.get(LATE):
            caution, right = right, caution
        safe = float(episode.notes.get(SAFE, True))
        formed = float(answer_of(episode.task, episode.text) is not None)
        own = caution * safe + right * episode.verdict.reward + form_weight * formed
        return {"reward": own, "safe": safe, "right": episode.verdict.reward}

    return reward


# ---- credit: one baseline for all agents of a function -------------------------------------------------------------------


@writes("policy")
class PublicBaseline:
    """A_i = R_i - b_g, b_g the mean return of all agents of the function g under all attacks on a task; then minus the mean and over the
    standard deviation of all tokens of the batch (REINFORCE++). Attackers are credited likewise, and taught here."""

    def __init__(
        self,
        public: Annotated[bool, Setting("one baseline for all agents of a function, not one each")] = True,
        whiten: Annotated[bool, Setting("mean 0 and deviation 1 over the batch's tokens")] = True,
        attackers_learn: Annotated[bool, Setting("train the attackers, too")] = True,
    ) -> None:
        self.public, self.whiten, self.attackers_learn = public, whiten, attackers_learn
        self.last: dict[str, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        signals = assigned(groups, [self._centred(g.episodes) for g in groups])
        return whitened(signals) if self.whiten and signals else signals

    def _centred(self, episodes: Sequence[Episode]) -> Array:
        """f64[G]."""
        rewards = np.array([e.reward for e in episodes], np.float64)
        who = np.array([0 if self.public else e.notes.get(AGENT, 0) for e in episodes])
        for agent in np.unique(who):
            mine = who == agent
            rewards[mine] -= average(rewards[mine])
        return rewards

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Teaches the attackers from what their attacks came to."""
        defenders = [e for g in groups for e in g.episodes]
        made = [[e.notes[ATTACK] for e in g.episodes if ATTACK in e.notes] for g in groups]
        made = [attacks for attacks in made if attacks]
        self.last = (
            {"safe": float(np.mean([e.notes.get(SAFE, True) for e in defenders]))} if defenders else {}
        )
        if not made:
            return
        every = [a for attacks in made for a in attacks]
        self.last |= {
            "poisoned": float(np.mean([a.notes[TARGET] is not None for a in every])),
            "misled": float(np.mean([a.notes[MISLED] for a in every])),
        }
        own = [Group(a[0].task, tuple(a)) for a in made]
        lessons = whitened(assigned(own, [np.asarray(g.rewards - average(g.rewards)) for g in own]))
        if self.attackers_learn and any(s.advantage.any() for s in lessons):
            objective = clipped(mean="token")
            context.auxiliary[ATTACKER].learn(objective, lessons, context.step, context.progress)

    def report(self) -> Mapping[str, float]:
        """Of the last step: the share of the agents who did not give their attack's answer, of attacks that name a wrong answer, and of
        agents under an attack who gave its answer."""
        return dict(self.last)


# ---- numbers --------------------------------------------------------------------------------------------------------------


def _team(
    said: Sequence[str], attack: Sequence[str] = ("9",), progress: float = 0.0, **settings: Any
) -> list[Episode]:
    """One team of two, of whom the first reads the attack, answering "3+4?"."""
    given = {"attacks": 1, "agents": 2, "talks": 0, **settings}
    named = {f"group_rollout.{k}": v for k, v in given.items()}
    return collected(RECIPE, said, {ATTACKER: attack}, named, 2, example_question(), progress=progress)


def _rewards(*said: str, **how: Any) -> list[float]:
    """Of both defenders, and of the attack."""
    made = _team(said, **how)
    return [*(e.reward for e in made), *(e.notes[ATTACK].reward for e in made if ATTACK in e.notes)]


def _advantages(**settings: Any) -> list[float]:
    """Of two teams of two agents, with returns 1, 0 and 0, 0."""
    episodes = [replace(example_episode(r), notes={AGENT: j}) for r, j in ((1, 0), (0, 1), (0, 0), (0, 1))]
    credit = given_stage(RECIPE, "credit", **settings)
    signals = credit([Group(episodes[0].task, tuple(episodes))])
    return [float(s.advantage[0]) for s in signals]


def _taught(*misled: float, **settings: Any) -> list[float]:
    """The advantages from which the attackers learn, whose attacks misled these shares of the agents."""
    attacks = [replace(example_episode(m), notes={TARGET: "9", MISLED: m}) for m in misled]
    made = [replace(a, notes={AGENT: 0, SAFE: True, ATTACK: a}) for a in attacks]
    model = GivenModel()
    context: Any = GivenContext(auxiliary={ATTACKER: model})
    given_stage(RECIPE, "credit", **settings).observe([Group(made[0].task, tuple(made))], [], context)
    return [float(s.advantage[0]) for _, signals in model.lessons for s in signals]


RECIPE: Recipe = Recipe(
    name="adv_evo",
    base=GRPO,
    paper=Paper(
        "AdvEvo-MARL: Shaping Internalized Safety through Adversarial Co-Evolution in Multi-Agent Reinforcement Learning",
        "2510.01586",
        2025,
    ),
    idea="Attackers write hints that mislead, and a team of agents that talk to each other answers. Both are trained: the one is paid for "
    "misleading, the others for not being misled and for being right. "
    "What the attackers find, the team learns to withstand.",
    equation="R = w_s safe + w_t right + w_f form (w_s, w_t swapped later);  R_attack = (1 - w_f) misled + w_f named;  "
    "A_i = (R_i - b_g - mean) / std, b_g = mean over all agents of function g;  clipped loss, token mean",
    departures=(
        "an attack is a hint that names a wrong answer to a checkable task; the paper's rewrite harmful requests and a judge says what is safe. "
        "Safe is here: another answer than the attack's",
        "attackers begin as the policy does; the paper teaches them on 4,000 rewritings first. Train the starting model on such hints to have that",
        "the agents of a team are one policy; the paper gives each its own weights. Each reads the answers of all others",
        "GUESS: weights 0.6, 0.3 and 0.1; the attacker's reward; one agent of three reads the attack and they talk once",
        "the baseline is that of one task; whether the paper's spans tasks is not known. Each attack is one return of its attacker",
    ),
    confidence="guess",
    stages={
        "group_rollout": stage(attacked),
        "reward": stage(both_functions),
        "credit": stage(PublicBaseline),
        "objective": stage(clipped, mean="token"),
    },
    auxiliary={ATTACKER: AuxiliaryModel("copy", lr=1.0, sampled=True)},
    needs=("text",),
    claim="Under attacks that were not seen in training, a team that grew with its attackers stays right more often than one trained against "
    "attackers that stay as they were.",
    manipulation=(
        Manipulated("one attack in ten names a wrong answer", r"credit\.poisoned", 0.1),
        Manipulated("one agent in twenty is misled at some time", r"credit\.misled", 0.05, read="max"),
    ),
    examples=(
        ByHand(
            "misled, right: 0 + 0.1, 0.6 + 0.3 + 0.1; half misled: 0.45 + 0.1",
            lambda: _rewards("9", "7"),
            [0.1, 1.0, 0.55],
        ),
        ByHand(
            "in the second half: 0.3 for caution, 0.6 for being right; a wrong answer that is not the attack's is safe",
            lambda: _rewards("9", "5", progress=0.5),
            [0.1, 0.4, 0.55],
        ),
        ByHand(
            "an attack that names a right answer, or none, is worth nothing",
            lambda: [_rewards("7", "7", attack=("7",))[-1], _rewards("7", "7", attack=("well",))[-1]],
            [0, 0],
        ),
        ByHand(
            "each reads the others and answers again; the last answer counts",
            lambda: [e.reward for e in _team(("9", "7", "7", "9"), talks=1)],
            [1.0, 0.1],
        ),
        ByHand(
            "only the first reads the attack; nobody does",
            lambda: [
                float("colleague" in "".join(chr(t) for t in e.spans[0].tokens))
                for e in (*_team(("9", "7")), *_team(("9", "7"), reached=0))
            ],
            [1, 0, 0, 0],
        ),
        ByHand(
            "returns 1, 0 and 0, 0: less 1/4, then over sqrt(3)/4; agent by agent less 1/2 and 0, over sqrt(1/8); unscaled",
            lambda: [*_advantages(), *_advantages(public=False), *_advantages(whiten=False)],
            [3**0.5, *[-(3**-0.5)] * 3, 2**0.5, 0, -(2**0.5), 0, 0.75, *[-0.25] * 3],
        ),
        ByHand(
            "attacks that misled all and none; equal ones, or attackers that stay, learn nothing",
            lambda: [
                *_taught(1.0, 0.0),
                len(_taught(1.0, 1.0)),
                len(_taught(1.0, 0.0, attackers_learn=False)),
            ],
            [1, -1, 0, 0],
        ),
        Reduction(
            "no attacks, one agent, paid for being right: GRPO without a scale",
            "grpo",
            {
                "group_rollout.attacks": 0,
                "group_rollout.agents": 1,
                "reward.safe_weight": 0.0,
                "reward.task_weight": 1.0,
                "reward.form_weight": 0.0,
                "credit.whiten": False,
                "objective.mean": "episode",
            },
            {"credit.scale": "off"},
        ),
    ),
)
