"""Scorers of reasoning-gym that evaluate what the model wrote: in the sandbox, under each protection that there is here."""

import inspect
import os
import re
import socket
from pathlib import Path

import pytest

from etude.tasks import confinement, isolate, load
from etude.tasks.check import CheckError, Function
from etude.tasks.gym_check import Gym
from etude.tasks.gym_facts import BY_TEXT, EVALUATED
from etude.tasks.isolate import Pool
from etude.types import Request

KINDS = ("namespaces", "landlock")
ESCAPES = {
    "read": "open({secret!r}).read() == 'secret'",
    "read this test": f"len(open({__file__!r}).read()) > 0",
    "write": "open({folder!r} + '/written', 'w') is not None",
    "write to /tmp": "open('/tmp/written', 'w') is not None",
    "network": "__import__('socket').socket().connect(('127.0.0.1', {port})) is None",
    "environment": "'ETUDE_SECRET' in __import__('os').environ",
    "the run's environment": "b'ETUDE_SECRET' in open('/proc/{pid}/environ', 'rb').read()",
    "processes": "__import__('os').system('true') == 0",
    "signals": "__import__('os').kill({pid}, 0) is None",
}


@pytest.fixture(scope="module", params=KINDS)
def pool(request):
    if not {"namespaces": confinement.bubblewrap, "landlock": confinement.landlock}[request.param]():
        pytest.skip(f"this machine offers no {request.param}")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "landlock":
            patch.setattr(confinement, "bubblewrap", lambda: None)
        patch.setattr(isolate, "confined", lambda check: True)
        patch.setenv("ETUDE_SECRET", "1")
        with Pool(workers=1, seconds=5) as made:
            yield made


@pytest.mark.parametrize("name", list(ESCAPES))
def test_what_is_evaluated_gets_nowhere(pool: Pool, name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        secret = tmp_path / "secret"
        secret.write_text("secret")
        port = server.getsockname()[1]
        text = ESCAPES[name].format(secret=str(secret), folder=str(tmp_path), port=port, pid=os.getpid())
        said = ""
        try:
            said = str(pool.run(Function(eval, isolated=True), text).correct)
        except CheckError as error:
            said = str(error)
    assert re.search(r"^False$|PermissionError|FileNotFoundError|ProcessLookupError|refused|OSError", said)
    assert not (tmp_path / "written").exists()
    assert pool.run(Function(eval, isolated=True), "True").correct


@pytest.mark.parametrize("name", ["countdown", "n_queens"])
def test_scorers_work_inside(pool: Pool, name: str) -> None:
    task = load(name).draw(Request(), 0, 0)
    assert task.check.confined
    assert pool.run(task.check, task.answer).correct
    assert not pool.run(task.check, "1 + 1").correct


def test_every_scorer_that_evaluates_the_answer_is_known() -> None:
    """`eval(answer)` and `parse_expr(answer)` in the library's own text; by text means that the scorer is not called."""
    from reasoning_gym.factory import DATASETS

    found = {
        name
        for name, (dataset, _) in DATASETS.items()
        if re.search(
            r"\b(eval|exec|parse_expr|sympify)\(\s*\w*answer", inspect.getsource(dataset.score_answer)
        )
    }
    assert found - set(BY_TEXT) == set(EVALUATED)
    assert all(Gym(gold="1", name=name).isolated for name in EVALUATED)


def test_where_nothing_keeps_it_in_it_is_isolated_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is shown to these scorers only where it consists of digits and signs (`gym_facts.HARMLESS`)."""
    monkeypatch.setattr(confinement, "bubblewrap", lambda: None)
    monkeypatch.setattr(confinement, "landlock", lambda: None)
    monkeypatch.setattr(confinement, "system_call_filter", lambda: None)
    task = load("n_queens").draw(Request(), 0, 0)
    with Pool(workers=1) as own:
        assert own.run(task.check, task.answer).correct
        assert len(own.pids) == 1


@pytest.mark.parametrize("name", ["countdown", "simple_integration"])
def test_what_would_be_worked_out_for_ever_is_wrong_and_no_error(pool: Pool, name: str) -> None:
    task = load(name).draw(Request(), 0, 0)
    answers = ("9**9**9", "(9**9)**(9**9)", "x**(9**9)**9", "9**99999999", "9**(99*99*99)", "1" * 100_000)
    for answer in answers:
        assert not pool.run(task.check, answer).correct
