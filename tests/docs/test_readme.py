"""What the README shows runs, and what it says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from programs import ROOT, python_blocks

from polos.models.providers import PROVIDERS
from polos.settings import Settings
from polos.workflows import Workflow

README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
BLOCKS = python_blocks(README)
PROGRAMS = [block for block in BLOCKS if "__main__" in block]
VARIABLES = {spec.metadata["variable"] for spec in Settings.__dataclass_fields__.values()}
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
    key=lambda page: str(page),
)


@pytest.mark.parametrize(
    ("block", "example"),
    list(zip(PROGRAMS, ["quickstart/weather.py", "streaming/story.py", "workflow/support.py"], strict=True)),
)
def test_each_program_is_an_example(block: str, example: str) -> None:
    """Which is run (test_examples.py): neither is mended alone."""
    assert block.startswith(f"# {Path(example).name}\n")
    assert block.partition("\n")[2] == (ROOT / "examples" / example).read_text()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in PROGRAMS])
def test_other_definitions_are_accepted(block: str) -> None:
    defined: dict[str, object] = {}
    exec(block, defined)

    assert [value for value in defined.values() if isinstance(value, Workflow)]


def test_the_first_program_fits_on_the_first_screen() -> None:
    assert README.index("```python") < 600


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"^\$ make (\w+)", README, re.MULTILINE)) >= {"demo", "test"}
    assert set(re.findall(r"\bmake (\w+)\b", README)) & {"demo", "test", "lint"} <= targets


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_the_table_names_each_providers_variables(provider: str) -> None:
    [row] = re.findall(rf"^\| `{provider}` \|.*$", README, re.MULTILINE)

    for variable in (*PROVIDERS[provider].key_variables, *PROVIDERS[provider].base_url_variables):
        assert f"`{variable}`" in row


def test_the_table_names_no_other_provider() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == set(PROVIDERS)


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_each_setting_is_documented_with_its_default(variable: str) -> None:
    [row] = re.findall(rf"^\| `{variable}` \|.*$", CONFIGURATION, re.MULTILINE)
    [default] = [
        spec.default
        for spec in Settings.__dataclass_fields__.values()
        if spec.metadata["variable"] == variable
    ]

    shown = row.split("|")[2].strip().strip("`")
    assert shown == (
        "" if default in ("", (), None) else f"{default:g}" if isinstance(default, float) else str(default)
    )


def test_no_setting_is_documented_that_does_not_exist() -> None:
    assert set(re.findall(r"\bPOLOS_[A-Z_]+\b", README)) <= VARIABLES
    assert set(re.findall(r"^\| `(POLOS_\w+)` \|", CONFIGURATION, re.MULTILINE)) <= VARIABLES | {
        "POLOS_API_KEY",
        "POLOS_API_URL",
        "POLOS_TRANSPORT",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert missing == []
