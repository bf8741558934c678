"""etude trains a language model on its own checked attempts, and compares ways of doing so.

    import etude
    run = etude.train("grpo", model="smollm2", tasks="chain_sum:max_terms=2", budget="5m")
    run.before, run.after, run.report(), run.save("my-model")

`import etude` is fast: what a name stands for is imported when it is first used.
"""

from __future__ import annotations

# Nothing that `python -m etude` has not loaded already is imported here: the working directory comes first then.
import importlib
import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any

    from etude.compare.session import FinishedComparison, compare
    from etude.errors import Refused, UserError
    from etude.evaluate.result import EvalResult
    from etude.recipe import AuxiliaryModel, Paper, Recipe
    from etude.rollout.conversation import Conversation
    from etude.rollout.group_rollout import GroupRollout
    from etude.settings import Setting, Stage, stage
    from etude.stages import Context, Credit, Curriculum, Filter, GroupRolloutStage, Reward, Rollout
    from etude.study.session import FinishedStudy, study
    from etude.tasks import TaskSet
    from etude.train.config import Budget, Plan
    from etude.train.session import evaluate, load, resume, train
    from etude.train.trained import TrainedRun
    from etude.types import (
        Environment,
        Episode,
        Group,
        Message,
        Request,
        SamplingParams,
        Signal,
        Span,
        Task,
        Verdict,
    )

__version__ = "0.2.0"

__all__ = [
    "AuxiliaryModel",
    "Budget",
    "Context",
    "Conversation",
    "Credit",
    "Curriculum",
    "Environment",
    "Episode",
    "EvalResult",
    "Filter",
    "FinishedComparison",
    "FinishedStudy",
    "Group",
    "GroupRollout",
    "GroupRolloutStage",
    "Message",
    "Paper",
    "Plan",
    "Recipe",
    "Refused",
    "Request",
    "Reward",
    "Rollout",
    "SamplingParams",
    "Setting",
    "Signal",
    "Span",
    "Stage",
    "Task",
    "TaskSet",
    "TrainedRun",
    "UserError",
    "Verdict",
    "__version__",
    "compare",
    "evaluate",
    "load",
    "resume",
    "stage",
    "study",
    "train",
]

_HOME = {
    "AuxiliaryModel": "etude.recipe",
    "Budget": "etude.train.config",
    "Context": "etude.stages",
    "Conversation": "etude.rollout.conversation",
    "Credit": "etude.stages",
    "Curriculum": "etude.stages",
    "Environment": "etude.types",
    "Episode": "etude.types",
    "EvalResult": "etude.evaluate.result",
    "Filter": "etude.stages",
    "FinishedComparison": "etude.compare.session",
    "FinishedStudy": "etude.study.session",
    "Group": "etude.types",
    "GroupRollout": "etude.rollout.group_rollout",
    "GroupRolloutStage": "etude.stages",
    "Message": "etude.types",
    "Paper": "etude.recipe",
    "Plan": "etude.train.config",
    "Recipe": "etude.recipe",
    "Refused": "etude.errors",
    "Request": "etude.types",
    "Reward": "etude.stages",
    "Rollout": "etude.stages",
    "SamplingParams": "etude.types",
    "Setting": "etude.settings",
    "Signal": "etude.types",
    "Span": "etude.types",
    "Stage": "etude.settings",
    "Task": "etude.types",
    "TaskSet": "etude.tasks",
    "TrainedRun": "etude.train.trained",
    "UserError": "etude.errors",
    "Verdict": "etude.types",
    "compare": "etude.compare.session",
    "evaluate": "etude.train.session",
    "load": "etude.train.session",
    "resume": "etude.train.session",
    "stage": "etude.settings",
    "study": "etude.study.session",
    "train": "etude.train.session",
}


class _Called(ModuleType):
    """A package that is called as the public function of its own name: `etude.train` holds modules and trains."""

    @property
    def _function(self) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(_HOME[name]), name)

    @property
    def __signature__(self) -> inspect.Signature:
        import inspect

        return inspect.signature(self._function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        """The import system binds every package below this one here."""
        if name in _HOME and isinstance(value, ModuleType):
            value.__class__ = _Called
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'etude' has no attribute '{name}'")
    found = getattr(importlib.import_module(_HOME[name]), name)
    return globals().get(name, found)  # a package of that name, which is called as the function


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
