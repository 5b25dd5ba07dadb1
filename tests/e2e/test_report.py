"""``inspect --html`` in a real browser: what it shows, and what data cannot make it do."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.servers.browser import chromium, listener

LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
HOSTILE = [
    "<script>document.title = 'owned'; fetch('{url}script')</script>",
    "<img src='{url}img' onerror=\"document.title = 'owned'\">",
    "\"><iframe src='{url}frame'></iframe>",
    "</style><style>@import url({url}style)</style>",
    "</title></svg><svg onload=\"fetch('{url}svg')\">",
    "<link rel=stylesheet href={url}css><base href={url}>",
    "{{{{ 7 * 191 }}}} {{% raw %}} {{# no comment #}}",
    "<audio src={url}audio autoplay></audio><meta http-equiv=refresh content='0;url={url}meta'>",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def visit(browser: Browser, path: Path, *, size=LAPTOP, scheme="light") -> tuple[Page, list[str]]:
    """The page, opened from disk, and everything that should not be: messages, errors, requests."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: noise.append(f"error: {error}"))
    allowed = (path.as_uri(), "data:")
    page.on("request", lambda request: None if request.url.startswith(allowed) else noise.append(request.url))
    page.goto(path.as_uri())
    return page, noise


def _png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def _wav(path: Path, seconds: float) -> None:
    time = np.arange(int(8000 * seconds)) / 8000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((np.sin(2770 * time) * 12000).astype("<i2").tobytes())


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Twelve samples with everything that the page can show."""
    folder = tmp_path / "media"
    folder.mkdir()
    rows, columns = np.mgrid[0:60, 0:80]
    for number in range(12):
        stem = folder / f"{number:02d}"
        colour = np.stack([rows * 4, columns * 3, np.full_like(rows, number * 20)], -1).astype("u1")
        Image.fromarray(colour).resize((800, 600)).save(f"{stem}.jpg")
        Image.fromarray(colour).save(f"{stem}.mask.tiff")
        Path(f"{stem}.pgm").write_bytes(b"P5 8 8 255\n" + bytes(range(0, 256, 4)))
        np.save(f"{stem}.field.npy", np.sin(rows / 7 + number).astype("f4"))
        np.save(f"{stem}.signal.npy", np.cumsum(np.cos(np.arange(300) * number)))
        _wav(Path(f"{stem}.wav"), 0.5)
        Path(f"{stem}.cls").write_text(str(number % 3))
        Path(f"{stem}.txt").write_text("A long caption, with many words. " * 20)
        Path(f"{stem}.json").write_text(json.dumps({"label": ["cat", "dog"][number % 2], "score": number / 7}))
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_everything_is_shown_and_can_be_read(cli, browser, media, tmp_path, size, scheme):
    assert cli("write", "media", "shards", "--max-count", "5").code == 0
    told = cli("inspect", "shards", "--html", "page.html")
    assert (told.code, told.out, told.err) == (0, "", "wrote page.html\n")
    page, noise = visit(browser, tmp_path / "page.html", size=size, scheme=scheme)
    assert page.locator("article.sample").count() == 12
    images = page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert len(images) == 12 * 4
    assert min(images) > 0
    assert max(images) <= 320
    durations = page.evaluate("[...document.querySelectorAll('audio')].map(sound => sound.duration)")
    assert durations == [0.5] * 12
    assert page.locator("svg.spark polyline").count() == 12
    page.locator("summary:has-text('Numbers')").first.click()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    red = int(re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[0])
    assert red > 200 if scheme == "light" else red < 50
    assert [found["id"] for found in Axe().run(page).response["violations"]] == []
    assert noise == []


def test_data_stays_text(cli, browser, tmp_path):
    with listener() as (url, heard):
        captions = [text.format(url=url) for text in HOSTILE]
        members = {}
        for number, caption in enumerate(captions):
            members[f"{number:02d}.json"] = json.dumps({"label": caption, caption[:60]: number, "url": url})
            members[f"{number:02d}.txt"] = caption
        members["20.svg"] = (
            f'<svg xmlns="http://www.w3.org/2000/svg"><script href="{url}a"/><image href="{url}b"/></svg>'
        )
        members["21.html"] = f"<script src={url}c></script>"
        members['"><img src=x onerror=alert(1)>.txt'] = "its key is hostile"
        members["22.a'\"><b onclick=alert(1)>x"] = "its field's name is hostile"
        members["23.txt"] = "\x1b[2J\u202eevil"
        members["esc\x1b]0;x\x07\u202etxt.txt"] = "its key is refused"
        with tarfile.open(tmp_path / "hostile.tar", "w") as archive:
            for name, text in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        assert cli("inspect", "hostile.tar", "--html", "page.html").code == 0
        page, noise = visit(browser, tmp_path / "page.html")
        shown = page.locator("body").inner_text()
        for caption in captions:
            assert caption in shown
        assert "<svg xmlns" in shown
        assert page.title() == "hostile.tar: dataset report"
        assert page.locator("script, iframe, object, embed, base, form, audio, svg image, svg script").count() == 0
        targets = page.evaluate(
            "[...document.querySelectorAll('[src], [href]')].map(e => e.getAttribute('src') ?? e.getAttribute('href'))"
        )
        assert {target for target in targets if not target.startswith(("#", "data:"))} == set()
        handlers = "[...document.querySelectorAll('*')].some(e => [...e.attributes].some(a => a.name.startsWith('on')))"
        assert not page.evaluate(handlers)
        # Even a script that got in could neither run nor call anyone.
        page.evaluate(f"fetch('{url}inside').catch(() => null)")
        page.evaluate(f"new Promise(r => {{ const i = new Image(); i.onerror = r; i.src = '{url}inside'; }})")
        assert heard == []
        urllib.request.urlopen(f"{url}outside").close()
        assert heard == ["/outside"]
        assert all("inside" in line or "Content Security Policy" in line for line in noise)
    written = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", written) is None
    assert "1337" not in written  # 7 * 191: nobody took data for a template


def test_by_keyboard(cli, browser, media, tmp_path):
    assert cli("write", "media", "shards").code == 0
    assert cli("inspect", "shards", "--html", "page.html").code == 0
    page, noise = visit(browser, tmp_path / "page.html", size=PHONE)
    focused = "document.activeElement.outerHTML.slice(0, 200)"
    page.keyboard.press("Tab")
    assert "Skip to the content" in page.evaluate(focused)
    assert page.locator("a.skip").bounding_box()["x"] >= 0
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert 'id="main"' in page.evaluate(focused)
    page.keyboard.press("Tab")
    assert "<audio" in page.evaluate(focused) or "<summary" in page.evaluate(focused)
    unfolded = page.locator("article details").first
    unfolded.locator("summary").focus()
    page.keyboard.press("Enter")
    assert unfolded.evaluate("details => details.open")
    assert noise == []


def test_values_and_sizes_are_those_of_the_data(cli, browser, tmp_path):
    rows = [{"label": "odd" if n % 2 else "even", "n": n, "part": n % 4, "maybe": None} for n in range(5000)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("write", "rows.jsonl", "shards", "--max-count", "1000").code == 0
    assert cli("inspect", "shards", "--html", "page.html").code == 0
    page, _ = visit(browser, tmp_path / "page.html")
    assert "5,000" in page.locator("#totals").inner_text()
    assert "Of 2,000 of 5,000 samples: the beginning of 5 shards." in page.locator("#values").inner_text()
    cells = "table => [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"
    for caption, counted in (
        ("label: values", [["even", "1,000"], ["odd", "1,000"]]),
        ("part: values", [[str(part), "500"] for part in range(4)]),
        ("Samples in each shard", [[f"shard-{n:06d}.tar", "1,000"] for n in range(5)]),
    ):
        assert page.locator(f"table:has(caption:text-is('{caption}'))").evaluate(cells) == counted
    assert page.get_by_role("img", name="label: values").count() == 1
    # Ranges of the whole come from the manifest, not from what was read.
    assert "0 … 4999" in page.locator("#schema").inner_text()
    assert page.locator("#samples tbody tr").count() == 24


def test_what_is_broken_is_told(cli, browser, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    whole = _png(np.zeros((40, 40, 3), "u1"))
    (folder / "a.png").write_bytes(whole[:-30])
    (folder / "b.png").write_bytes(b"no image at all")
    (folder / "c.json").write_text("{")
    (folder / "d.wav").write_bytes(b"RIFF....JUNK")
    (folder / "e.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00junk")
    (folder / "f.png").write_bytes(whole)
    (folder / "g.txt").write_bytes(b"\xff\xfe\x00")
    assert cli("write", "broken", "shards", "--max-count", "4").code == 0
    assert cli("inspect", "shards", "--html", "page.html").code == 0
    page, noise = visit(browser, tmp_path / "page.html")
    rows = page.locator("#problems tbody tr")
    keys = [row.locator("td").nth(1).inner_text() for row in rows.all()]
    assert keys == ["a", "b", "c", "d", "e", "g"]
    assert page.locator("article.sample").count() == 7
    assert page.evaluate("[...document.images].map(image => image.naturalWidth)") == [40]
    assert noise == []
    # A shard that is damaged after its first samples is told of, and the others are shown.
    shard = tmp_path / "shards" / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    assert cli("inspect", "shards", "--html", "page.html").code == 0
    page, _ = visit(browser, tmp_path / "page.html")
    assert "unreadable shard" in page.locator("#problems").inner_text()
    assert page.locator("article.sample").count() == 4


def test_the_same_dataset_makes_the_same_page(cli, media, tmp_path):
    assert cli("write", "media", "shards", "--split", "a=0.5,b=0.5").code == 0
    assert cli("inspect", "shards", "--html", "one.html").code == 0
    other = cli("inspect", "shards", "--html", "-")
    assert (other.code, other.err) == (0, "")
    one = (tmp_path / "one.html").read_bytes()
    assert one == other.out.encode()
    assert b"split a" in one
    assert not re.search(rb"src=\"(?!data:)", one)
    both = cli("inspect", "shards", "--html", "two.html", "--json")
    assert both.document["samples"] == 12
    assert (tmp_path / "two.html").read_bytes() == one
    assert sorted(os.listdir(tmp_path)) == sorted([".err", ".out", "home", "media", "one.html", "shards", "two.html"])


def test_what_goes_wrong(cli, media, tmp_path):
    assert cli("write", "media", "shards").code == 0
    cli("inspect", "shards", "--html", "x.html", "--head", "1").failed(2, "--html")
    both = cli("inspect", "shards", "--html", "-", "--json")
    assert (both.code, both.out) == (2, "")
    cli("inspect", "shards", "--html", "none/x.html").failed(3, "none/x.html")
    cli("inspect", "shards", "--html", "media").failed(2, "media", "folder")
    cli("inspect", "nothing", "--html", "x.html").failed(3, "nothing")
    assert not (tmp_path / "x.html").exists()
    for module in ("jinja2", "PIL"):
        hidden = tmp_path / f"without-{module}"
        hidden.mkdir()
        (hidden / f"{module}.py").write_text(f"raise ModuleNotFoundError('no {module}', name='{module}')")
        told = cli("inspect", "shards", "--html", "x.html", env={"PYTHONPATH": str(hidden)})
        told.failed(4, "HTML report", "pip install 'atdata-cli[report]'")


def test_a_dataset_in_s3(cli, browser, media, tmp_path, s3_env, s3_bucket):
    url = f"s3://{s3_bucket}/media"
    assert cli("write", "media", url, "--max-count", "5", env=s3_env).code == 0
    assert cli("inspect", url, "--html", "page.html", env=s3_env).code == 0
    page, noise = visit(browser, tmp_path / "page.html", size=PHONE)
    assert page.locator("article.sample img").count() == 12 * 4
    assert page.locator("header .url").inner_text() == url
    assert noise == []
