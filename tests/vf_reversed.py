"""A task set of verifiers, as its `vf-init` begins one: write a word backwards."""

import verifiers.v1 as vf


class ReversedData(vf.TaskData):
    word: str


class ReversedTask(vf.Task[ReversedData]):
    @vf.reward(weight=1.0)
    async def reversed(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == self.data.word[::-1])

    @vf.reward(weight=0.5)
    async def short(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply) < 10)


class ReversedConfig(vf.TasksetConfig):
    num_tasks: int = 5


class ReversedTaskset(vf.Taskset[ReversedTask, ReversedConfig]):
    def load(self):
        words = ("pear", "plum", "fig", "date", "lemon", "quince")[: self.config.num_tasks]
        return [
            ReversedTask(
                ReversedData(prompt=f"Write '{w}' backwards.", system_prompt="Be short.", word=w),
                self.config.task,
            )
            for w in words
        ]


__all__ = ["ReversedTaskset"]
