from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from atdata_cli.errors import IntegrityError
from atdata_cli.sources.base import Files, InputFile, Sample
from atdata_cli.sources.tars import TarSource
from tests.unit.local_files import LocalFiles

LARGE = 300 * 1024


class Pipes(LocalFiles):
    """Files of which none can seek."""

    def open(self, url: str) -> BinaryIO:
        return Pipe(open(url, "rb"))  # type: ignore[return-value]


class Pipe(io.BufferedReader):
    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("seek")

    tell = seek  # type: ignore[assignment]


def shard(path: Path, members: Sequence[tuple[str, bytes | str]]) -> InputFile:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type = content.encode()
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return InputFile(path.name, str(path), path.stat().st_size)


def contents(sample: Sample) -> dict[str, bytes]:
    found = {}
    for field, value in sample.fields.items():
        if isinstance(value, bytes):
            found[field] = value
        else:
            with value.open() as file:
                found[field] = file.read()
            assert len(found[field]) == value.size
    return found


def read(*inputs: InputFile, files: Files | None = None) -> tuple[list[tuple[str, dict[str, bytes]]], TarSource]:
    source = TarSource(files or LocalFiles(), inputs)
    return [(sample.key, contents(sample)) for sample in source.samples()], source


@pytest.mark.parametrize("files", [LocalFiles(), Pipes()])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_samples_are_those_that_webdataset_reads(tmp_path: Path, files: Files, suffix: str) -> None:
    big = bytes(range(256)) * (LARGE // 256)
    one = shard(
        tmp_path / f"1.{suffix}",
        [
            ("x/a.jpg", big + b"1"),
            ("x/a.cls", b"7"),
            ("x/a.JSON", b"{}"),
            ("x", "5"),
            ("b.seg.png", big),
            ("b.a", b""),
        ],
    )
    two = shard(tmp_path / f"2.{suffix}", [("./c.z", big + b"z"), ("./c.y", big + b"y"), ("d.txt", b"d")])
    found, source = read(one, two, files=files)
    assert found == [
        ("x/a", {"JSON": b"{}", "cls": b"7", "jpg": big + b"1"}),
        ("b", {"a": b"", "seg.png": big}),
        ("c", {"y": big + b"y", "z": big + b"z"}),
        ("d", {"txt": b"d"}),
    ]
    assert source.rejects == []
    assert [list(fields) for _, fields in found] == [
        ["JSON", "cls", "jpg"],
        ["a", "seg.png"],
        ["y", "z"],
        ["txt"],
    ]
    plain_seekable = suffix == "tar" and type(files) is LocalFiles
    assert source.count() == (4 if plain_seekable else None)
    assert source.position() == source.size() == (one.size or 0) + (two.size or 0)
    with open(one.url, "rb") as first, open(two.url, "rb") as second:
        streams = [{"url": one.url, "stream": first}, {"url": two.url, "stream": second}]
        theirs = list(group_by_keys(tar_file_expander(streams)))
    assert [sample["__key__"].removeprefix("./") for sample in theirs] == [key for key, _ in found]
    assert [set(sample) for sample in theirs] == [
        {"__key__", "__url__", *(field.lower() for field in fields)} for _, fields in found
    ]


def test_what_is_no_sample_is_rejected_and_the_rest_goes_on(tmp_path: Path) -> None:
    first = shard(
        tmp_path / "1.tar",
        [
            ("good.txt", b"1"),
            ("README", b"x"),
            ("__meta__", b"x"),
            ("__info__/a.json", b"x"),
            (".DS_Store", b"x"),
            ("x/._a.jpg", b"x"),
            ("link.txt", "2"),
            ("hard.txt", "1"),
            ("device.txt", "3"),
            ("../up.txt", b"x"),
            ("/abs.txt", b"x"),
            ("under._x", b"x"),
            ("under.txt", b"x"),
            ("case.jpg", b"x"),
            ("case.JPG", b"x"),
            ("twice.jpg", b"x"),
            ("twice.jpg", b"x"),
            ("good.jpg", b"late"),
            ("last.txt", b"1"),
        ],
    )
    second = shard(tmp_path / "2.tar", [("last.jpg", b"2"), ("more.txt", b"3")])
    found, source = read(first, second)
    assert found == [("good", {"txt": b"1"}), ("last", {"txt": b"1"}), ("more", {"txt": b"3"})]
    reasons = {reject.where.rpartition(": ")[2]: reject.reason for reject in source.rejects}
    assert set(reasons) == {
        *("README", "link.txt", "hard.txt", "device.txt", "../up.txt", "/abs.txt", "under._x", "case.jpg"),
        *("twice.jpg", "good.jpg", "last.jpg"),
    }
    assert "comes twice" in reasons["twice.jpg"]
    assert "differ only by case" in reasons["case.jpg"]
    assert f"{first.url}: good.txt" in reasons["good.jpg"]
    assert f"{first.url}: last.txt" in reasons["last.jpg"]
    assert source.hidden == 2
    assert source.count() == 3


def test_a_stream_is_opened_once(tmp_path: Path) -> None:
    item = shard(tmp_path / "1.tar", [("a.txt", b"1"), ("b.txt", bytes(LARGE))])

    class Once(Pipes):
        opened = 0

        def open(self, url: str) -> BinaryIO:
            self.opened += 1
            return super().open(str(tmp_path / "1.tar"))

    for url, size in (("-", None), ("/dev/fd/63", None)):
        files = Once()
        source = TarSource(files, [InputFile("in", url, size)])
        assert source.count() is None
        assert not source.rewindable
        assert [(sample.key, contents(sample)["txt"]) for sample in source.samples()] == [
            ("a", b"1"),
            ("b", bytes(LARGE)),
        ]
        assert files.opened == 1
        assert source.position() == item.size


def test_rejects_go_to_whoever_asked(tmp_path: Path) -> None:
    source = TarSource(LocalFiles(), [shard(tmp_path / "1.tar", [("README", b"x")])])
    heard = []
    source.on_reject = heard.append
    assert list(source.samples()) == []
    assert len(heard) == 1
    assert source.rejects == []


def test_damage_names_file_and_offset(tmp_path: Path) -> None:
    item = shard(tmp_path / "1.tar", [("a.txt", bytes(600)), ("b.bin", bytes(LARGE))])
    with open(item.url, "r+b") as file:
        file.truncate(100_000)
    with pytest.raises(IntegrityError, match="it has 100000 bytes, not 317440"):
        read(item)
    item = InputFile(item.name, item.url, 100_000)
    for files in (LocalFiles(), Pipes()):
        with pytest.raises(IntegrityError, match=r"truncated at byte 100000: member 'b\.bin'") as caught:
            read(item, files=files)
        assert caught.value.url == item.url
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(IntegrityError, match="not a tar file"):
        read(InputFile("empty.tar", str(tmp_path / "empty.tar"), 0))


def test_a_sample_of_many_members_does_not_fill_the_memory(tmp_path: Path) -> None:
    piece = bytes(200 * 1024)
    item = shard(tmp_path / "1.tar", [(f"a.f{number}", piece) for number in range(120)])
    for files in (LocalFiles(), Pipes()):
        (sample,) = TarSource(files, [item]).samples()
        in_memory = sum(len(value) for value in sample.fields.values() if isinstance(value, bytes))
        assert in_memory <= 16 << 20
        assert len(sample.fields) == 120


def test_too_many_fields_are_rejected(tmp_path: Path) -> None:
    item = shard(tmp_path / "1.tar", [(f"a.f{number}", b"") for number in range(10_001)])
    found, source = read(item)
    assert found == []
    assert "more than 10000 fields" in source.rejects[0].reason
