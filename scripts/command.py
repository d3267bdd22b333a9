"""How every script ends: what its user can mend is one line on stderr, with exit status 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, NoReturn

from speech.errors import SpeechError, line_of, reason_of


def run_command(main: Callable[[], None]) -> None:
    """Call a script's `main`: bad input, a full disk or a command that failed is no traceback."""
    try:
        main()
    except (SpeechError, OSError) as error:
        _fail(line_of(error))
    except CalledProcessError as error:
        command = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd))
        _fail(f"{command}: ended with {error.returncode}")


def _fail(line: str) -> NoReturn:
    sys.exit(f"{Path(sys.argv[0]).stem}: {line}")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; `SpeechError` where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpeechError(f"{path}: cannot be read as JSON: {reason_of(error)}") from error
