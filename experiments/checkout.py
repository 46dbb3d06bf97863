"""Which state of the source a number belongs to."""

import subprocess
from pathlib import Path


def read_commit() -> str:
    """The commit of this checkout, with a plus if files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commands = (
        ["rev-parse", "--short", "HEAD"],
        ["status", "--porcelain", "--untracked-files=no"],
    )
    try:
        commit, changed = (
            subprocess.run(
                [*git, *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")
