"""Who writes a reflection or a critique: another model, near or remote, is read and not trained."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import toys
import worlds_of_letters as letters
from etude.errors import UserError
from etude.rollout.writers import RemoteModel, Writer
from etude.types import Message, SamplingParams
from second_attempts import decode, play, trained


@pytest.mark.parametrize(("who", "model"), [("start", "reference"), ("teacher", "teacher")])
def test_another_may_reflect_and_is_not_trained(who: str, model: str) -> None:
    other = toys.ScriptedSampler(replies=["<prompt>listen</prompt>"])
    generators = {model: toys.generator(other.policy, other)}
    group, signals, sampler, stages = play("erl", ["5", "7"], {"rollout.writer": who}, others=generators)
    assert stages["rollout"].reads == {model}
    (episode,) = group.episodes
    reflection = next(s for s in episode.spans if s.tag == "reflection")
    assert (decode(reflection.tokens), reflection.sampled) == ("<prompt>listen</prompt>", False)
    assert [t for t, _, _ in trained(signals[0])] == ["attempt 1", "attempt 2"]
    assert "listen\n\nq0" in decode(sampler.asked[1])
    assert len(other.asked) == 1


def test_a_frozen_start_is_loaded_when_it_is_to_write(tmp_path) -> None:
    from etude.train.setup import start

    more = {"run__eval_problems": 0, "rollout__writer": "start"}
    run = start(letters.plan(tmp_path, "erl", 1, **more), tmp_path / "run", letters.words())
    assert set(run.generators) == {"reference"}
    run.close()
    with pytest.raises(UserError, match=r"a second model \(--set run\.teacher=NAME\)"):
        start(letters.plan(tmp_path, "erl", 1, rollout__writer="teacher"), tmp_path / "no", letters.words())
    with pytest.raises(UserError, match="it must read http://HOST/v1#MODEL"):
        start(letters.plan(tmp_path, "erl", 1, rollout__writer="remote"), tmp_path / "no", letters.words())


class Chat(BaseHTTPRequestHandler):
    asked: list = []  # noqa: RUF012
    fail = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Chat.asked.append((self.path, body, self.headers.get("Authorization")))
        broken, Chat.fail = Chat.fail > 0, Chat.fail - 1
        self.send_response(503 if broken else 200)
        self.end_headers()
        said = {"choices": [{"message": {"content": "<prompt>from afar</prompt>"}}]}
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_) -> None: ...


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch):
    Chat.asked, Chat.fail = [], 0
    server = HTTPServer(("127.0.0.1", 0), Chat)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    yield f"http://127.0.0.1:{server.server_port}/v1#tiny"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_remote_model_may_reflect(chat: str) -> None:
    settings = {"rollout.writer": "remote", "rollout.address": chat}
    group, signals, sampler, _ = play("erl", ["5", "7"], settings)
    assert "from afar\n\nq0" in decode(sampler.asked[1])
    assert [t for t, _, _ in trained(signals[0])] == ["attempt 1", "attempt 2"]
    ((path, body, secret),) = Chat.asked
    assert (path, body["model"], body["max_tokens"], secret) == (
        "/v1/chat/completions",
        "tiny",
        6,
        "Bearer sesame",
    )
    assert body["messages"][-1]["role"] == "user"
    assert "too low" in body["messages"][-1]["content"]
    assert group.episodes[0].notes["reflection"] == "from afar"


def test_a_remote_model_is_asked_again_and_then_the_episode_fails(chat: str) -> None:
    writer = Writer("remote", chat)
    assert writer.remote is not None
    writer.remote.pause = 0.0
    Chat.fail = 2
    said = asyncio.run(writer.remote([Message("user", "?")], SamplingParams(greedy=True), 1))
    assert (said, len(Chat.asked)) == ("<prompt>from afar</prompt>", 3)
    assert Chat.asked[0][1]["temperature"] == 0.0
    Chat.fail = 9
    with pytest.raises(Exception, match="did not answer") as caught:
        asyncio.run(writer.remote([Message("user", "?")], SamplingParams(), 1))
    assert caught.value.failure.where == "sampler"
    with pytest.raises(UserError, match="it must read"):
        RemoteModel("localhost:8000")
