"""Rows of figures, each on disk as soon as it is measured."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "rows.jsonl"
SHOWN = 700  # characters of a row that are printed


class Rows:
    """The file of rows, and how much time is left to add to it."""

    def __init__(self, out: Path, seconds: float):
        """Go on with the rows that `out` has, for so many seconds."""
        self.out, self._end = out, time.monotonic() + seconds
        out.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def add(self, kind: str, **row: Any) -> None:
        """Write one row and print its beginning."""
        text = json.dumps({"kind": kind, **row}, default=str)
        with (self.out / NAME).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        sys.stdout.write((text if len(text) < SHOWN else f"{text[:SHOWN]} ...") + "\n")
        sys.stdout.flush()

    def read(self, kind: str) -> list[dict[str, Any]]:
        """All rows of a kind, those of earlier calls first."""
        path = self.out / NAME
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [row for row in map(json.loads, lines) if row["kind"] == kind]

    def has(self, kind: str, **key: Any) -> bool:
        """Whether there is a row with these values."""
        return any(key.items() <= row.items() for row in self.read(kind))

    def guarded(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call it; a failure becomes a row, None is returned, and the others go on."""
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001 told in its own row
            trace = traceback.format_exc()
            self.add("failed", what=what, error=f"{type(error).__name__}: {error}"[:1500],
                     trace=trace[-1500:])  # fmt: skip
            return None
