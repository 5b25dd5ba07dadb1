"""A real shell on a terminal that can be looked at: what a person sees, keys and window size included."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pexpect
import pyte

REPOSITORY = Path(__file__).parents[2]
COMPLETIONS = REPOSITORY / "completions"
_PROMPT = "READY> "
_SECONDS = 20.0


class Terminal:
    """A shell in a folder, with the completions loaded and nothing else of this machine.

    Parameters
    ----------
    shell : ``bash``, ``zsh`` or ``fish``.
    home : folder that it runs in.
    path : where commands are looked for.
    """

    def __init__(self, shell: str, home: Path, path: str, extra: Mapping[str, str] | None = None) -> None:
        self.screen = pyte.Screen(100, 30)
        self._stream = pyte.ByteStream(self.screen)
        env = {"HOME": str(home), "PATH": path, "TERM": "xterm", "LANG": "C.UTF-8", **(extra or {})}
        self._child = pexpect.spawn(
            shell, _ARGUMENTS[shell], cwd=str(home), env=env, dimensions=(30, 100), timeout=_SECONDS
        )
        for line in _SETUP[shell]:
            self.type(line + "\r")
        self.type("clear\r")
        self.wait(lambda text: text.strip() == _PROMPT.strip())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close(force=True)

    def type(self, keys: str) -> None:
        """Press keys."""
        self._child.send(keys)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the window."""
        self._child.setwinsize(lines, columns)
        self.screen.resize(lines, columns)

    @property
    def text(self) -> str:
        """What is to be seen."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def wait(self, seen: Callable[[str], object], *, seconds: float = _SECONDS) -> str:
        """Wait until what is to be seen is as wanted; that text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self._stream.feed(self._child.read_nonblocking(65536, timeout=0.05))
            except (pexpect.TIMEOUT, pexpect.EOF):
                if seen(self.text):
                    return self.text
        raise AssertionError(f"not seen within {seconds} seconds; this is:\n{self.text}")

    def wait_for(self, pattern: str) -> str:
        """Wait until a pattern is to be seen."""
        return self.wait(lambda text: re.search(pattern, text, re.MULTILINE))

    def complete(self, line: str, keys: str = "\t") -> str:
        """What the line has become after TAB, or what is offered below it; the line is given up then."""
        self.type("\x03")
        self.type("clear\r")
        self.wait(lambda text: text.strip() == _PROMPT.strip())
        self.type(line)
        self.wait(lambda text: text.rstrip().endswith(line.rstrip()))
        self.type(keys)
        before = self.text
        try:
            self.wait(lambda text: text != before, seconds=3)
        except AssertionError:
            return before
        last = ""
        while last != self.text:  # until it has stopped to draw
            last = self.wait(lambda _: True)
            time.sleep(0.15)
        return last


_ARGUMENTS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}
_SETUP = {
    "bash": [
        "bind 'set show-all-if-ambiguous on'; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'",
        f"source {COMPLETIONS}/atdata-cli.bash; PS1='{_PROMPT}'",
    ],
    "zsh": [
        f"unsetopt zle_bracketed_paste prompt_sp; fpath=({COMPLETIONS} $fpath); autoload -U compinit; compinit -u -D",
        f"setopt auto_list no_list_beep; PROMPT='{_PROMPT}'",
    ],
    "fish": [
        f"function fish_prompt; echo -n '{_PROMPT}'; end; function fish_greeting; end",
        "set -g fish_autosuggestion_enabled 0",
        f"source {COMPLETIONS}/atdata-cli.fish",
    ],
}


def search_path(command: Path) -> str:
    """A PATH that begins with the folder of a command."""
    return os.pathsep.join([str(command.parent), "/usr/local/bin", "/usr/bin", "/bin"])
