"""An environment of verifiers with a conversation of several turns: find a letter."""

import verifiers.v1 as vf


class GuessData(vf.TaskData):
    letter: str


class GuessTask(vf.Task[GuessData]):
    pass


class GuessTaskset(vf.Taskset[GuessTask, vf.TasksetConfig]):
    def load(self):
        return [GuessTask(GuessData(prompt=None, letter=x), self.config.task) for x in "bdf"]


class GuessConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


class GuessEnv(vf.Env[GuessConfig]):
    async def run(self, task, agents):
        asked = 0
        async with agents.player.interaction(task) as talk:
            segment = await talk.turn("Guess a letter from a to f.")
            while not segment.terminated:
                asked += 1
                if segment.last_reply == task.data.letter:
                    break
                segment = await talk.turn("later" if segment.last_reply < task.data.letter else "earlier")
        talk.trace.record_metric("asked", asked)

    async def finalize(self, task, episode):
        (trace,) = episode.traces
        trace.record_reward("found", float(trace.last_reply == task.data.letter))


__all__ = ["GuessEnv", "GuessTaskset"]
