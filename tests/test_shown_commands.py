"""Every command that README.md and docs/ show is one that the programs take, with options that they have."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import fl_client.cli
import fl_server.cli
import simulation.cli

ROOT = Path(__file__).parents[1]
PROGRAMS: dict[str, Any] = {
    name: typer.main.get_command(module.app)
    for name, module in {"fl-client": fl_client.cli, "fl-server": fl_server.cli, "fl-sim": simulation.cli}.items()
}
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")), "docs/session.sh"]


def shown(page: str) -> Iterator[str]:
    """The commands in the blocks and spans of a page, or in a script; without comments and what else stands in a line."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    blocks = [text] if page.endswith(".sh") else BLOCK.findall(text)
    lines = [line for block in blocks for line in block.splitlines()]
    for line in lines if page.endswith(".sh") else [*lines, *re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))]:
        for part in re.split(r"&&|\|\s|;|\s{3,}", re.sub(r"(^|\s)#\s.*", "", line)):
            if command := re.search(r"(?:^|\s|/)(fl-(?:sim|server|client)\b.*)", part.strip()):
                yield command[1]


def fault(command: str) -> str | None:
    """What the program lacks that the command names; `a|b` stands for either."""
    try:
        program, *words = shlex.split(command)
    except ValueError:
        program, *words = command.split()
    at = PROGRAMS[program]
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, given, _ = word.rstrip(".,:;").partition("=")
            options = {option: p for p in at.params for option in (*p.opts, *p.secondary_opts)}
            for option in set(name.split("|")) - {"--help"}:
                if option not in options:
                    return f"{at.name} has no {option}"
                if not given and not options[option].is_flag and words and not words[0].startswith("--"):
                    words.pop(0)
        elif hasattr(at, "commands") and re.fullmatch(r"[a-z|]+", word):
            missing = [name for name in word.split("|") if name not in at.commands]
            if missing:
                return f"{at.name} has no {missing[0]}"
            at = at.commands[word.split("|")[0]]
    return None


@pytest.mark.parametrize("page", [page for page in PAGES if any(shown(page))])
def test_a_page_shows_commands_that_exist(page: str) -> None:
    assert [(command, found) for command in shown(page) if (found := fault(command))] == []


def test_commands_are_found_and_wrong_ones_told() -> None:
    assert sum(len(list(shown(page))) for page in PAGES) > 150
    assert fault("fl-sim rum --data x") is not None
    assert fault("fl-client privacy --dta x") == "privacy has no --dta"
    assert fault("fl-server models prune registry --kept 3") == "prune has no --kept"
