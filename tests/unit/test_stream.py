import bz2
import gzip
import importlib
import lzma
import os
import sys
import time

import pytest
import zstandard

from atdata_cli.errors import AuthError, DataError, NotFoundError, UsageError
from atdata_cli.sources.base import RowSource
from atdata_cli.sources.formats import FORMATS, format_of
from atdata_cli.sources.jsonl import JsonlSource
from atdata_cli.sources.stream import CommandInput, Meter, open_decompressed
from tests.unit.rowfiles import STDIN, LocalFiles, given, piped, rows_of

DATA = b"".join(b"%d some text that repeats itself\n" % i for i in range(60_000))
SKIPPABLE = b"\x5a\x2a\x4d\x18\x04\x00\x00\x00skip"
PACKERS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def read(content, path):
    with open_decompressed(LocalFiles(), given(path / "f", content)) as reader:
        return reader.read()


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_one_and_many_members(tmp_path, pack):
    assert read(pack(DATA), tmp_path) == DATA
    assert read(pack(b""), tmp_path) == b""
    half = len(DATA) // 2
    assert read(pack(DATA[:half]) + pack(b"") + pack(DATA[half:]), tmp_path) == DATA
    assert read(b"".join(pack(b"%d\n" % i) for i in range(2000)), tmp_path) == b"".join(
        b"%d\n" % i for i in range(2000)
    )


def test_padding_and_skippable_frames(tmp_path):
    for pad in (1, 5, 512, 300_000):
        assert read(gzip.compress(DATA) + bytes(pad) + gzip.compress(b"x") + bytes(pad), tmp_path) == DATA + b"x"
    assert read(lzma.compress(DATA) + bytes(4) + lzma.compress(b"x"), tmp_path) == DATA + b"x"
    frame = PACKERS["zstd"](DATA)
    assert read(SKIPPABLE + frame + SKIPPABLE + frame, tmp_path) == DATA * 2


@pytest.mark.parametrize("content", [b"", b"a", b"plain text\n", b"\x1f", b"BZ", DATA])
def test_plain_files(tmp_path, content):
    assert read(content, tmp_path) == content


@pytest.mark.parametrize("name", PACKERS)
def test_truncation_is_never_taken_for_the_end(tmp_path, name):
    packed = PACKERS[name](DATA)
    for end in (7, 20, len(packed) // 2, len(packed) - 9, len(packed) - 1):
        with pytest.raises(DataError, match=f"the {name} data is truncated") as caught:
            read(packed[:end], tmp_path)
        assert caught.value.url == str(tmp_path / "f")
        assert f"{name} -t" in caught.value.hint
    with pytest.raises(DataError, match="truncated"):
        read(packed + packed[:-3], tmp_path)


@pytest.mark.parametrize("name", PACKERS)
def test_corruption_and_other_data_behind(tmp_path, name):
    packed = bytearray(PACKERS[name](DATA))
    middle = len(packed) // 2
    packed[middle : middle + 8] = bytes(255 - byte for byte in packed[middle : middle + 8])
    with pytest.raises(DataError, match=f"the {name} data is (corrupt|truncated)"):
        read(bytes(packed), tmp_path)
    with pytest.raises(DataError, match="followed by something else"):
        read(PACKERS[name](DATA) + b"rubbish and more", tmp_path)


def test_a_bomb_passes_in_small_pieces(tmp_path):
    packed = zstandard.ZstdCompressor().compress(bytes(300 << 20))
    item = given(tmp_path / "bomb", packed)
    total = 0
    with open_decompressed(LocalFiles(), item) as reader:
        while block := reader.read(1 << 20):
            total += len(block)
    assert total == 300 << 20


@pytest.mark.parametrize("name", [*PACKERS, None])
def test_pipes(name):
    content = PACKERS[name](DATA) if name else DATA
    meter = Meter()
    with open_decompressed(LocalFiles(piped(content)), STDIN, meter) as reader:
        assert reader.read() == DATA
    assert meter.bytes == len(content)


def test_a_pipe_that_gives_single_bytes():
    reader, writer = os.pipe()
    for byte in gzip.compress(b"slow"):
        os.write(writer, bytes([byte]))
    os.close(writer)
    with open_decompressed(LocalFiles(open(reader, "rb", buffering=0)), STDIN) as opened:
        assert opened.read() == b"slow"


def python(code):
    return CommandInput([sys.executable, "-c", code], LocalFiles())


def test_a_commands_output():
    command = python("for i in range(5000): print('{\"i\": %d}' % i)")
    source = JsonlSource(command, [CommandInput.item])
    assert [row["i"] for row in rows_of(source)] == list(range(5000))
    source.finish()
    with pytest.raises(UsageError):
        source.batches()
    with pytest.raises(UsageError):
        command.open("-")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('{}'); raise SystemExit(3)", "exited with status 3"),
        ("import os; print('{}', flush=True); os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_a_failed_command_fails_the_source(code, message):
    source = JsonlSource(python(code), [CommandInput.item])
    with pytest.raises(DataError, match=message) as caught:
        rows_of(source)
    assert caught.value.exit_code == 1
    with pytest.raises(DataError, match=message):
        source.finish()


def test_a_failed_commands_truncated_output_is_its_fault():
    code = "import gzip, sys; sys.stdout.buffer.write(gzip.compress(b'{}' * 99)[:-4]); raise SystemExit(2)"
    with pytest.raises(DataError, match="status 2"):
        rows_of(JsonlSource(python(code), [CommandInput.item]))


def wait_gone(pid):
    for _ in range(1000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("stubborn", [False, True])
def test_stopping_early_ends_and_reaps_the_command(stubborn):
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else ""
    code = f"""{ignore}
import os, time
print('{{"pid": %d}}' % os.getpid() + chr(10) + ('{{}}' + chr(10)) * 400_000, flush=True)
time.sleep(600)"""
    source = JsonlSource(python(code), [CommandInput.item])
    batches = source.batches()
    pid = next(batches).rows[0]["pid"]
    batches.close()
    assert wait_gone(pid)


def test_padding_after_the_wanted_data_is_no_failure():
    command = python("print('x' * 100, flush=True); import time; time.sleep(0.1); print('y' * 10240)")
    reader = command.open("-")
    view = bytearray(10)
    assert reader.readinto(view) == 10
    reader.close()
    command.finish()
    failing = python("print('x' * 100, flush=True); raise SystemExit(4)")
    failing.open("-").close()
    with pytest.raises(DataError, match="status 4"):
        failing.finish()


def test_commands_that_cannot_run(tmp_path):
    with pytest.raises(UsageError):
        CommandInput([], LocalFiles())
    with pytest.raises(NotFoundError, match="there is no command"):
        CommandInput([str(tmp_path / "none")], LocalFiles()).open("-")
    given(tmp_path / "plain", b"")
    with pytest.raises(AuthError, match="not executable"):
        CommandInput([str(tmp_path / "plain")], LocalFiles()).open("-")
    with CommandInput(["true"], LocalFiles()).open(str(tmp_path / "plain")) as other:
        assert other.read() == b""
    CommandInput(["true"], LocalFiles()).finish()


def test_a_commands_messages_pass_through(capfd):
    source = JsonlSource(python("import sys; print('hello', file=sys.stderr)"), [CommandInput.item])
    assert rows_of(source) == []
    source.finish()
    assert capfd.readouterr().err == "hello\n"


def test_formats_can_be_loaded():
    for row_format in FORMATS.values():
        module, _, name = row_format.source.partition(":")
        assert issubclass(getattr(importlib.import_module(module), name), RowSource)
    assert format_of("a/B.JSONL.zst") == "jsonl"
    assert format_of("x.tsv.gz") == "tsv"
    assert format_of("x.parquet") == "parquet"
    assert format_of("x.json") is None
