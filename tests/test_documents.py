"""Commands that the pages show exist, with their options, recipes and settings; and nothing refers to what is not here."""

from __future__ import annotations

import re

import pytest

import documents
from documents import ROOT

PAGES = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md"))
    if p.name not in ("LOG.md", "CHANGELOG.md")  # these quote what was so at the time
)


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    for words in documents.commands(page):
        assert not (wrong := documents.fault(words)), f"{' '.join(words)}: {wrong}"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("trian grpo", "no command 'trian'"),
        ("train grpo --stepz 3", "no option '--stepz'"),
        ("train grpo -t lab --steps 3 --set run.group_size=4", None),
    ],
)
def test_a_wrong_command_is_seen(command: str, said: str | None) -> None:
    found = documents.fault(command.split())
    assert found is None if said is None else said in (found or "")


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            made = page.startswith("docs/") and target.startswith(
                ("methods/", "reference/", "../reference/")
            )  # by docs/site.py
            assert made or ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        text = (ROOT / page).read_text()
        named = set(re.findall(r"(?:`|^ {0,4})make (\w+)(?=`|\s|$)", text, re.M))
        assert named <= targets, page


def test_nothing_refers_to_documents_that_are_not_here() -> None:
    away = re.compile(r"design\.md|performance\.md|catalogue of methods")
    files = [
        p
        for folder in ("src", "docs", "bench", "examples")
        for p in (ROOT / folder).rglob("*")
        if p.is_file()
    ]
    for path in [*files, *ROOT.glob("*.md")]:
        if path.suffix in (".py", ".md", ".toml"):
            assert not (found := away.search(path.read_text())), f"{path}: {found}"
