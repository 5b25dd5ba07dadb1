"""Runs of the installed command that end badly, each of them searched for secrets: what it prints, writes, is named.

Everything that is told to a run in confidence is known to :class:`Secrets`; a run fails its test as soon as one of
them, in any form, is in its output, in the list of processes, or in a file or object that it has written.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from atdata_cli import S3DataStore
from tests.cli.conftest import COMMAND, Ran, environment

WAIT = 120  # seconds until a hanging program fails the test
INSIDE = Path(__file__).with_name("inside")
_SEARCHED = 16 << 20  # of a file: what is larger is data


@dataclass
class Secrets:
    """What must be nowhere.

    Attributes
    ----------
    values : name to secret.
    """

    values: dict[str, str] = field(default_factory=dict)

    def add(self, **values: str) -> None:
        """From now on these are secrets, too."""
        for name, value in values.items():
            assert len(value) >= 8, "a short secret is found by chance"
            self.values[name] = value

    def check(self, where: object, data: bytes) -> None:
        """Assert that no secret is in *data*."""
        for name, value in self.values.items():
            for form in _forms(value):
                assert form not in data, f"{name} is in {where}"
        signed = re.search(rb"X-Amz-(?:Signature|Security-Token)=[^&\s\"']{8}", data)
        assert signed is None, f"a signature is in {where}"

    def check_files(self, *folders: Path) -> None:
        """Assert that no secret is in a file, or in its name."""
        for folder in folders:
            for path in folder.rglob("*"):
                self.check(f"the name {path}", os.fsencode(path.name))
                if path.is_file() and not path.is_symlink():
                    with suppress(FileNotFoundError), path.open("rb") as file:
                        self.check(path, file.read(_SEARCHED))

    def check_objects(self, store: S3DataStore, prefix: str) -> None:
        """Assert that no secret is in a small object, or in a name."""
        for item in store.list(prefix):
            self.check(f"the name {item.name}", item.name.encode())
            if not item.name.endswith(".tar"):
                self.check(item.name, store.read(item.name) or b"")


def _forms(value: str) -> set[bytes]:
    raw = value.encode()
    return {raw, quote(value, safe="").encode(), base64.b64encode(raw).rstrip(b"=")}


class Running:
    """A run under way, in a session of its own, so that all processes that it starts are known."""

    def __init__(
        self, process: subprocess.Popen[bytes], secrets: Secrets, outputs: tuple[Path, Path], *, watched: bool
    ) -> None:
        self.process = process
        self._watched = watched
        self._secrets = secrets
        self._outputs = outputs
        self._leak: AssertionError | None = None
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def members(self) -> list[int]:
        """The processes of the run that are alive."""
        return [pid for pid, session in _sessions() if session == self.process.pid]

    def _watch(self) -> None:
        pause = 0.02
        while self.process.poll() is None:
            for pid in self.members() if self._watched else ():
                with suppress(OSError):
                    try:
                        self._secrets.check(
                            f"the arguments of process {pid}", Path(f"/proc/{pid}/cmdline").read_bytes()
                        )
                    except AssertionError as error:
                        self._leak = error
            self._ended.wait(pause)
            pause = min(1.0, pause * 2)

    def kill(self) -> None:
        """``kill -9`` of the process that was started; what it had started has to end by itself."""
        self.process.kill()

    def wait(self, timeout: float = WAIT) -> Ran:
        """The finished run."""
        try:
            code = self.process.wait(timeout)
            deadline = time.monotonic() + 10
            while left := self.members():
                assert time.monotonic() < deadline, f"processes outlive the run: {left}"
                time.sleep(0.02)
        finally:
            for pid in self.members():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self._ended.set()
        self._watching.join()
        if self._leak is not None:
            raise self._leak
        out, err = (path.read_bytes() for path in self._outputs)
        self._secrets.check("standard output", out)
        self._secrets.check("standard error", err)
        assert b"Traceback" not in err, err
        return Ran(code, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape"))


def _sessions() -> list[tuple[int, int]]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    found.append((int(name), int(fields[3])))
    return found


@dataclass
class Tool:
    """Runs ``atdata-cli`` in a folder.

    Attributes
    ----------
    folder : the working directory.
    secrets : what must be nowhere.
    env : variables besides those of cron.
    """

    folder: Path
    secrets: Secrets
    env: Mapping[str, str] = field(default_factory=dict)
    _runs: int = 0

    def start(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: Path | int | None = None,
        limits: str = "",
        under: tuple[str, ...] = (),
        watched: bool = True,
    ) -> Running:
        """Start a run.

        Parameters
        ----------
        env : further variables.
        stdin : a file, or a descriptor.
        limits : arguments of the shell's ``ulimit``.
        under : a command that starts it.
        watched : whether its arguments are looked at, too.
        """
        self._runs += 1
        logs = self.folder / ".runs"
        logs.mkdir(exist_ok=True)
        outputs = logs / f"{self._runs}.out", logs / f"{self._runs}.err"
        line = [*under, str(COMMAND), *map(str, arguments)]
        if limits:
            line = ["sh", "-c", f'ulimit {limits}; exec "$@"', "sh", *line]
        with outputs[0].open("wb") as out, outputs[1].open("wb") as err:
            given = stdin.open("rb") if isinstance(stdin, Path) else None
            process = subprocess.Popen(
                line,
                stdin=given or (subprocess.DEVNULL if stdin is None else stdin),
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=environment(self.folder / "home", {**self.env, **(env or {})}),
                start_new_session=True,
            )
            if given is not None:
                given.close()
        return Running(process, self.secrets, outputs, watched=watched)

    def __call__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: Path | int | None = None,
        limits: str = "",
        under: tuple[str, ...] = (),
        watched: bool = True,
        timeout: float = WAIT,
    ) -> Ran:
        """Run it to its end."""
        running = self.start(*arguments, env=env, stdin=stdin, limits=limits, under=under, watched=watched)
        return running.wait(timeout)

    def kill_at(self, point: int) -> dict[str, str]:
        """Variables with which a run is killed when it has written *point* bytes; see ``inside/sitecustomize.py``."""
        self._runs += 1
        counter = self.folder / f".count-{self._runs}"
        return {"PYTHONPATH": str(INSIDE), "TORTURE_KILL": f"{counter}:{point}"}

    def at(self, point: int, command: str) -> dict[str, str]:
        """Variables with which a command of the shell is run when a run has written *point* bytes."""
        return {**self.kill_at(point), "TORTURE_DO": command}

    def counted(self, variables: Mapping[str, str]) -> int:
        """What a run with the variables of :meth:`kill_at` has counted."""
        return int(Path(variables["TORTURE_KILL"].rpartition(":")[0]).read_bytes())
