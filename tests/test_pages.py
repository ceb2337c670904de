"""Every test that a page of docs/ names exists, so that a claim cannot outlive the test that it rests on."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(test_[a-z0-9_]+|Test[A-Z][A-Za-z]+)`")
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md") if NAMED.search(page.read_text()))
PITFALLS = (
    "divided by a random batch size",
    "shuffled batches",
    "empty batch",
    "NaN or infinite gradient",
    "fresh accountant",
    "counts, losses, labels or error texts",
    "seeded or shared generator",
    "lattice",
    "weights by example count",
    "noise shares that vanish",
    "retried with fresh noise",
    "BatchNorm",
)
"""What breaks a privacy guarantee in practice: each has a line of its own in docs/privacy.md, with a test."""


def defined() -> set[str]:
    """Names of all test functions and classes."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
    return found


def test_the_privacy_pages_name_tests() -> None:
    assert {"docs/privacy.md", "docs/client-level-dp.md", "docs/secagg.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = set(NAMED.findall((ROOT / page).read_text()))
    assert named
    assert sorted(named - defined()) == []


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_every_pitfall_has_a_line_with_a_test(pitfall: str) -> None:
    (line,) = [
        line
        for line in (ROOT / "docs" / "privacy.md").read_text().splitlines()
        if line.startswith("|") and pitfall in line.split("|")[1]
    ]
    assert NAMED.findall(line.split("|")[2])
