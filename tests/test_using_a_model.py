"""The page about using a model does what it says, command after command, on a tiny model."""

from __future__ import annotations

import io
import json
import shlex
import threading
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from documents import FENCE, ROOT
from etude import cli
from etude.models.tiny import tiny_directory
from etude.serve import server
from etude.serve.service import Service, make_app
from test_site import quick

PAGE = "using-a-model.md"


def bytewise() -> Tokenizer:
    backend = Tokenizer(
        models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>", "<bos>", "<pad>"])
    return backend


class Served:
    """`etude serve` in a thread, on a port of its own, until the client is done."""

    address = ""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "run", self.run)

    def run(self, service: Service, host: str, port: int) -> None:
        assert (host, port) == ("127.0.0.1", 8000)
        place = server.bound(host, 0)
        self.address = f"http://{host}:{place.getsockname()[1]}/v1"
        config = uvicorn.Config(make_app(service), log_level="critical", lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [place]})
        self.thread.start()

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(
        tiny_directory(tmp_path / "tiny", bytewise(), layers=1, width=32, heads=2, kv_heads=1, seed=3)
    )
    served = Served(monkeypatch)
    said: dict[str, str] = {}
    for language, block in FENCE.findall((ROOT / "docs" / PAGE).read_text()):
        if language == "python":
            code = block.replace("http://127.0.0.1:8000/v1", served.address)
            exec(compile(code, PAGE, "exec"), {"__name__": "page"})
            served.end()
        for line in block.splitlines() if language == "sh" else ():
            if line.startswith("pip install"):
                continue
            if line.startswith("printf"):
                text, _, line = line.partition(" | ")
                lines = shlex.split(text)[1].encode().decode("unicode_escape")
                monkeypatch.setattr("sys.stdin", io.StringIO(lines))
            capsys.readouterr()
            code_ = cli.run(quick(shlex.split(line)[1:], model))
            found = capsys.readouterr()
            assert code_ == 0, f"{line}: {found.err or found.out}"
            said[line] = found.out
    answers = [json.loads(row) for line, out in said.items() if "--json" in line for row in out.splitlines()]
    assert [a["question"] for a in answers] == ["What is 3 + 4?", "What is 2 + 6?"]
    assert (tmp_path / "my-model" / "README.md").exists()
    assert (tmp_path / "sums.gguf").read_bytes()[:4] == b"GGUF"
    assert "runs/sums" in said["etude runs"]
    assert not (tmp_path / "runs" / "other").exists()
    assert (tmp_path / "runs" / "tracked" / "trackers" / "metrics.csv").exists()
