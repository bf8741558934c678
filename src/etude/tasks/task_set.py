"""The mixture of sources that a run draws from, and its held-out tasks. Every draw is a pure function of
(seed, purpose, index) and the held-out set: no state, nothing to checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from etude.errors import UserError, nearest
from etude.tasks.asked import asked
from etude.tasks.files import Listed
from etude.tasks.source import FiniteSource, Info, Source, digest, item_seed
from etude.tasks.unlabelled import unlabelled
from etude.types import Request, Task

VALIDATION_SEED = 2  # apart from those of `evaluate.run`: 0 and 1
TRIES = 64  # redraws before a task space counts as exhausted


class TaskSet:
    """The mixture of sources a run uses, and its held-out evaluation tasks. Stateless.

    `weights`: relative shares of the sources in the mixture (default: equal). Raises UserError when two
    sources have a kind in common.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None = None) -> None:
        if not sources:
            raise UserError("a task set needs at least one source")
        self.sources = tuple(sources)
        self.weights = tuple(float(w) for w in weights) if weights is not None else (1.0,) * len(sources)
        if len(self.weights) != len(sources) or not all(0 < w < float("inf") for w in self.weights):
            raise UserError(f"task set: weights {list(self.weights)} must be positive, one for each source")
        self._of: dict[str, Source] = {}
        for source in self.sources:
            for kind in source.kinds:
                if kind in self._of:
                    raise UserError(f"two task sources are called '{kind}'; rename one with as=NAME")
                self._of[kind] = source
        self.unlabelled = False  # whether `draw` gives tasks without their labels
        self._held: dict[str, Task] = {}
        self._asked: set[str] = set()  # what the held-out tasks ask
        self._part()
        self._tries = max([TRIES, *(s.size for s in self.sources if isinstance(s, FiniteSource))])

    def _part(self) -> None:
        """What one finite source sets aside is not trained on from another: one file under two names, say."""
        finite = [s for s in self.sources if isinstance(s, Listed)]
        aside = {asked(t) for s in finite for t in s.tasks("eval")} if len(finite) > 1 else set()
        for source in finite if aside else ():
            source.leave_out(lambda task: asked(task) in aside, "train")

    def leave_out_long(self, length: Callable[[Task], int], limit: int) -> list[str]:
        """Takes tasks of a list or file whose prompt has `limit` tokens or more out; a sentence about each source that
        lost some. Raises UserError where a source has none left to train on."""
        notes = []
        for source in self.sources:
            if not isinstance(source, Listed) or not (
                gone := source.leave_out(lambda t: t.environment is None and length(t) >= limit)
            ):
                continue
            most = max(length(task) for task in gone)
            said = (
                f"{source.name}: {len(gone)} of {len(gone) + source.size} tasks have prompts that do not fit"
            )
            if not source.tasks("train"):
                raise UserError(
                    f"{said} (up to {most} tokens; fewer than {limit} must be); raise run.context"
                )
            notes.append(f"{said} (up to {most} tokens; fewer than {limit} must be) and are left out")
        return notes

    @classmethod
    def of(
        cls,
        tasks: Iterable[Task],
        held: Iterable[Task] | None = None,
        name: str = "tasks",
        eval_share: float = 0.2,
    ) -> TaskSet:
        """A task set of your own tasks. `held`: your own evaluation tasks, which must share none with
        `tasks`; without them `eval_share` of the tasks is set aside by hash."""
        return cls([Listed(name, tasks, eval_share, held)])

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds that may be asked for."""
        return tuple(self._of)

    def levels(self, kind: str) -> tuple[float, ...]:
        """The difficulties of a kind. Raises UserError for an unknown kind."""
        return self._source(kind).levels(kind)

    def fingerprint(self) -> str:
        """Names the task set: changed parameters, weights or file contents change it."""
        return digest([[s.fingerprint() for s in self.sources], self.weights])

    def contents(self) -> dict[str, str]:
        """Hashes of all that the tasks hold, by what it is; of a source that cannot list its tasks, its fingerprint."""
        found: dict[str, list[str]] = {"sources": [digest(self.weights)]}
        for source in self.sources:
            if isinstance(source, Listed):
                for what, value in source.contents().items():
                    found.setdefault(what, []).append(value)
            found["sources"].append(source.name if isinstance(source, Listed) else source.fingerprint())
        found["split"] = [self.fingerprint()]
        return {what: digest(values) for what, values in found.items()}

    @property
    def notes(self) -> list[str]:
        """What a user should know of the tasks, a sentence each."""
        return [note for source in self.sources for note in getattr(source, "notes", ())]

    def examined(self) -> list[Task] | None:
        """All tasks, where each source is a file that names no evaluation part of its own; else None."""
        if not all(isinstance(s, Listed) and s.whole for s in self.sources):
            return None
        found = [
            t for s in self.sources if isinstance(s, Listed) for p in ("train", "eval") for t in s.tasks(p)
        ]
        return sorted(found, key=lambda task: item_seed("examined", task.key))

    def describe(self) -> list[Info]:
        """What each source is."""
        return [source.describe() for source in self.sources]

    def holdout(self, n: int, seed: int) -> list[Task]:
        """`n` different evaluation tasks. From now on `draw` never returns one of them.

        Raises UserError where the sources hold fewer than `n`. Call it before drawing, and again with the
        same arguments after a resume: it gives the same tasks.
        """
        if n < 0:
            raise UserError(f"holdout: {n} tasks were asked for; the number must be 0 or more")
        found: dict[str, Task] = {}
        for i in range(n):
            for attempt in range(self._tries):
                source, kind = self._pick("eval", seed, i, attempt)
                task = self._one(source, kind, None, "eval", seed, i, attempt)
                if task is not None and task.key not in found:
                    found[task.key] = task
                    break
            else:
                raise UserError(
                    f"{n} evaluation tasks were asked for but after {len(found)} different ones "
                    f"{', '.join(self.kinds)} gave only repeats; ask for fewer or allow harder tasks"
                )
        self._held = {**self._held, **found}
        self._asked |= {asked(task) for task in found.values()}
        return list(found.values())

    def validation(self, n: int) -> list[Task]:
        """At most `n` tasks that ask otherwise than the held-out ones, never to be drawn either. Call it after `holdout`. Of
        lists and files they are taken out of the training part, at most a quarter of it."""
        if self._finite:
            found = self._from_training(n, "validation")
            names = {asked(task) for task in found}
            for source in self._finite:
                source.leave_out(lambda task: asked(task) in names, "train")
        else:
            before = set(self._asked)
            found = [t for t in self.holdout(2 * n, VALIDATION_SEED) if asked(t) not in before][:n]
        if not found:
            raise UserError(f"{', '.join(self.kinds)} holds too few tasks to set some aside for validation")
        self._held |= {task.key: task for task in found}
        self._asked |= {asked(task) for task in found}
        return found

    def tuning(self, n: int) -> list[Task]:
        """At most `n` tasks for choosing settings, where all sources are lists or files: out of the training part, at most a
        quarter of it; the same ones when called again. Call it after `holdout`."""
        if not any(source.tasks("tuning") for source in self._finite):
            names = {asked(task) for task in self._from_training(n, "tuning")}
            for source in self._finite:
                source.set_apart(lambda task: asked(task) in names, "tuning")
        found = {asked(task): task for source in self._finite for task in source.tasks("tuning")}
        if not found:
            raise UserError(f"{', '.join(self.kinds)} holds too few tasks to set some aside for tuning")
        self._held |= {task.key: task for task in found.values()}
        self._asked |= found.keys()
        return list(found.values())

    @property
    def _finite(self) -> list[Listed]:
        """The sources, where all of them are lists or files; else none."""
        found = [source for source in self.sources if isinstance(source, Listed)]
        return found if len(found) == len(self.sources) else []

    def _from_training(self, n: int, purpose: str) -> list[Task]:
        """At most `n` training tasks that ask different things, by a hash, and at most a quarter of all."""
        known = [task for source in self._finite for task in source.tasks("train")]
        known.sort(key=lambda task: item_seed(purpose, task.key))
        apart = {asked(task): task for task in reversed(known) if not self.held(task)}
        return list(apart.values())[::-1][: min(n, len(known) // 4)]

    def held(self, task: Task) -> bool:
        """Whether `task`, or the task it was made from (`meta["parent"]`, a key), is held out for evaluation: it,
        or one that asks the same (`tasks.asked`)."""
        return asked(task) in self._asked or task.meta.get("parent") in self._held

    def draw(self, request: Request, index: int, seed: int) -> Task:
        """The training task number `index`: a pure function of its arguments and the held-out set.

        Raises UserError for an unknown kind or difficulty, where only held-out tasks are left, and for a task that
        is held out or was made from one that is.
        """
        if request.task is not None:
            if self.held(request.task):
                raise UserError(
                    f"task {request.task.key} is held out for evaluation; it cannot be trained on"
                )
            return unlabelled(request.task) if self.unlabelled else request.task
        for attempt in range(self._tries):
            source, kind = self._pick("train", seed, index, attempt)
            if request.kind is not None:
                source, kind = self._source(request.kind), request.kind
            task = self._one(source, kind, request.difficulty, "train", seed, index, attempt)
            if task is not None and asked(task) not in self._asked:
                return unlabelled(task) if self.unlabelled else task
        wanted = request.kind or ", ".join(self.kinds)
        raise UserError(
            f"'{wanted}' has no task left to train on: {self._tries} draws gave only tasks held out for "
            f"evaluation ({len(self._held)}); hold out fewer, or allow more or harder tasks"
        )

    def different(self, number: int, seed: int, request: Request | None = None, first: int = 0) -> list[Task]:
        """At most `number` different training tasks, of those that `draw` gives from index `first` on; fewer where 50 draws
        for each do not find them."""
        found: dict[str, Task] = {}
        for index in range(first, first + 50 * number):
            task = self.draw(request or Request(), index, seed)
            found.setdefault(task.key, task)
            if len(found) == number:
                break
        return list(found.values())

    def _one(
        self,
        source: Source,
        kind: str | None,
        difficulty: float | None,
        purpose: str,
        seed: int,
        index: int,
        attempt: int,
    ) -> Task | None:
        if isinstance(source, FiniteSource):
            return source.numbered(kind, difficulty, purpose, index, attempt, seed)
        assert kind is not None
        drawn = source.draw(kind, difficulty, 1, item_seed(purpose, seed, kind, index, attempt))
        return drawn[0] if drawn else None

    def _source(self, kind: str) -> Source:
        if kind not in self._of:
            raise UserError(f"this task set has no kind '{kind}'{nearest(kind, self._of)}")
        return self._of[kind]

    def _pick(self, *where: object) -> tuple[Source, str | None]:
        """A source by weight and one of its kinds, from a hash of `where`. A finite source is drawn from as a
        whole (kind None), so that each of its tasks weighs the same."""
        point = item_seed("mixture", *where) / 2**63 * sum(self.weights)
        chosen = self.sources[-1]
        for source, weight in zip(self.sources, self.weights, strict=True):
            if point < weight:
                chosen = source
                break
            point -= weight
        if isinstance(chosen, FiniteSource):
            return chosen, None
        return chosen, chosen.kinds[item_seed("kind", *where) % len(chosen.kinds)]
