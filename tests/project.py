"""A copy of the project with a tiny model, run through Snakemake as a user runs it."""

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Project:
    """A working copy that a test may edit."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        """Targets come first in ``arguments``: Snakemake's options take every word that follows them."""
        extra = ["tests/extra.yaml"] if (self.folder / "tests/extra.yaml").exists() else []
        overlays = ["--configfile", "tests/config.yaml", "tests/model.yaml", *extra]
        return [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", *overlays]

    def snakemake(self, *arguments: str, fails: bool = False) -> str:
        """Run Snakemake, and return what it printed."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert (done.returncode != 0) == fails, done.stdout[-6000:]
        return done.stdout

    def planned(self, *arguments: str) -> dict[str, int]:
        """Rules that Snakemake would run now, with their number of jobs."""
        printed = self.snakemake("--dry-run", *arguments)
        table = re.search(r"^job +count\n-+ +-+\n((?:\w+ +\d+\n)+)", printed, flags=re.M)
        jobs = dict(line.split() for line in table[1].splitlines()) if table else {}
        return {rule: int(count) for rule, count in jobs.items() if rule not in ("total", "all")}

    def planned_outputs(self) -> set[str]:
        """Files that Snakemake would write now."""
        printed = self.snakemake("--dry-run")
        return {path for line in re.findall(r"^ +output: (.+)$", printed, flags=re.M) for path in line.split(", ")}

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def hashes(self, under: str = "results") -> dict[str, str]:
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((self.folder / under).rglob("*"))
            if path.is_file()
        }


def copy_project(folder: Path, model: Path) -> Project:
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("Snakefile", "config.yaml", "config.schema.json", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("rules", "workflow_scripts", "envs", "profiles", "data", "report", "configs"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests/config.yaml", folder / "tests/config.yaml")
    (folder / "tests/model.yaml").write_text(f"model: {{name: {model}}}\n")
    return Project(folder)
