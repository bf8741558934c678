"""A sandbox of each kind that this machine offers, for tests."""

import pytest

from etude.tasks import confinement
from etude.tasks.sandbox import Limits, Sandbox

KINDS = ("namespaces", "landlock")


def available(kind: str) -> bool:
    return bool({"namespaces": confinement.bubblewrap, "landlock": confinement.landlock}[kind]())


@pytest.fixture(params=KINDS)
def box(request, monkeypatch):
    if not available(request.param):
        pytest.skip(f"this machine offers no {request.param}")
    if request.param == "landlock":
        monkeypatch.setattr(confinement, "bubblewrap", lambda: None)
    assert confinement.protection() == request.param
    with Sandbox(Limits(seconds=2.0), ahead=1) as made:
        yield made


def run(box: Sandbox, code: str, *arguments, name: str = "f"):
    with box.program() as program:
        fault = program.load(code)
        return program.call(name, arguments) if fault is None else fault
