"""Files that say where engines are, and the commands that read them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from etude.cli import run
from etude.errors import UserError
from etude.scale.place import Place, Trainer, unfit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("engines = 3", "engines is a table"),
        ("[engine]\ncount = 1", r"has a table \[engine\]; known are \[engines\] and \[trainer\]"),
        ("[engines]\ncont = 1", "there is no 'cont' in .*did you mean 'count'"),
        ("[engines]\ncount = true", "must be a whole number"),
        ("[engines]\naddress = 'http://a'", "must be a list of texts"),
        ("[engines]\naddress = [1]", "must be a list of texts"),
        ("[engines]", r"either address = \[...\] or count"),
        ("[engines]\ncount = 1\naddress = ['http://127.0.0.1:1']", "either address"),
        ("[engines]\ncount = -1", "not below 0"),
        ("[engines]\ncount = 2\ngpus = ['0']", "names 1 sets of GPUs for 2 engines"),
        ("[engines]\naddress = ['http://10.0.0.1:8000']", "another machine; name a folder"),
        ("[engines]\naddress = ['localhost:8000']", "looks like http://"),
        ("[engines]\ncount = 1\ndeadline = 0.0", "not below 0"),
        ("engines [", "is not TOML"),
        ("", "is empty"),
        ("trainer = 2", "trainer is a table"),
        ("[trainer]\nrank = 2", "there is no 'rank' in .*did you mean 'ranks'"),
        ("[trainer]\nranks = 0", "are above 0"),
        ("[trainer]\nranks = 2\ndeadline = 0.0", "are above 0"),
        ("[trainer]\nranks = 2\nbackend = 'mpi'", "must be gloo or nccl"),
        ("[trainer]\nranks = 2\ngpus = ['0']", "names 1 GPUs for 2 ranks"),
        ("[trainer]\nranks = 2\ngpus = ['0', 'b']", "must be a GPU's number"),
    ],
)
def test_a_file_that_cannot_work_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "place.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words) as caught:
        Place.read(path)
    assert "\n" not in str(caught.value)


def test_a_place_survives_being_written_down(tmp_path: Path) -> None:
    path = tmp_path / "place.toml"
    path.write_text("[engines]\ncount = 2\ngpus = ['0', '1,2']\ndeadline = 60", encoding="utf-8")
    place = Place.read(path)
    assert Place.of(place.to_dict()).engines == place.engines
    for own in ({"ranks": 1}, {"ranks": 2, "gpus": ["1", "0"], "deadline": 9.0}):
        alone = Place.of({"trainer": own})
        assert not alone.samples
        assert Place.of(alone.to_dict()).trainer == alone.trainer
    with pytest.raises(UserError, match="there is no file"):
        Place.read(tmp_path / "none.toml")


def test_the_doctor_names_everything_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.scale.local.environment", lambda: tmp_path / "nothing")
    place = Place.of({"engines": {"count": 1, "weights": str(tmp_path / "file" / "below")}})
    (tmp_path / "file").write_text("x")
    found = asyncio.run(place.examine())
    assert len(found) == 2
    assert "run: etude engine install" in found[0]
    assert "cannot be written" in found[1]
    away = Place.of({"engines": {"address": ["http://127.0.0.1:9"]}})
    assert "http://127.0.0.1:9" in asyncio.run(away.examine())[0]


def test_commands_name_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("etude.scale.local.environment", lambda: tmp_path / "nothing")
    path = tmp_path / "place.toml"
    path.write_text("[engines]\ncount = 1", encoding="utf-8")
    assert run(["doctor", "--on", str(path)]) == 2
    assert "run: etude engine install" in capsys.readouterr().out
    assert run(["engine", "serve"]) == 2
    assert "run: etude engine install" in capsys.readouterr().err
    words = ["train", "grpo", "-m", "lab", "-t", "lab", "--steps", "1", "--out", str(tmp_path / "run")]
    assert run([*words, "--on", str(path)]) == 2
    assert "run: etude engine install" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run([*words, "--on", str(tmp_path / "none.toml")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_ranks_that_cannot_work_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    two, wanted = Trainer(2), Trainer(2, ("0", "1"))
    assert unfit(two, "cpu") == ""
    assert "run.device is 'mps'" in unfit(two, "mps")
    assert "on cpu it is 'gloo'" in unfit(Trainer(2, backend="nccl"), "cpu")
    for count, refused in ((1, True), (2, False)):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        assert bool(unfit(two, "cuda")) is bool(unfit(wanted, "cuda")) is refused
    assert "each on one of its own" in unfit(Trainer(2, ("0", "0")), "cuda")
    monkeypatch.setattr("etude.scale.place.find_spec", lambda name: None)
    assert "pip install 'etude[remote]'" in unfit(two, "cpu")
    assert "cloudpickle" in asyncio.run(Place.of({"trainer": {"ranks": 2}}).examine())[0]
