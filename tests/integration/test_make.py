"""`make help` prints what there is, and all of it is there."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def test_every_target_that_help_prints_can_be_made() -> None:
    told = re.findall(r"^([\w-]+): ", make("help"), re.MULTILINE)
    journey = {"setup", "train", "compile", "serve", "evaluate", "bench"}
    assert journey <= set(told)
    for target in journey:
        assert make("--dry-run", "--always-make", target)
