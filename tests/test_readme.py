"""What the README says is so."""

import re
from pathlib import Path

import httpx2

from graph.errors import ErrorCode
from graph.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_its_queries_are_answered(site_url: str) -> None:
    sizes = []
    for query in blocks("graphql"):
        answer = httpx2.post(f"{site_url}/graphql", json={"query": query}).json()
        assert "errors" not in answer
        sizes += [value["size"] for name, value in answer["data"].items() if name == "universe"]
    assert sizes == [518, 30]


def test_its_two_commands_are_there_once_each() -> None:
    commands = [block for block in blocks("sh") if block.startswith("python3 -m venv")]
    assert [command.strip().rpartition("/")[2] for command in commands] == ["stockgraph serve", "pytest"]


def test_its_settings_are_all_there_are() -> None:
    named = re.findall(r"^\| `([A-Z_]+)` \| `--([a-z-]+)` \|", README, re.MULTILINE)
    assert {option.replace("-", "_") for _, option in named} == set(Settings.__dataclass_fields__)
    hints = str(Settings.__annotations__)
    assert [variable for variable, _ in named if repr(variable) not in hints and variable not in hints] == []


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_its_error_codes_are_all_there_are() -> None:
    _, _, section = README.partition("\n## Errors\n")
    named = re.findall(r"`([A-Z_]+)`", section.partition("\n## ")[0])
    assert sorted(named) == sorted(ErrorCode)
