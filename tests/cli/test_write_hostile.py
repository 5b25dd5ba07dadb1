"""Hostile names, hostile manifests and hostile places: one clean line, the right exit code, nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess

import pytest

from tests.cli.conftest import COMMAND, environment, rows


def lines(*documents):
    return "".join(json.dumps(document) + "\n" for document in documents)


@pytest.mark.parametrize("name", ["a\nb.txt", "\x1b[31mred.txt", os.fsdecode(b"bad\xff.txt")])
def test_names_that_no_key_can_be_are_shown_harmlessly(cli, tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text("x")
    (tmp_path / "in" / "good.txt").write_text("x")
    ran = cli("write", "in", "out")
    ran.failed(1, "rename it")
    assert len(ran.err.splitlines()) == 1  # a single reject is told once
    assert "\x1b" not in ran.err
    ran = cli("write", "in", "out", "--on-error", "skip", "--rejects", "rejects.jsonl")
    assert (ran.code, ran.lines) == (7, ["out/shard-000000.tar"])
    assert "\x1b" not in ran.err
    (reject,) = map(json.loads, (tmp_path / "rejects.jsonl").read_text().splitlines())
    assert reject["where"] == f"in/{name}"


@pytest.mark.parametrize("dest", ["o\nx", "o\x1b[31mx", "o\x7f", "o\x85x"])
def test_a_dest_that_would_break_the_output_is_refused(cli, rows_file, tmp_path, dest):
    cli("write", "rows.jsonl", dest).failed(2, "control characters")
    assert not (tmp_path / dest).exists()


@pytest.mark.parametrize("dest", ["ünïcode", "with space ", "o[1]", "{a,b}", "~x", "a'b\"c", os.fsdecode(b"o\xffx")])
@pytest.mark.parametrize("env", [{}, {"PYTHONIOENCODING": "ascii"}])
def test_any_other_dest_is_printed_as_its_bytes(rows_file, tmp_path, dest, env):
    environ = environment(tmp_path, env)
    command = [str(COMMAND), "write", "rows.jsonl", dest]
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=True)
    assert ran.stdout == os.fsencode(dest) + b"/shard-000000.tar\n"
    ran = subprocess.run([*command, "--json"], cwd=tmp_path, env=environ, capture_output=True, check=True)
    assert json.loads(ran.stdout)["shards"][0]["url"] == f"{dest}/shard-000000.tar"


def test_dest_inside_source_is_seen_through_file_urls_and_links(cli, photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    for source, dest in [
        (photos.as_uri(), "photos/out"),
        ("photos", f"{photos.as_uri()}/out"),
        ("photos", "link/out"),
        ("link", "photos/out"),
        ("photos", "photos/../photos/out"),
    ]:
        cli("write", source, dest).failed(2, "DEST is inside SOURCE")
    cli("write", "photos", (tmp_path / "photos" / "cat" / "00.jpg").as_uri()).failed(2, "DEST is a file")


def test_rejects_never_overwrite_what_is_read(cli, tmp_path):
    text = lines({"a": 1})
    (tmp_path / "in.jsonl").write_text(text)
    cli("write", "in.jsonl", "out", "--rejects", "./in.jsonl").failed(2, "--rejects")
    assert (tmp_path / "in.jsonl").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "late"),
    [(["--shards", "2"], {"a": 5}), ([], {"a": 5, "new": 1}), (["--split", "x=0.5,y=0.5", "--shards", "1"], {"a": 5})],
)
def test_rejects_are_listed_once_also_if_the_input_is_read_twice(cli, tmp_path, arguments, late):
    with (tmp_path / "in.jsonl").open("w") as file:
        file.write(lines(*({"a": number} for number in range(12_000))) + "{bad\n" + lines(late))
    ran = cli("write", "in.jsonl", "out", "--on-error", "skip", "--rejects", "rejects.jsonl", *arguments)
    assert ran.code == 7
    assert len((tmp_path / "rejects.jsonl").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "out" / "manifest.json").read_bytes())["rejected"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-size", "9" * 400], ["more than any store"]),
        (["--max-size", "1.5.5"], ["no size"]),
        (["--fields", "id", "--split-from", "text"], ["--split-from", "--fields"]),
        (["--split", "manifest.json=0.5,b=0.5"], ["manifest.json"]),
        (["--split-from", "id"], ["splits"]),
    ],
)
def test_options_that_cannot_be(cli, rows_file, tmp_path, arguments, words):
    ran = cli("write", "rows.jsonl", "out", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "Traceback" not in ran.err
    assert all(word in ran.err for word in words)
    assert not (tmp_path / "out").exists()


def test_the_same_limits_given_or_not_are_the_same_job(cli, rows_file):
    assert cli("write", "rows.jsonl", "out").code == 0
    ran = cli("write", "rows.jsonl", "out", "--max-count", "10000", "--max-size", "1G")
    assert ran.code == 0
    assert ran.err.startswith("unchanged")


def test_an_array_that_its_type_cannot_hold_is_a_reject(cli, tmp_path):
    (tmp_path / "in.jsonl").write_text(lines({"a": [1, 300]}))
    (tmp_path / "s.json").write_text(json.dumps({"properties": {"a": {"$ref": "#/ndarray", "dtype": "uint8"}}}))
    cli("write", "in.jsonl", "out", "--schema", "s.json").failed(1, "in.jsonl:1", "300")
    assert not (tmp_path / "out").exists()


HOSTILE = {"samples": 1, "bytes": 1, "payload": 1, "encoding": "files", "job": "j", "name": "x"}


@pytest.mark.parametrize(
    "manifest",
    [
        {"shards": [{"name": "../../x", "samples": 1, "bytes": 1, "sha256": "", "first_key": "", "last_key": ""}]},
        {"shards": [{"name": "a.tar", "samples": 1, "bytes": "5", "sha256": "", "first_key": "", "last_key": ""}]},
        {"splits": {"../other": {"manifest": "", "sha256": "", "samples": 1, "bytes": 1, "payload": 1, "shards": 1}}},
        {"splits": []},
        {"options": [1]},
        {"samples": 10**30},
        {"name": ["\x1b[31m"]},
    ],
)
def test_a_hostile_manifest_is_damage_as_source_and_as_dest(cli, rows_file, tmp_path, manifest):
    (tmp_path / "in").mkdir()
    text = json.dumps({"format": "atdata-manifest", "version": 1} | HOSTILE | manifest)
    (tmp_path / "in" / "manifest.json").write_text(text)
    for arguments in (("in", "out"), ("rows.jsonl", "in")):
        ran = cli("write", *arguments)
        ran.failed(6, "manifest.json", "damaged")
        assert "\x1b" not in ran.err
    assert not (tmp_path / "out").exists()
    assert os.listdir(tmp_path / "in") == ["manifest.json"]


def test_thousands_of_sources_on_the_command_line(cli, tmp_path):
    (tmp_path / "in").mkdir()
    names = [f"in/{number:04d}.jsonl" for number in range(5000)]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(lines({"n": number}))
    assert cli("write", *names, "out", "--name", "n").code == 0
    assert cli("write", "in", "out2", "--name", "n").code == 0
    manifests = [(tmp_path / folder / "manifest.json").read_bytes() for folder in ("out", "out2")]
    samples = [json.loads(manifest)["samples"] for manifest in manifests]
    assert samples == [5000, 5000]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_it_works_without_a_standard_stream(rows_file, tmp_path, closed):
    command = f"exec {COMMAND} write rows.jsonl out {closed}>&-"
    ran = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False)
    assert ran.stdout == ("" if closed == 1 else "out/shard-000000.tar\n")


def test_a_closed_pipe_has_its_own_exit_code(rows_file, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:
        ran = subprocess.run(
            [str(COMMAND), "write", "rows.jsonl", "out"],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (141, "")


@pytest.mark.parametrize(
    "line",
    [
        ["write", "rows.jsonl", "out"],
        ["resolve", "small"],
        ["inspect", "small", "--key", "0000000000", "--field", "a"],
        ["inspect", "small", "--html", "-"],
        ["inspect", "--help"],
        ["--version"],
    ],
)
def test_a_full_stdout_is_told(cli, rows_file, tmp_path, line):
    (tmp_path / "small.jsonl").write_text('{"a": 1}\n')
    assert cli("write", "small.jsonl", "small").code == 0
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [str(COMMAND), *line],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr.startswith("atdata-cli: standard output: cannot write to it")
    assert len(ran.stderr.splitlines()) == 1


def test_json_belongs_to_us_only_before_the_command(cli, rows_file):
    ran = cli("write", "--stdin-from-command", "out", "--from", "jsonl", "--", "cat", "--json")
    ran.failed(1, "cat")
    assert not ran.err.strip().splitlines()[-1].startswith("{")


class Terminal:
    """A run on a terminal of its own."""

    def __init__(self, folder, *arguments, **env):
        self.screen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(
                COMMAND, [str(COMMAND), *arguments], environment(folder, {"TERM": "xterm", "COLUMNS": "90"} | env)
            )

    def until(self, words: bytes) -> None:
        while words not in self.screen and self._read():
            pass
        assert words in self.screen, self.screen

    def end(self) -> int:
        while self._read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> bool:
        if not select.select([self.fd], [], [], 60)[0]:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(self.screen)
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # the other side has closed
            return False
        self.screen += data
        return bool(data)


SHOW, HIDE, CLEAR = b"\x1b[?25h", b"\x1b[?25l", b"\x1b[2K"


def test_the_progress_bar_is_drawn_and_gone_at_the_end(tmp_path):
    command = "import json, time\nfor i in range(8): print(json.dumps({'n': i}), flush=True); time.sleep(.1)"
    (tmp_path / "slow.py").write_text(command)
    terminal = Terminal(tmp_path, "write", "--stdin-from-command", "out", "--from", "jsonl", "--", "python3", "slow.py")
    assert terminal.end() == 0
    drawn = terminal.screen[: terminal.screen.rindex(SHOW)]
    assert b"samples" in drawn
    assert b"B/s" in drawn
    left = terminal.screen[terminal.screen.rindex(CLEAR) :]
    assert b"out/shard-000000.tar\r\n" in left
    assert b"wrote 8 samples" in left
    assert b"B/s" not in left
    assert terminal.screen.count(HIDE) == terminal.screen.count(SHOW) == 1


def test_ctrl_c_leaves_the_terminal_as_it_was(tmp_path):
    text = lines(*rows(2000))
    terminal = Terminal(tmp_path, "write", "-", "out", "--from", "jsonl", "--color", "never")
    os.write(terminal.fd, text[:500].encode())
    terminal.until(HIDE)
    os.write(terminal.fd, b"\x03")
    assert terminal.end() == 130
    assert terminal.screen.rindex(SHOW) > terminal.screen.rindex(HIDE)
    assert b"interrupted" in terminal.screen[terminal.screen.rindex(SHOW) :]
    assert b"Traceback" not in terminal.screen


@pytest.mark.parametrize("arguments", [["--quiet"], ["--json"], ["--no-progress"]])
def test_no_bar_where_nobody_asked_for_one(rows_file, tmp_path, arguments):
    terminal = Terminal(tmp_path, "write", "rows.jsonl", "out", "--color", "never", *arguments)
    assert terminal.end() == 0
    assert b"\x1b" not in terminal.screen
