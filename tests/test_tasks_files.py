"""Tasks from a file, and what is said of a broken one."""

import json

import pytest

from etude.errors import UserError
from etude.tasks import load, self_test


class TestFiles:
    def write(self, tmp_path, *rows):
        file = tmp_path / "tasks.jsonl"
        file.write_text(
            "".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows),
            encoding="utf-8",
        )
        return str(file)

    def test_good_file(self, tmp_path):
        file = self.write(
            tmp_path,
            {
                "prompt": "2+2",
                "answer": 4,
                "kind": "sum",
                "difficulty": 1,
                "hints": ["small"],
                "reference": "4",
            },
            {
                "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}],
                "answer": "Paris",
            },
            {"prompt": "half\u2028", "answer": "\\frac12", "check": "math"},
            "",
            {"prompt": "2+2", "answer": 4, "kind": "sum"},
        )
        tasks = load(file + ":eval_share=0")
        (source,) = tasks.sources
        assert source.dropped == 1
        four, paris, half = source.tasks("train")
        assert (four.kind, four.difficulty, four.hints, four.reference) == ("sum", 1.0, ("small",), "4")
        assert four.check("It is 4.").correct
        assert not four.check("It is 5.").correct
        assert paris.kind == "tasks"
        assert paris.check(" paris. ").correct
        assert type(half.check).__name__ == "Answer"
        assert half.check("0.5").correct
        for task in source.tasks("train"):
            self_test(task)

    @pytest.mark.parametrize(
        ("line", "sentence"),
        [
            ("{", "line 2 is not JSON"),
            ("[" * 100_000, "line 2 is not JSON"),
            ("[1]", "line 2 must hold an object with prompt and answer, not a list"),
            ('{"prompt": "a"}', "line 2: the field 'answer' is missing"),
            ('{"answer": "a"}', "line 2: the field 'prompt' is missing"),
            ('{"prompt": "a", "answer": "b", "anser": 1}', "unknown field 'anser'; did you mean 'answer'?"),
            ('{"prompt": "a", "answer": null}', "'answer' must be text or a number, not null"),
            ('{"prompt": "a", "answer": NaN}', "it must be finite"),
            ('{"prompt": "a", "answer": " "}', "'answer' is empty"),
            ('{"prompt": "", "answer": "a"}', "'prompt' is empty"),
            ('{"prompt": 3, "answer": "a"}', "'prompt' must be text or a list of messages"),
            ('{"prompt": [{"role": "me", "content": ""}], "answer": "a"}', "'prompt' must be text or a list"),
            ('{"prompt": [{"role": "assistant", "content": "x"}], "answer": "a"}', "must have the role user"),
            ('{"prompt": "a", "answer": "b", "difficulty": "hard"}', "'difficulty' must be a finite number"),
            ('{"prompt": "a", "answer": "b", "hints": "x"}', "'hints' must be a list of texts"),
            ('{"prompt": "a", "answer": "b", "kind": 1}', "'kind' must be text, not a number"),
            ('{"prompt": "a", "answer": "b", "check": "numbr"}', "no check 'numbr'; did you mean 'number'?"),
            ('{"prompt": "a", "answer": "b", "check": "number"}', "'b' is not a number"),
        ],
    )
    def test_broken_lines_are_named(self, tmp_path, line, sentence):
        file = self.write(tmp_path, {"prompt": "a", "answer": "b"}, line)
        with pytest.raises(UserError) as error:
            load(file)
        assert sentence in str(error.value)
        assert f"{file}, line 2" in str(error.value)
        assert len(str(error.value)) < 300 + len(file)

    def test_other_faults(self, tmp_path):
        file = tmp_path / "x.jsonl"
        file.write_text("\n\n")
        with pytest.raises(UserError, match="is empty"):
            load(str(file))
        file.write_bytes(b'{"prompt": "\xff", "answer": "b"}')
        with pytest.raises(UserError, match="not UTF-8"):
            load(str(file))
        good = self.write(tmp_path, {"prompt": "a", "answer": "b"})
        with pytest.raises(UserError, match="eval_share is 1"):
            load(good + ":eval_share=1")
        with pytest.raises(UserError, match="stand in both"):
            load(f"{good}:eval={good}")
        with pytest.raises(UserError, match="no rule 'lines'; did you mean 'line'"):
            load(good + ":extract=lines")
        with pytest.raises(UserError, match="no feedback 'loud'"):
            load(good + ":feedback=loud")
