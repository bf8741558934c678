"""The page and its server, without a browser: what is in the file, what it may do, and what can be asked for."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser.synthetic import KINDS, MALICIOUS, Words, make_comparison, make_run, make_step
from etude.errors import UserError
from etude.report import data
from etude.report.page import build, write_report
from etude.report.run import RunDirectory
from etude.report.server import make_server


def content_of(page: str) -> Any:
    """The data block of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served") / "runs"
    make_run(root / "alpha", steps=8)
    make_comparison(root / "bake", steps=2)
    (root.parent / "secret.txt").write_text("secret")
    (root / "link").symlink_to(root.parent)
    return root


def test_a_page_holds_the_run_and_only_its_own_script(runs: Path) -> None:
    page = write_report(runs / "alpha").read_text()
    content = content_of(page)
    run = RunDirectory.open(runs / "alpha")
    assert content["metrics"]["reward"] == [data.digits(m["reward"]) for m in run.metrics()]
    assert content["metrics"]["curriculum/maze@1"][0] == data.digits(run.metrics()[0]["curriculum"]["maze@1"])
    assert (
        len(content["episodes"]["rows"])
        == content["episodes"]["total"]
        == run.episodes(columns=["id"]).num_rows
    )
    assert "per_problem" not in content["evals"]["shown"][0]
    said = "".join(content["episodes"]["rows"][-1]["pieces"])
    assert "".join(run.episodes([8], ["pieces"])["pieces"][-1].as_py()) == said
    last = run.episodes([8], ["logp", "sampled"]).to_pylist()[-1]
    logp = [value for value, sampled in zip(last["logp"], last["sampled"], strict=True) if sampled]
    assert content["episodes"]["rows"][-1]["logp"] == pytest.approx(logp, rel=1e-3)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    script = page.rsplit("<script>", 1)[1].rsplit("</script>", 1)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in policy[1]
    assert "default-src &#x27;none&#x27;" in policy[1]
    assert "connect-src &#x27;none&#x27;" in policy[1]
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page), "nothing is fetched from elsewhere"
    assert "innerHTML" not in re.sub(
        r"/\*.*?</script>", "", script.split("// Building blocks", 1)[1], flags=re.S
    )


def test_hostile_text_stays_inside_the_data_block(tmp_path: Path) -> None:
    page = build({"kind": "run", "name": "{{style}}</title><script>", "text": MALICIOUS}, live=False)
    assert content_of(page)["text"] == MALICIOUS
    assert page.count("<script") == 2, "the data block and the page's own script"
    assert "{{style}}&lt;/title&gt;" in page
    assert page.count(":root {") == build({}, live=False).count(":root {"), (
        "text never stands for a placeholder"
    )


def test_results_without_their_card_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=2)
    run.write_eval({"step": 2, "name": "bare", "mean": 0.99, "low": 0.9, "high": 1.0, "problems": 30})
    found = content_of(write_report(run.path).read_text())["evals"]
    assert all(row["name"] != "bare" for row in found["shown"])
    assert found["refused"] == [{"step": 2, "name": "bare", "lacks": ["samples", "seed", "sampling", "rule"]}]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "results.json").write_text(
        json.dumps({"arms": [], "verdict": "", "problems": 5, "samples": 1})
    )
    with pytest.raises(UserError, match="lacks seeds, card"):
        write_report(tmp_path / "c")
    with pytest.raises(UserError, match="neither a run nor a comparison"):
        write_report(tmp_path)


def test_a_run_that_recorded_little_still_has_a_page(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", {}, {})
    assert content_of(write_report(tmp_path / "run").read_text())["metrics"] == {}


def test_five_hundred_steps_stay_below_twenty_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=1, tasks=8, samples=8)
    lines = (run.path / "metrics.jsonl").read_text()
    for step in range(2, 501):  # 64 episodes a step; the files are copies, their number is what is tested
        shutil.copy(run.episode_file(1), run.episode_file(step))
    rows = [lines.replace('"step": 1}', f'"step": {step}}}') for step in range(1, 501)]
    (run.path / "metrics.jsonl").write_text("".join(rows))
    run.write_finding(
        {"step": 37, "name": "kl", "message": "", "value": 1.0, "threshold": 0.5, "episodes": ["1-7"]}
    )
    size = write_report(run.path).stat().st_size
    assert 6e6 < size < 20e6


def test_the_sample_is_whole_groups_over_the_whole_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=40)
    run.write_finding(
        {"step": 7, "name": "kl", "message": "", "value": 1.0, "threshold": 0.5, "episodes": ["7-20"]}
    )
    found = data.sample(run, 150_000)
    rows = found["rows"]
    assert 0 < len(rows) < found["total"] == run.episodes(columns=["id"]).num_rows
    assert "7-20" in {row["id"] for row in rows}
    steps = {row["step"] for row in rows}
    assert {1, 40} <= steps
    assert max(np.diff(sorted(steps))) <= 10
    sizes = {(r["step"], r["group"]): 0 for r in rows}
    for row in rows:
        sizes[row["step"], row["group"]] += 1
    assert set(sizes.values()) <= {6, 7}, "six attempts, and one more where one failed"
    assert len(json.dumps(rows)) < 300_000


def test_numbers_of_the_list(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=3)
    table = {row["id"]: row for row in run.episodes([3]).to_pylist()}
    for row in data.light(run, 3):
        whole = table[row["id"]]
        verdicts = json.loads(whole["verdicts"])
        rewards = [
            r["reward"] for r in table.values() if r["group"] == row["group"] and r["origin"] == "group"
        ]
        assert row["length"] == sum(whole["sampled"])
        assert row["spread"] == max(rewards) - min(rewards)
        assert row["change"] == (verdicts[-1]["reward"] - verdicts[0]["reward"] if len(verdicts) > 1 else 0)
    assert any(row["change"] > 0 for row in data.light(run, 3))


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    def json(self, path: str) -> Any:
        status, body = self.get(path)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture
def client(runs: Path) -> Iterator[Client]:
    server = make_server(runs)
    assert server.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Client(int(server.server_address[1]))
    server.shutdown()
    server.server_close()


def test_the_server_lists_and_serves(client: Client, runs: Path) -> None:
    names = {row["name"]: row for row in client.json("/api/list")["runs"]}
    assert {"alpha", "bake", "bake/grpo/seed-0"} <= set(names)
    assert names["alpha"]["step"] == 8
    assert names["bake"]["arms"] == 4
    listed = client.json("/api/episodes?run=alpha")
    assert len(listed["rows"]) == RunDirectory.open(runs / "alpha").episodes(columns=["id"]).num_rows
    assert client.json("/api/episodes?run=alpha&after=7")["rows"][0]["step"] == 8
    group = client.json("/api/group?run=alpha&id=8-0")
    assert MALICIOUS in "".join(group[0]["pieces"])
    assert {row["group"] for row in group} == {0}
    assert len(group) >= 6
    assert client.json("/api/run?run=alpha&after=6")["metrics"]["step"] == [7, 8]
    status, page = client.get("/?run=bake")
    assert status == 200
    assert content_of(page.decode())["results"]["arms"][1]["name"] == "grpo"


def test_episodes_come_in_pages_of_whole_steps(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.report.server.PAGE", 30)
    first = client.json("/api/episodes?run=alpha")
    assert first["more"]
    assert first["last"] == first["rows"][-1]["step"] == 2
    assert client.json(f"/api/episodes?run=alpha&after={first['last']}")["rows"][0]["step"] == 3


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/..%2fsecret.txt", "//etc/passwd", "/?run=..", "/?run=../runs/alpha", "/?run=/etc", "/?run=link",
        "/?run=link/runs/alpha", "/api/run?run=..%2f..", "/api/run?run=alpha%00", "/api/run?run=alpha/../alpha", "/api/run",
        "/api/group?run=alpha&id=../../secret", "/api/group?run=alpha&id=1-999", "/api/group?run=alpha&id=99-0",
        "/api/episodes?run=alpha&after=x", "/report.html", "/alpha/config.json",
    ],
)  # fmt: skip
def test_nothing_else_can_be_asked_for(client: Client, path: str) -> None:
    status, body = client.get(path)
    assert status == 404
    assert b"secret" not in body


def test_only_this_machine_and_only_reading(client: Client) -> None:
    assert client.get("/", host="evil.example:80")[0] == 403
    assert client.get("/", host=f"localhost:{client.port}")[0] == 200
    assert client.get("/", method="POST")[0] == 501


def test_a_taken_port_and_a_missing_folder_are_one_sentence(client: Client, runs: Path) -> None:
    with pytest.raises(UserError, match="choose another --port"):
        make_server(runs, client.port)
    with pytest.raises(UserError, match="is not a directory"):
        make_server(runs / "nowhere")


def test_a_growing_run_is_read_as_it_grows(client: Client, runs: Path) -> None:
    run = make_run(runs / "growing", steps=2)
    assert client.json("/api/run?run=growing")["lines"] == 2
    groups, signals = make_step(Words(), np.random.default_rng(9), 0.5)
    words = Words()
    words.pieces += [b" w"] * 200  # ids of another vocabulary: any text will do
    run.write_step(3, {"reward": 0.5}, signals, groups, words.decode)
    fresh = client.json("/api/run?run=growing&after=2")
    assert (fresh["lines"], fresh["metrics"]["step"]) == (3, [3])
    assert {row["kind"] for row in client.json("/api/episodes?run=growing&after=2")["rows"]} == set(KINDS)
    shutil.rmtree(runs / "growing")
