"""Tutorials as notebooks, made from their pages, so that there is one source:

python -m etude.docs.notebooks        reads docs/tutorial and writes examples/notebooks
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGES = ("your-file", "your-reward")
"""Of docs/tutorial."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
RUN = {"python": "{}", "sh": "!{}"}  # how a cell runs a block: Python, and each line of a shell's block


def notebook(page: str, text: str) -> Any:
    """The text of a page as a notebook: its Python and its commands as cells that run, all else as text."""
    from nbformat import v4

    cells, at = [], 0
    for block in FENCE.finditer(text):
        language, code = block[1], block[2].rstrip("\n")
        if language not in RUN:
            continue
        if before := _prose(text[at : block.start()]):
            cells.append(v4.new_markdown_cell(before))
        lines = (
            [code] if language == "python" else [RUN["sh"].format(line) for line in code.splitlines() if line]
        )
        cells.append(v4.new_code_cell("\n".join(lines)))
        at = block.end()
    if after := _prose(text[at:]):
        cells.append(v4.new_markdown_cell(after))
    for number, cell in enumerate(cells):
        cell["id"] = f"{page}-{number}"  # a random one would make every writing another file
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def _prose(text: str) -> str:
    """Text of a page for a cell: links between pages lead nowhere in a notebook, so their words stay."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text).strip()


def notebooks(tutorial: Path) -> dict[str, str]:
    """{file name: content}, from the folder of the pages."""
    import nbformat

    texts = {page: (tutorial / f"{page}.md").read_text(encoding="utf-8") for page in PAGES}
    return {f"{page}.ipynb": nbformat.writes(notebook(page, text)) + "\n" for page, text in texts.items()}


if __name__ == "__main__":
    for name, content in notebooks(Path("docs/tutorial")).items():
        (Path("examples/notebooks") / name).write_text(content, encoding="utf-8")
