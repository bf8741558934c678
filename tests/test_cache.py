"""A cache directory that cannot be written: a home that is not there, a read-only disk, a full one."""

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

import etude
from etude import cache
from etude.errors import UserError

SOURCE = str(Path(etude.__file__).parents[1])
CODE = """
import os, subprocess, sys
from pathlib import Path
from etude import cache
def make(work):
    print("making")
    (work / "done").write_text("1")
place = cache.made(cache.kept("models", "one"), lambda place: (place / "done").exists(), make)
again = cache.made(cache.kept("models", "one"), lambda place: (place / "done").exists(), make)
assert place == again and (place / "done").exists()
print(place)
if len(sys.argv) > 1:
    print(subprocess.run([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True).stdout)
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.TEMPORARY, "")  # so that it is put back
    monkeypatch.delenv(cache.TEMPORARY)


def run(
    folder: Path, *arguments: str, before: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, **env}
    words = [*before, sys.executable, "-c", CODE, *arguments]
    return subprocess.run(words, cwd=folder, env=known, capture_output=True, text=True)


def check(done: subprocess.CompletedProcess[str], named: str) -> None:
    """Made once, in a temporary directory, also for a child; said once; gone afterwards."""
    assert done.returncode == 0, done.stderr
    first, place, second = done.stdout.split()
    assert (first, second) == ("making", place)
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr
    assert not Path(place).parents[1].exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check(
        run(tmp_path, CODE, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "file")), str(tmp_path / "file")
    )


def test_a_read_only_disk(tmp_path: Path) -> None:
    """As root permissions are no obstacle: a mount is."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts may be made here")
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o ro,size=1m tmpfs {tmp_path}/disk && exec "$@"'
    before = ("unshare", "-m", "sh", "-c", mount, "sh")
    done = run(tmp_path, CODE, before=before, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "disk"))
    check(done, "Read-only file system")


def test_no_home_at_all(tmp_path: Path, monkeypatch, capsys) -> None:
    """Of a user id without an entry and without HOME "~" stays as it is, and would be made in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: Path("~/.cache/etude"))
    place = cache.made(
        cache.kept("models", "one"), lambda place: (place / "done").exists(), lambda w: (w / "done").touch()
    )
    assert (place / "done").exists()
    assert "there is no home directory" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_was_made_before_is_used_where_nothing_can_be_written(tmp_path: Path, monkeypatch) -> None:
    place = tmp_path / "models" / "one"
    place.mkdir(parents=True)
    monkeypatch.setattr(cache, "writable", lambda place: pytest.fail("nothing is to be written"))
    assert cache.made(place, Path.exists, lambda work: None) == place


def test_neither_cache_nor_temporary_directory(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "file")

    def refuse(**_: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache.tempfile, "mkdtemp", refuse)
    with pytest.raises(
        UserError, match=r"file/models' cannot be written \(.*\), nor is there .*XDG_CACHE_HOME"
    ):
        cache.writable(cache.kept("models", "one"))


def test_a_full_disk_leaves_nothing_half_made(tmp_path: Path) -> None:
    def make(work: Path) -> None:
        (work / "half").write_text("half")
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(UserError, match=r"the disk of '.*' is full.*XDG_CACHE_HOME"):
        cache.made(tmp_path / "models" / "one", Path.exists, make)
    assert not list((tmp_path / "models").iterdir())
    with pytest.raises(ZeroDivisionError):
        cache.made(tmp_path / "models" / "one", Path.exists, lambda work: 1 / 0)
    assert not list((tmp_path / "models").iterdir())
