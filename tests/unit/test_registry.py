"""From a URL to its store."""

import subprocess
import sys

import pytest

from atdata_cli.errors import AtdataError, ExitCode, UsageError
from atdata_cli.stores.filesystem import FilesystemStore
from atdata_cli.stores.http import HTTPStore
from atdata_cli.stores.local import LocalStore
from atdata_cli.stores.registry import MissingPackageError, StoreOptions, _bucket, open_filesystem, open_store


@pytest.mark.parametrize(
    ("url", "root", "prefix", "shard"),
    [
        ("out/", "", "out", "out/s.tar"),
        ("out", "", "out", "out/s.tar"),
        ("./out", ".", "out", "./out/s.tar"),
        ("../out", "..", "out", "../out/s.tar"),
        ("/data/out//", "/data", "out", "/data/out/s.tar"),
        (".", ".", "", "./s.tar"),
        ("..", "..", "", "../s.tar"),
        ("/", "/", "", "/s.tar"),
        ("file:///data/out", "/data", "out", "/data/out/s.tar"),
        ("file:out", "", "out", "out/s.tar"),
        ("12:30/out", "12:30", "out", "12:30/out/s.tar"),
    ],
)
def test_paths(url, root, prefix, shard):
    store, name = open_store(url)
    assert isinstance(store, LocalStore)
    assert (store.root, name) == (root, prefix)
    assert store.url(f"{name}/s.tar" if name else "s.tar") == shard


@pytest.mark.parametrize(
    ("url", "root", "prefix"),
    [
        ("https://host/a/b/manifest.json?sig=a%2Fb#x", "https://host/a/b?sig=a%2Fb", "manifest.json"),
        ("http://host", "http://host", ""),
        ("http://me:pw@host:8080/data/", "http://me:pw@host:8080", "data"),
        ("http://[::1]:8000/a/b", "http://[::1]:8000/a", "b"),
        ("https://host/a%2Fb/c%20d", "https://host/a%2Fb", "c d"),
    ],
)
def test_http(url, root, prefix):
    store, name = open_store(url)
    assert isinstance(store, HTTPStore)
    assert (store.root, name) == (root, prefix)


@pytest.mark.parametrize("url", ["memory://x/y", "memory:x/y", "MEMORY://x/y/", "memory:///x/y"])
def test_memory(url):
    store, name = open_store(url)
    assert isinstance(store, FilesystemStore)
    assert store.atomic
    assert name == "x/y"
    sink = store.create(f"{name}/a")
    sink.write(b"1")
    sink.commit()
    again, name = open_store(store.url("x/y/a"))
    assert again.read(name) == b"1"


def test_buckets():
    assert _bucket("s3://bucket/a/b/") == ("bucket", "a/b")
    assert _bucket("s3://bucket") == ("bucket", "")


@pytest.mark.parametrize("url", ["s3://", "s3:///a", "s3:bucket/a", "http://", "https:x", "file:", "", "-", "pipe:ls"])
def test_urls_that_mean_nothing(url):
    with pytest.raises(UsageError):
        open_store(url)


def test_other_file_systems_of_fsspec(tmp_path):
    store, name = open_store(f"local://{tmp_path}/x")
    assert isinstance(store, FilesystemStore)
    sink = store.create(f"{name}/a")
    sink.write(b"1")
    sink.commit()
    assert (tmp_path / "x" / "a").read_bytes() == b"1"
    assert store.url(f"{name}/a") == f"local:///{name}/a"
    fs, base, path = open_filesystem(f"local://{tmp_path}/x/a")
    assert fs.cat_file(fs.root_marker + path) == b"1"
    assert (base, path) == ("local:///", f"{name}/a")


def test_a_file_system_whose_package_is_missing():
    with pytest.raises(MissingPackageError, match="'gs:' URLs need the package 'gcsfs'") as error:
        open_store("gs://bucket/x")
    assert error.value.hint == "pip install gcsfs"
    assert error.value.exit_code is ExitCode.NOT_AUTHORISED


def test_options_that_a_file_system_does_not_take():
    with pytest.raises(AtdataError):
        open_store("ftp://127.0.0.1:1/x", StoreOptions(options={"nonsense": "1"}))


def test_unknown_schemes():
    with pytest.raises(UsageError, match="'s4:' is not known") as error:
        open_store("s4://bucket/x")
    assert "did you mean 's3" in error.value.hint
    for far in ("qwxyz", "foo"):
        with pytest.raises(UsageError, match="not known") as error:
            open_store(f"{far}:x")
        assert "did you mean" not in error.value.hint
    with pytest.raises(UsageError, match="chained"):
        open_store("zip://a::memory://b")


MODULE = """
from atdata_cli.stores.filesystem import FilesystemStore

def make(url, options):
    import fsspec
    return FilesystemStore(fsspec.filesystem("memory"), protocol="demo"), url.removeprefix("demo://")

def bad(url, options):
    return None
"""


def install(folder, name, module, points):
    (folder / f"{module}.py").write_text(MODULE)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[atdata_cli.stores]\n" + "".join(f"{point}\n" for point in points))


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_plugins(site):
    install(site, "demo-store", "demo_store_one", ["demo = demo_store_one:make", "s3 = demo_store_one:bad"])
    store, prefix = open_store("demo://a/b", StoreOptions(region="x"))
    assert store.url(prefix) == "demo://a/b"
    fresh = open_store("memory://x")[0]
    assert fresh.protocol == "memory"


def test_plugins_that_do_not_work(site):
    points = ["demob = demo_store_two:bad", "democ = demo_store_two:nothing", "demod = no_such_module:x"]
    install(site, "demo-store", "demo_store_two", points)
    with pytest.raises(AtdataError, match="does not return a store and a prefix"):
        open_store("demob://x")
    for scheme in ("democ", "demod"):
        with pytest.raises(AtdataError, match="cannot be loaded"):
            open_store(f"{scheme}://x")
    with pytest.raises(UsageError) as error:
        open_store("demoe://x")
    assert "did you mean 'demo" in error.value.hint


def test_two_plugins_for_one_scheme(site):
    install(site, "first", "demo_store_three", ["demo = demo_store_three:make"])
    install(site, "second", "demo_store_four", ["demo = demo_store_four:make"])
    with pytest.raises(UsageError, match="more than one") as error:
        open_store("demo://x")
    assert "of first" in error.value.message
    assert "of second" in error.value.message


def test_a_path_loads_no_heavy_library():
    code = (
        "import sys; from atdata_cli.stores.registry import open_store; open_store('out/'); "
        "print({'fsspec', 's3fs', 'aiohttp', 'numpy', 'webdataset', 'importlib.metadata'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
