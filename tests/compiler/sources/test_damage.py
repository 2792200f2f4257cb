"""A damaged file is refused in one line, or loads because the damage is where it does not matter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_no_damage_ends_in_anything_but_a_model_or_one_line() -> None:
    script = Path(__file__).with_name("damage.py")
    done = subprocess.run(
        [sys.executable, script, "12"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "12 cases, 0 bad" in done.stdout
