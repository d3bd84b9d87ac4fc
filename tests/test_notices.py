"""Notices of third parties: the build gathers those of all whose work the wheel contains."""

import json
import tomllib

import pytest
from conftest import ROOT

MADE = ROOT / "graph" / "THIRD_PARTY_NOTICES.md"


def test_the_demos_sources_are_named_with_their_licences() -> None:
    text = MADE.read_text()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["hooks"]["custom"]["demo"]
    for package in packages:
        _, _, notice = text.partition(f"\n## {package.replace('==', ' ')}\n")
        assert "CC BY-SA 4.0" in notice.partition("\n## ")[0]
        assert "MIT License" in notice.partition("\n## ")[0]


def test_graphiql_and_all_that_is_bundled_with_it_are_named() -> None:
    if not (ROOT / "graph" / "web" / "dist").exists():
        pytest.skip("GraphiQL was not built")
    text = MADE.read_text()
    bundled = json.loads((ROOT / "graph" / "web" / "package.json").read_text())["dependencies"]
    del bundled["vite"]  # which only bundles
    for name, version in [*bundled.items(), ("monaco-editor", "")]:
        assert f"\n## {name} - {version}" in text
    assert "END OF nodejs path library NOTICES" in text  # a part of monaco-editor
