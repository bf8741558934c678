"""What a model makes of each protocol, measured in the words of the recipes: how often it does what was asked.

Every protocol is played as the methods play it; only cases to which it applies count (a second attempt after feedback needs
a first one that was wrong). The first attempts of all protocols are the same, so that their shares can be compared."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

from etude import tasks as sources
from etude.evaluate.intervals import Interval, clustered
from etude.evaluate.run import attempt, hold_out
from etude.evaluate.transitions import reflect
from etude.event_loop import run as run_coroutine
from etude.lab.problems import read, solve
from etude.lab.protocols import PLAN, TOOL
from etude.lab.tasks import CHECK, LEVELS, MAX_TOKENS, WAIT, first_wrong, steps_right, written_steps
from etude.methods.preference.t_reg import FOR_THE_BETTER, FOR_THE_WORSE, REVISE
from etude.methods.sampling_and_curricula.exit import IMPROVE
from etude.methods.sampling_and_curricula.sws import WRITE
from etude.models.policy import Policy
from etude.rollout.attempts import AGAIN, attempt_tag, below, hinted, reworded
from etude.rollout.attempts import attempt as attempted
from etude.rollout.basic import retry
from etude.rollout.conversation import Conversation, Generator
from etude.rollout.group_rollout import checks_in
from etude.rollout.second import CRITICISE, Refine, reconsider
from etude.sampling.engine import sampler_for
from etude.stages import Rollout
from etude.tasks.check import UNARY
from etude.tasks.isolate import Pool
from etude.tasks.posed import worked_out
from etude.types import Episode, SamplingParams, Task, Verdict

Found = Mapping[str, bool]  # protocol -> whether it was done right; absent where it did not apply
FOUND = "found"


def second(name: str, rollout: Rollout, after_right: str = "") -> Rollout:
    """Of a rollout that makes two attempts: whether the second was right after a wrong first one (`name`), and after a
    right one (`after_right`)."""

    async def look(task: Task, conversation: Conversation) -> Episode:
        episode = await rollout(task, conversation)
        assert isinstance(episode, Episode)
        first, last = episode.verdicts[0].correct, episode.verdicts[-1].correct
        which = after_right if first else name
        conversation.notes[FOUND] = {which: last} if which and len(episode.verdicts) > 1 else {}
        return conversation.done()

    return look


def probe(look: Callable[[Task, Conversation], Awaitable[Found]]) -> Rollout:
    """A rollout that notes what was found."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        conversation.notes[FOUND] = dict(await look(task, conversation))
        return conversation.done()

    return rollout


async def _first(task: Task, conversation: Conversation) -> tuple[Verdict, str]:
    return await attempted(conversation, task.prompt, 1)


async def _plain(task: Task, conversation: Conversation) -> Found:
    verdict, text = await _first(task, conversation)
    steps = steps_right(task, text) if verdict.correct else None
    return {"plain": verdict.correct, **({} if steps is None else {"steps": steps})}


async def _hint(task: Task, conversation: Conversation) -> Found:
    conversation.user(hinted(task, 2))
    return {"hint": (await conversation.check(await conversation.reply())).correct}


async def _critique(task: Task, conversation: Conversation) -> Found:
    verdict, text = await _first(task, conversation)
    wrong = first_wrong(task.meta["steps"], text)
    if verdict.correct or not wrong:
        return {}
    asked = CRITICISE.format(question=task.prompt[-1].content, answer=text, feedback=UNARY)
    conversation.new_context(reworded(task.prompt, asked))
    named = re.search(r"[Ll]ine (\d+) is wrong", await conversation.reply())
    return {"critique": named is not None and int(named[1]) == wrong}


async def _wait(task: Task, conversation: Conversation) -> Found:
    verdict, text = await _first(task, conversation)
    wrong = first_wrong(task.meta["steps"], text)
    if verdict.correct or not wrong:
        return {}
    return {"wait": await _continued(task, conversation, [*written_steps(text)[:wrong], WAIT])}


async def _check(task: Task, conversation: Conversation) -> Found:
    _, text = await _first(task, conversation)
    return {"check": await _continued(task, conversation, [*written_steps(text), CHECK])}


async def _continued(task: Task, conversation: Conversation, lines: Sequence[str]) -> bool:
    """Whether the answer that begins with these lines comes out right."""
    conversation.new_context(task.prompt)
    conversation.force_prefix(conversation.generator.renderer.tokenizer.encode("\n".join([*lines, ""])))
    return (await conversation.check(await conversation.reply())).correct


async def _revise(task: Task, conversation: Conversation) -> Found:
    verdict, text = await _first(task, conversation)
    how = FOR_THE_WORSE if verdict.correct else FOR_THE_BETTER
    asked = REVISE.format(how=how, question=task.prompt[-1].content, response=text)
    conversation.new_context(reworded(task.prompt, asked))
    return {"revise": (await conversation.check(await conversation.reply())).correct != verdict.correct}


async def _write(task: Task, conversation: Conversation) -> Found:
    conversation.user(reworded(task.prompt, WRITE.format(question=task.prompt[-1].content)))
    return {"write": worked_out(task, await conversation.reply()) is not None}


async def _tool(task: Task, conversation: Conversation) -> Found:
    conversation.user(below(task.prompt, TOOL))
    called = re.search(r"<tool>(.*?)</tool>", await conversation.reply())
    if called is None:
        return {"tool": False}
    conversation.user(f"Result: {solve(called[1])[1] if read(called[1]) else 'error'}")
    return {"tool": (await conversation.check(await conversation.reply(attempt_tag(1)))).correct}


async def _plan(task: Task, conversation: Conversation) -> Found:
    conversation.user(below(task.prompt, PLAN))
    text = await conversation.reply()
    planned = re.match(r"Plan: (\d+) lines", text)
    right = planned is not None and int(planned[1]) == len(task.meta["steps"])
    return {"plan": right and (await conversation.check(text)).correct}


PROBES: Mapping[tuple[str, ...], Callable[[], Rollout]] = {
    ("plain", "steps"): lambda: probe(_plain),
    ("hint",): lambda: probe(_hint),
    ("retry_plain",): lambda: second("retry_plain", retry(2, AGAIN)),
    ("feedback_chat",): lambda: second("feedback_chat", retry(2)),
    ("feedback_prompt",): lambda: second("feedback_prompt", Refine("feedback")),
    ("critique",): lambda: probe(_critique),
    ("reconsider_right", "reconsider_wrong"): lambda: second(
        "reconsider_wrong", reconsider(), "reconsider_right"
    ),
    ("improve",): lambda: second("improve", reconsider(again=IMPROVE)),
    ("reflect",): lambda: second("reflect", reflect()),
    ("wait",): lambda: probe(_wait),
    ("check",): lambda: probe(_check),
    ("revise",): lambda: probe(_revise),
    ("write",): lambda: probe(_write),
    ("tool",): lambda: probe(_tool),
    ("plan",): lambda: probe(_plan),
}
PROTOCOLS = tuple(name for names in PROBES for name in names)
"""What is measured; "plain": single attempts, "steps": of the right ones, those whose lines are right as well."""


def measure(
    policy: Policy,
    tasks: str = "lab:level=1,feedback=hint",
    problems: int = 200,
    seed: int = 0,
    only: Sequence[str] = PROTOCOLS,
    max_tokens: int = MAX_TOKENS,
) -> dict[str, tuple[int, int]]:
    """{protocol: (how often right, of how many)} on held-out problems, each met once by every protocol."""
    held = hold_out(sources.load(tasks), problems)
    sampler = sampler_for(policy)
    generator = Generator(
        sampler, policy.renderer, SamplingParams(max_tokens=max_tokens), limit=policy.context
    )
    found: dict[str, list[bool]] = {name: [] for name in PROTOCOLS if name in only}
    with Pool() as pool:
        checks = checks_in(pool, sampler, {})
        for names, made in PROBES.items():
            if not set(names) & set(only):
                continue
            for group in run_coroutine(attempt(generator, checks, held, 1, seed, made(), _unrewarded)):
                for episode in group.episodes:
                    for name, right in episode.notes.get(FOUND, {}).items():
                        if name in found:
                            found[name].append(right)
    return {name: (sum(rights), len(rights)) for name, rights in found.items()}


def by_level(policy: Policy, problems: int = 200, seed: int = 0) -> dict[str, list[tuple[int, int]]]:
    """{kind: (right, of how many) at each level}, single attempts at held-out problems."""
    found = {}
    for kind, levels in LEVELS.items():
        specs = [f"lab:kind={kind},level={level:g}" for level in levels]
        found[kind] = [measure(policy, spec, problems, seed, ("plain",))["plain"] for spec in specs]
    return found


def interval(right: int, number: int) -> Interval | None:
    """Of a share of problems, each met once; None where there are none."""
    return clustered([1.0] * right + [0.0] * (number - right)) if number else None


def _unrewarded(episode: Episode) -> dict[str, float]:
    return {"reward": 0.0}
