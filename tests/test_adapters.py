"""Environments of other libraries, each played against the library itself; and etude's tasks played by verifiers."""

import asyncio
import json
import pickle
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from etude.errors import UserError
from etude.rollout import turns
from etude.tasks import catalogue, load, self_test
from etude.tasks.spec import parse
from etude.types import Request


def drawn(spec: str, number: int = 0):
    return load(spec).draw(Request(), number, 0)


async def through(task, replies: list[str]):
    """All that is said, and the verdict."""
    environment = task.environment(0)
    said = [await turns.observe(environment)]
    verdict = None
    for reply in replies:
        assert verdict is None
        words, verdict = await turns.act(environment, reply)
        said.append(words)
    await turns.close(environment)
    return said, verdict


# ---- what is missing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("verifiers:x", "verifiers", "verifiers"),
        ("textworld", "textworld", "textworld"),
        ("openenv:http://localhost:1", "openenv", "openenv"),
        ("miniwob:click-button", "miniwob", "miniwob"),
    ],
)
def test_a_library_that_is_missing_is_named(name: str, module: str, extra: str, monkeypatch) -> None:
    for held in [m for m in sys.modules if m.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, held)
    monkeypatch.setitem(sys.modules, module, None)
    given = name if ":" in name else f"{name}:turns=3"
    with pytest.raises(UserError, match=rf"{module} is not installed; pip install 'etude\[{extra}\]'"):
        load(given)
    (info,) = catalogue(name.partition(":")[0])
    assert "is not installed" in info.fault


@pytest.mark.parametrize("name", ["gymnasium", "verifiers", "openenv", "miniwob"])
def test_an_adapter_that_was_given_nothing_says_what_it_needs(name: str) -> None:
    tasks = load(name)
    with pytest.raises(UserError, match=rf"task '{name}' needs (env|url|page)=|is not installed"):
        tasks.draw(Request(), 0, 0)


def test_the_first_parameter_needs_no_name() -> None:
    (one, two) = parse("verifiers:my_env,num_tasks=3,house:level=1")
    assert one.params == {"env": "my_env", "num_tasks": "3"}
    assert two.params == {"level": "1"}
    assert parse("openenv:http://h:80,turns=2")[0].params == {"url": "http://h:80", "turns": "2"}
    assert parse("gymnasium:env=Taxi-v4")[0].params == {"env": "Taxi-v4"}
    with pytest.raises(UserError, match="must read param=value"):
        parse("house:kitchen")


# ---- Gymnasium -------------------------------------------------------------------------------------------------------------


def test_gymnasium_by_discrete_actions() -> None:
    spec = "gymnasium:CliffWalking-v1,actions=up;right;down;left,low=-100,high=-13,turns=20"
    task = drawn(spec)
    said, verdict = asyncio.run(through(task, ["sing", "up", *["right"] * 11, "down"]))
    assert said[0].startswith("o  o")
    assert said[1].startswith("That is no action. Actions: up, right, down, left.\n")
    assert verdict.correct
    _, verdict = asyncio.run(through(drawn(spec + ",feedback=hint"), ["up"] * 20))
    assert not verdict.correct
    assert verdict.feedback == "You got -20; -13 was wanted."
    assert 0.9 < verdict.reward < 1
    assert pickle.loads(pickle.dumps(task)).key == task.key


def test_gymnasium_by_text() -> None:
    import gymnasium
    from gymnasium import spaces

    class Echo(gymnasium.Env):
        observation_space = spaces.Text(20)
        action_space = spaces.Text(10)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.word = "".join(self.np_random.choice(list("abc"), 3))
            return self.word, {}

        def step(self, action):
            return "right" if action == self.word else "wrong", float(action == self.word), True, False, {}

    gymnasium.register("EchoText-v0", Echo)
    task = drawn("gymnasium:EchoText-v0")
    word = task.environment(0).observe()
    assert task.environment(1).observe() == word
    said, verdict = asyncio.run(through(task, [word]))
    assert said == [word, "right"]
    assert verdict.correct
    assert asyncio.run(through(task, ["zzz"]))[1].reward == 0


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("gymnasium:Taxy-v9", "there is no environment 'Taxy-v9'"),
        ("gymnasium:CartPole-v1", "must show Text or discrete values"),
        ("gymnasium:Pendulum-v1", "must be Text or Discrete"),
        ("gymnasium:Taxi-v4,actions=a;b", "names 2 actions, and 'Taxi-v4' has 6"),
        ("gymnasium:turns=3", "needs env="),
    ],
)
def test_gymnasium_that_cannot_be_played_in_words(spec: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        load(spec)


# ---- TextWorld -------------------------------------------------------------------------------------------------------------


def test_textworld_makes_games_that_can_be_won() -> None:
    pytest.importorskip("textworld")
    task = drawn("textworld:rooms=2,objects=3,quest=2,feedback=full")
    self_test(task)
    said, verdict = asyncio.run(through(task, task.reference.split("\n")))
    assert verdict.correct
    assert "You can: " in said[0]
    environment = pickle.loads(pickle.dumps(task.environment))()
    assert environment.expert() == task.reference.split("\n")[0]
    assert environment.act("dance")[0].startswith("That cannot be done.")
    assert drawn("textworld:rooms=2,objects=3,quest=2,feedback=full").key == task.key
    with pytest.raises(UserError, match="quest=0 is out of range"):
        load("textworld:quest=0")


# ---- verifiers -------------------------------------------------------------------------------------------------------------


def test_a_task_set_of_verifiers() -> None:
    pytest.importorskip("verifiers.v1")
    task_set = load("verifiers:vf_reversed,num_tasks=6,full=1.5")
    tasks = [*task_set.holdout(1, 0), *(task_set.draw(Request(), i, 0) for i in range(5))]
    assert len({t.key for t in tasks}) == 6
    one = next(t for t in tasks if "plum" in t.prompt[-1].content)
    assert [m.role for m in one.prompt] == ["system", "user"]
    assert asyncio.run(through(one, ["mulp"]))[1].reward == 1
    said, verdict = asyncio.run(through(pickle.loads(pickle.dumps(one)), ["plum"]))
    assert said == ["", ""]
    assert verdict.reward == pytest.approx(0.5 / 1.5)
    assert verdict.feedback == "Rewards: reversed 0, short 1."


def test_a_conversation_of_verifiers() -> None:
    pytest.importorskip("verifiers.v1")
    tasks = load("verifiers:vf_guess,eval_share=0,turns=3")
    for i in range(3):
        task = tasks.draw(Request(), i, 0)
        letter = json.loads(task.environment.data)["letter"]
        said, verdict = asyncio.run(through(task, ["a", letter]))
        assert said == ["Guess a letter from a to f.", "later", ""]
        assert verdict.correct
        said, verdict = asyncio.run(through(task, ["a", "a", "a"]))
        assert said[-1] == ""
        assert verdict.reward == 0, "turns are used up"


def test_verifiers_that_cannot_be_played() -> None:
    pytest.importorskip("verifiers.v1")
    with pytest.raises(UserError, match=r"vf_nothing.*not found"):
        load("verifiers:vf_nothing")
    with pytest.raises(UserError, match="num_tasks"):
        load("verifiers:vf_reversed,num_tasks=many")


class Scripted(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that replies by the number of replies so far."""

    replies: tuple[str, ...] = ()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = sum(m["role"] == "assistant" for m in asked["messages"])
        message = {"role": "assistant", "content": self.replies[said]}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
        body["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments) -> None:
        pass


@pytest.mark.parametrize("tasks", ["house:level=0", "chain_sum:min_terms=2,max_terms=2"])
def test_verifiers_plays_tasks_of_etude(tasks: str, monkeypatch) -> None:
    vf = pytest.importorskip("verifiers.v1")
    from verifiers.v1.utils.loaders import load_environment, resolve_env_config

    from etude.export.verifiers import task_of

    monkeypatch.setenv("NO_KEY", "none")
    env = load_environment(
        resolve_env_config({"taskset": {"id": "etude-verifiers", "tasks": tasks, "num_tasks": 3, "held": 4}})
    )
    (task,) = list(env.taskset.take(1))
    problem = task_of(tasks, "train", 0, 4, 0)
    replies = (problem.reference or problem.answer).split("\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    async def played():
        client = vf.EvalClientConfig(
            base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key_var="NO_KEY"
        )
        ctx = vf.ModelContext(model="m", client=client, sampling=vf.SamplingConfig())
        async with env.serving():
            (slot,) = env.slots(task)
            return await env.run_slot(slot, ctx)

    try:
        for said, reward in ((replies, 1.0), (["nothing"] * 99, 0.0)):
            monkeypatch.setattr(Scripted, "replies", said)
            episode = asyncio.run(played())
            assert episode.ok, [*episode.errors, *(e for t in episode.traces for e in t.errors)]
            (trace,) = episode.traces
            assert trace.reward == reward
            assert trace.metrics["correct"] == reward
    finally:
        server.shutdown()
    assert len(list(env.taskset)) == 3


# ---- OpenEnv ---------------------------------------------------------------------------------------------------------------


def test_a_server_of_openenv() -> None:
    pytest.importorskip("openenv.core.generic_client")
    uvicorn = pytest.importorskip("uvicorn")
    from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app

    class Say(Action):
        word: str

    class Heard(Observation):
        text: str = ""

    class Echo(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self.turns = self.wanted = 0

        def reset(self, seed=None, episode_id=None, **kwargs):
            self.turns, self.wanted = 0, (seed or 0) % 10
            return Heard(text=f"say {self.wanted}", done=False, reward=0.0)

        def step(self, action, timeout_s=None, **kwargs):
            self.turns += 1
            right = action.word == str(self.wanted)
            return Heard(text=f"you said {action.word}", done=self.turns == 2, reward=0.5 * right)

        @property
        def state(self):
            return State(step_count=self.turns)

    app = create_fastapi_app(Echo, Say, Heard, max_concurrent_envs=8)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
        assert thread.is_alive()
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        tasks = load(f"openenv:{url},feedback=hint")
        one, two = (tasks.draw(Request(), i, 0) for i in range(2))
        assert one.key != two.key
        wanted = str(one.environment.seed % 10)

        async def both():
            right = through(one, [wanted, json.dumps({"word": wanted})])
            return await asyncio.gather(right, through(two, ["x", "y"]))

        (said, verdict), (_, lost) = asyncio.run(both())
        assert said == [f"say {wanted}", f"you said {wanted}", f"you said {wanted}"]
        assert verdict.correct
        assert lost.feedback == "You got 0; 1 was wanted."
    finally:
        server.should_exit = True
        thread.join(10)


def test_nobody_answers_as_openenv() -> None:
    pytest.importorskip("openenv.core.generic_client")
    with pytest.raises(UserError, match=r"no server of OpenEnv answers at http://127\.0\.0\.1:9"):
        load("openenv:http://127.0.0.1:9")


# ---- textarena, alone ------------------------------------------------------------------------------------------------------


def test_a_game_of_textarena_for_one() -> None:
    pytest.importorskip("textarena")
    task = drawn("textarena:TowerOfHanoi-v0,feedback=hint")
    moves = ["[A C]", "[A B]", "[C B]", "I move\n[A C]", "[B A]", "[B C]", "[A C]"]
    said, verdict = asyncio.run(through(task, moves))
    assert "3 disks" in said[0]
    assert "You moved disk 1 from A to C" in said[1]
    assert "3 disks" not in said[1], "only what is new is said"
    assert verdict.correct
    _, verdict = asyncio.run(through(task, ["[B A]", "[B A]"]))
    assert (verdict.reward, verdict.correct) == (0.0, False)
    assert "Invalid Move" in verdict.feedback
    guess = drawn("textarena:GuessTheNumber-v0")
    first, second = (asyncio.run(through(guess, ["[10]"])) for _ in range(2))
    assert first == second
    with pytest.raises(UserError, match="no parameter 'seat'"):
        load("textarena:TowerOfHanoi-v0,seat=1")
