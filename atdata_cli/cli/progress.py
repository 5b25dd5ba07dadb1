"""The progress bar; loaded only where there is a terminal to draw it on."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from atdata_cli.cli.output import Progress, human_bytes

__all__ = ["Bar"]


class _Rates(ProgressColumn):
    """Samples, if any are counted, and bytes a second, since this activity began."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        samples, done = task.fields["samples"], task.fields["bytes"]
        counted = "" if samples is None else f"{samples:,} samples"
        if not elapsed:
            return Text(counted)
        counted += f" · {samples / elapsed:,.0f}/s · " if counted else f"{human_bytes(done)} · "
        return Text(f"{counted}{human_bytes(done / elapsed)}/s", style="cyan")


class Bar:
    """Shows a :class:`~atdata_cli.cli.output.Progress` on stderr, as a context manager."""

    def __init__(self, progress: Progress, *, color: bool) -> None:
        self._progress = progress
        console = Console(stderr=True, no_color=not color, highlight=False)
        self._rich = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),  # takes what the others leave
            _Rates(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            expand=True,
            auto_refresh=False,
        )
        self._task = self._rich.add_task("", total=None, samples=0, bytes=0)
        self._activity = ""

    def update(self) -> None:
        """Draw the present state."""
        progress = self._progress
        source = progress.source
        done = source.position() if source else 0
        if progress.activity != self._activity:  # rates are those of what is going on
            self._activity = progress.activity
            self._rich.reset(self._task)
        self._rich.update(
            self._task,
            description=f"{progress.activity} · {progress.shards} shards",
            total=source.size() if source else None,
            completed=done,
            samples=progress.samples,
            bytes=done or progress.bytes,
        )
        self._rich.refresh()

    def __enter__(self) -> Bar:
        self.update()  # what is drawn first says already what is going on
        self._rich.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._rich.stop()
