"""A run's model for use elsewhere: what is written is the run's, and the card says what the run says."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import etude
import worlds_of_letters as letters
from etude.errors import UserError
from etude.export import write
from etude.export.card import base_of
from etude.export.gguf import SPLITS, write_gguf
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory

SMALL = {
    "run.precision": "fp32",
    "run.max_tokens": 2,
    "run.tasks_per_step": 4,
    "run.group_size": 4,
    "run.eval_problems": 4,
    "run.eval_samples": 2,
    "run.preflight": 4,
    "update.lr": 2e-3,
    "run.top_p": 1.0,  # as it is anyway, like what follows
    "run.shots": 4,
    "objective.clip_low": 0.2,
}


def trained(place: Path, **settings: Any) -> Path:
    tasks = list(letters.words().sources[0].tasks("train"))
    return etude.train(
        "grpo",
        letters.model(place),
        tasks,
        2,
        settings=SMALL | {k.replace("__", "."): v for k, v in settings.items()},
        out=place / "run",
        force=True,
        progress=False,
    ).path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("export"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(12)[None] % 9).logits[0]
    return found


def transformers_logits(place: Path, **how: Any) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    return logits(AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **how))


def run_logits(run: Path) -> torch.Tensor:
    backbone = Policy.load(str(run / "model"), precision="fp32").backbone
    return backbone.exact_logits(torch.arange(12) % 9, {})


# ---- a directory -------------------------------------------------------------------------------------


def test_a_directory_is_the_runs_model_with_a_card(run: Path, tmp_path: Path) -> None:
    (run / "model" / "heads.safetensors").write_bytes(b"outputs that only training reads")
    place = write.to_directory(str(run), tmp_path / "mine")
    (run / "model" / "heads.safetensors").unlink()
    assert not (place / "heads.safetensors").exists()
    assert torch.allclose(transformers_logits(place), run_logits(run), atol=1e-4)
    card = (place / "README.md").read_text()
    held = etude.load(run)
    for result in (held.before, held.after):
        mean = result.mean
        assert f"{100 * mean.mean:.1f}% [{100 * mean.low:.1f}, {100 * mean.high:.1f}]" in card
    for said in (
        "# mine\n",
        "trained for 2 steps",
        "`grpo`",
        "arxiv.org/abs/2402.03300",
        "4 problems",
        "2 samples",
    ):
        assert said in card
    assert "| update.lr | 0.002 |" in card
    assert "| run.max_tokens | 2 |" in card
    assert "run.group_size" in card
    for usual in ("run.top_p", "run.shots", "objective.clip"):
        assert usual not in card, (
            "a plan written out in full says all settings; the card says those that are not as usual"
        )
    assert "do not state the licence of the base model" in card
    assert f"| torch | {torch.__version__} |" in card
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(UserError, match="exists already; name a new directory"):
        write.to_directory(str(run), place)
    with pytest.raises(UserError, match="is a model directory already"):
        write.to_directory(str(place), tmp_path / "more")


def test_an_unfinished_run_gives_its_last_checkpoint_and_says_so(run: Path, tmp_path: Path) -> None:
    import shutil

    cut = shutil.copytree(run, tmp_path / "cut")
    shutil.rmtree(cut / "model")
    rows = [r for r in (cut / "evals.jsonl").read_text().splitlines() if '"rule": "last"' not in r]
    (cut / "evals.jsonl").write_text("\n".join(r for r in rows if '"rule":"last"' not in r) + "\n")
    place = write.to_directory(str(cut), tmp_path / "mine")
    assert torch.allclose(transformers_logits(place), run_logits(run), atol=1e-4)
    card = (place / "README.md").read_text()
    assert "The run had not come to its end" in card
    assert re.search(r"\| accuracy \| .*% \[.*\] \| - \|", card)


def test_what_the_base_says_of_its_licence_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\nbase_model: someone/first\n---\n# A model\n")
    assert (base_of(str(tmp_path)).licence, base_of(str(tmp_path)).hub) == ("mit", "someone/first")
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    assert base_of(str(tmp_path)).licence is None
    assert base_of("smollm2").licence == "apache-2.0"


def test_a_run_that_went_on_from_a_run_names_the_first_base(run: Path) -> None:
    base = base_of(str(run / "model"))
    assert base == base_of(str(run))
    assert base.said == "model, trained before in the run run"


# ---- an adapter --------------------------------------------------------------------------------------


def test_an_adapter_on_its_base_is_the_runs_model(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    run = trained(tmp_path, run__lora=4, update__lr=1e-2, run__precision="bf16")
    place = write.to_adapter(str(run), tmp_path / "adapter")
    names = load_file(place / "adapter_model.safetensors")
    assert names
    assert all("lora_" in name for name in names)
    assert json.loads((place / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tmp_path / "model"
    )
    assert "LoRA of rank 4" in (place / "README.md").read_text()
    mine, base = transformers_logits(place), transformers_logits(tmp_path / "model")
    assert torch.allclose(mine, run_logits(run), atol=0.02)  # the run's base was rounded to bf16
    assert (mine - base).abs().max() > 0.05
    assert Policy.load(str(place)).context == 4096


def test_a_run_of_all_weights_has_no_adapter(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained all weights, so it has no adapter"):
        write.to_adapter(str(run), tmp_path / "adapter")


# ---- GGUF --------------------------------------------------------------------------------------------


def bytewise(kind: str = "llama-bpe") -> Tokenizer:
    """A byte-level tokenizer with a few merges, that cuts words as `kind` does."""
    backend = Tokenizer(models.BPE())
    pattern = next((text for text, name in SPLITS.items() if name == kind), None)
    first = (
        pre_tokenizers.Split(Regex(pattern), "isolated")
        if pattern
        else pre_tokenizers.Digits(individual_digits=True)
    )
    regex = pattern is None
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        ["one two three 123 456 123 one two"] * 9,
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False),
    )
    backend.add_special_tokens(["<end>", "<bos>", "<pad>"])
    return backend


def sharp(place: Path, family: str, **config: Any) -> Path:
    """A tiny model whose attention is not flat and whose vectors are not constant."""
    tiny_directory(
        place, bytewise(), layers=2, width=64, heads=4, kv_heads=2, seed=3, family=family, **config
    )
    draw = torch.Generator().manual_seed(5)
    held = {
        name: value * 6 if value.dim() > 1 else value + 0.3 * torch.randn(value.shape, generator=draw)
        for name, value in load_file(place / "model.safetensors").items()
    }
    save_file(held, place / "model.safetensors", metadata={"format": "pt"})
    return place


CASES = [
    ("llama", {}),
    ("mistral", {}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {}),
]


@pytest.mark.parametrize(("family", "config"), CASES)
def test_a_gguf_file_gives_the_same_logits(family: str, config: dict[str, Any], tmp_path: Path) -> None:
    """As transformers reads it, which has its own reader. (It knows a Qwen 3 with heads of 128 only.)"""
    from gguf import GGUFReader
    from transformers import AutoTokenizer, GgufConfig

    more = {"head_dim": 128} if family == "qwen3" else {}
    model = sharp(tmp_path / "model", family, **config, **more)
    if "tie_word_embeddings" in config:  # some write the embedding a second time
        stored = load_file(model / "model.safetensors")
        stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
        save_file(stored, model / "model.safetensors", metadata={"format": "pt"})
    write_gguf(model, tmp_path / "made.gguf", "f32", "made")
    names = [t.name for t in GGUFReader(tmp_path / "made.gguf").tensors]
    assert ("output.weight" in names) == ("tie_word_embeddings" not in config)
    how = {"gguf_file": "made.gguf", "quantization_config": GgufConfig(dequantize=True)}
    wanted = transformers_logits(model)
    assert torch.allclose(transformers_logits(tmp_path, **how), wanted, atol=2e-3 * float(wanted.abs().max()))
    if family == "llama":
        words = AutoTokenizer.from_pretrained(tmp_path, gguf_file="made.gguf")
        assert words("one 123<end>")["input_ids"] == bytewise().encode("one 123<end>").ids
        assert words.eos_token == "<end>"


@pytest.mark.parametrize(("dtype", "bound"), [("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 1e-2)])
def test_matrices_may_be_rounded(dtype: str, bound: float, tmp_path: Path) -> None:
    from gguf import GGUFReader, dequantize

    model = sharp(tmp_path / "model", "llama")
    write_gguf(model, tmp_path / "made.gguf", dtype, "made")
    held = load_file(model / "model.safetensors")
    found = {t.name: t for t in GGUFReader(tmp_path / "made.gguf").tensors}
    there = dequantize(found["blk.1.ffn_down.weight"].data, found["blk.1.ffn_down.weight"].tensor_type)
    wanted = held["model.layers.1.mlp.down_proj.weight"].numpy()
    assert 0 < np.abs(there - wanted).max() <= bound * np.abs(wanted).max()
    norm = found["output_norm.weight"]
    assert np.array_equal(norm.data, held["model.norm.weight"].numpy())


@pytest.mark.parametrize(("kind", "name"), [("llama-bpe", "llama-bpe"), ("qwen2", "qwen2"), ("", "smollm")])
def test_how_words_are_cut_is_named(kind: str, name: str, tmp_path: Path) -> None:
    from gguf import GGUFReader

    tiny_directory(tmp_path / "model", bytewise(kind), layers=1, width=32, heads=2, kv_heads=1)
    write_gguf(tmp_path / "model", tmp_path / "made.gguf", "f16", "made")
    assert GGUFReader(tmp_path / "made.gguf").fields["tokenizer.ggml.pre"].contents() == name


def test_scaled_rotations_are_written_as_factors(tmp_path: Path) -> None:
    """llama.cpp divides the frequency of each pair by its factor."""
    from gguf import GGUFReader

    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    model = sharp(tmp_path / "model", "llama", rope_parameters=rope)
    write_gguf(model, tmp_path / "made.gguf", "f32", "made")
    (found,) = (t for t in GGUFReader(tmp_path / "made.gguf").tensors if t.name == "rope_freqs.weight")
    assert found.data.tolist()[::7] == pytest.approx([1.0, 8.0])


def test_what_cannot_be_written_is_refused_and_nothing_is_left(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\(WordLevel\) is not written as GGUF here; .* llama.cpp"):
        write.to_gguf(str(run), tmp_path / "run.gguf", "f16")
    windows = tiny_directory(
        tmp_path / "m", bytewise(), family="mistral", sliding_window=8, layers=1, width=32
    )
    with pytest.raises(UserError, match="sliding windows"):
        write.to_gguf(str(windows), tmp_path / "run.gguf", "f16")
    large = sharp(tmp_path / "large", "llama")
    held = load_file(large / "model.safetensors")
    held["lm_head.weight"][3, 4] = 1e5
    save_file(held, large / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="too large for f16; use --dtype bf16"):
        write.to_gguf(str(large), tmp_path / "run.gguf", "f16")
    with pytest.raises(UserError, match="a GGUF file holds f32, f16, bf16, q8_0; got 'q4'"):
        write.to_gguf(str(large), tmp_path / "run.gguf", "q4")
    assert {p.name for p in tmp_path.iterdir()} == {"m", "large"}
    assert write.to_gguf(str(large), tmp_path / "run.gguf", "bf16").exists()
    with pytest.raises(UserError, match="exists already"):
        write.to_gguf(str(large), tmp_path / "run.gguf", "bf16")


# ---- the hub -----------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload of small files asks for."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    made: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != "Bearer sesame":
            return self._say({"error": "who are you?"}, 401)
        if self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            return self._say({"url": f"http://{self.headers['Host']}/me/mine"})
        if self.path == "/api/validate-yaml":  # of the card
            return self._say({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            return self._say({"files": modes})
        assert "/commit/" in self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self._say(
            {
                "success": True,
                "commitOid": "1" * 40,
                "commitUrl": f"http://{self.headers['Host']}/me/mine/commit/1",
            }
        )

    def do_GET(self) -> None:
        self._say({"id": "me/mine", "siblings": [], "sha": "1" * 40})

    def _say(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.files, Hub.made = {}, []
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "sesame")
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_upload_to_the_hub(run: Path, hub: type[Hub], tmp_path: Path) -> None:
    assert write.to_hub(str(run), "me/mine").endswith("/me/mine")
    assert hub.made[0]["visibility"] == "private"
    assert hub.files["model.safetensors"] == (run / "model" / "model.safetensors").read_bytes()
    assert hub.files["README.md"].startswith(b"---\n")
    assert b"# mine\n" in hub.files["README.md"]
    place = write.to_directory(str(run), tmp_path / "other")
    write.to_hub(str(place), "me/mine", private=False)
    assert hub.made[1]["visibility"] == "public"
    assert b"# other\n" in hub.files["README.md"]


def test_an_upload_that_is_refused(
    run: Path, hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match=r"the hub did not take me/mine: .*hf auth login") as refused:
        write.to_hub(str(run), "me/mine")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="owner/name; got 'mine'"):
        write.to_hub(str(run), "mine")
    with pytest.raises(UserError, match="neither a run nor a model directory"):
        write.to_hub(str(tmp_path), "me/mine")
    assert not hub.files
