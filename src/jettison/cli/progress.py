"""Draws a run for a person at a terminal, or as plain lines in a log."""

import time
from types import TracebackType
from typing import Any


class Screen:
    """A watcher (`jettison.loop.watcher.Watcher`) that shows stages, progress and time left."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = self._console.is_terminal and not quiet
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._live,
            transient=True,
        )
        self._bar: Any = None
        self._title = ""
        self._started = time.monotonic()
        self._left: tuple[float, float] | None = None
        self._last_line = ""

    def __enter__(self) -> "Screen":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, title: str, remaining_s: float | None = None) -> None:
        """Begin a stage; print it, so that a log of a run reads as a list."""
        self._title = title
        if remaining_s is not None:
            self._left = (time.monotonic(), remaining_s)
        left = self._left_words()
        self._console.print(f"[dim]{self._clock()}[/dim] [bold]{title}[/bold] [dim]{left}[/dim]")
        if self._live:
            if self._bar is not None:
                self._bars.remove_task(self._bar)
            self._bar = self._bars.add_task(title, total=None, left=left)

    def progress(self, message: str, share: float | None = None) -> None:
        """Move the bar of the stage."""
        if self._live and self._bar is not None:
            total = None if share is None else 1.0
            self._bars.update(
                self._bar,
                description=f"{self._title}: {message}",
                completed=share or 0.0,
                total=total,
                left=self._left_words(),
            )

    def found(self, message: str) -> None:
        """Keep a line on the screen."""
        self._console.print(f"      {message}", markup=False)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60:2d}:{seconds % 60:02d}"

    def _left_words(self) -> str:
        if self._left is None:
            return ""
        since, estimate_s = self._left
        left_s = estimate_s - (time.monotonic() - since)
        if left_s < 0.5:
            return ""  # it takes longer than was thought: no more is known
        return f"about {left_s / 60:.0f} min left" if left_s >= 90 else f"about {left_s:.0f} s left"
