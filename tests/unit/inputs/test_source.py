"""Sources: every kind of value, its size limits, and what may be read from the network."""

from __future__ import annotations

import base64
import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from matryo.errors import ConfigError, InputError
from matryo.inputs import download, source
from matryo.inputs.limits import MediaLimits
from matryo.inputs.sniff import sniff
from matryo.inputs.source import Source

DATA = b"GIF89a" + bytes(range(200))


def content(value: Source) -> bytes:
    with value.open() as file:
        return file.read()


def test_every_way_of_giving_bytes(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(DATA)
    url = "data:image/gif;base64," + base64.b64encode(DATA).decode()
    given = [path, str(path), DATA, bytearray(DATA), memoryview(DATA), io.BytesIO(DATA), url]
    for value in given:
        made = Source.of(value)
        assert content(made) == DATA and made.num_bytes == len(DATA)
        assert made.kind is not None and made.kind.name == "GIF"
        assert Source.of(made) is made


def test_a_source_opens_any_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MEMORY_BYTES", 50)
    for value in (DATA, io.BytesIO(DATA)):  # the second is kept in a temporary file
        made = Source.of(value)
        with made.open() as one, made.open() as other:
            one.seek(10)
            assert other.read(6) == b"GIF89a" and one.read(1) == DATA[10:11]


def test_a_temporary_file_goes_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MEMORY_BYTES", 50)
    made = Source.of(io.BytesIO(DATA))
    with made.open() as file:
        path = Path(file.name)
    assert path.exists()
    del made, file
    assert not path.exists()


@pytest.mark.parametrize("value", [None, 3, 4.5, ["a"], {"path": "a"}])
def test_values_that_are_no_source(value: object) -> None:
    with pytest.raises(InputError, match="expected a path, a URL, bytes"):
        Source.of(value)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for bad in (tmp_path, tmp_path / "none", tmp_path / "pipe", "/dev/zero", "a\0b", "x" * 5000):
        with pytest.raises(InputError):
            Source.of(bad)


@pytest.mark.parametrize("url", ["data:image/gif,abc", "data:;base64,@@@", "data:"])
def test_data_urls_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match="data URL"):
        Source.of(url)


def test_text_files_and_endless_files_are_refused() -> None:
    class Endless:
        def read(self, size: int) -> bytes:
            return bytes(size)

    with pytest.raises(InputError, match="binary mode"):
        Source.of(io.StringIO("text"))
    with pytest.raises(InputError, match="at most 5000000 bytes"):
        Source.of(Endless(), limits=MediaLimits(max_bytes=5_000_000))


def test_size_limits_come_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    before = time.monotonic()
    for value in (path, b"x" * 101, "data:;base64," + "A" * 200):
        with pytest.raises(InputError, match="at most 100 bytes"):
            Source.of(value, limits=MediaLimits(max_bytes=100))
    assert time.monotonic() - before < 0.5


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_positive(value: float) -> None:
    with pytest.raises(ConfigError, match="max_sound_seconds"):
        MediaLimits(max_sound_seconds=value)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"RIFF\0\0\0\0WAVEfmt ", "WAV"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI"),
        (b"\0\0\0\x18ftypM4A ", "MP4"),
        (b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
        (b"\xff\xfb\x90\x44", "MP3"),
        (b"\xff\xf1\x50\x80", "AAC"),
        (b"ID3\4", "MP3"),
        (b"OggS", "Ogg"),
        (b"\xff\xff\xff\xff", None),
        (b"#EXTM3U", None),
        (b"ffconcat version 1.0", None),
        (b"v=0\no=-", None),
        (b"", None),
    ],
)
def test_sniffing(head: bytes, name: str | None) -> None:
    kind = sniff(head)
    assert (kind and kind.name) == name


class Handler(BaseHTTPRequestHandler):
    """/file answers, /to?X redirects to X, the rest misbehave."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name, _, rest = self.path[1:].partition("?")
        if name == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name == "drip":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError:
                pass
        elif name == "drip-head":
            try:
                for _ in range(100):
                    self.wfile.write(b"H")
                    time.sleep(0.05)
            except OSError:
                pass
        elif name in ("file", "short", "liar", "zipped"):
            stated = {"short": len(DATA) + 1, "liar": 10**12}.get(name, len(DATA))
            self.send_response(200)
            self.send_header("Content-Length", str(stated))
            if name == "zipped":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(DATA)
            self.close_connection = True
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as address:
        yield address


def fetch(url: str, timeout_s: float = 5, max_bytes: int = 1000) -> bytes:
    limits = MediaLimits(max_bytes=max_bytes, download_seconds=timeout_s)
    return content(Source.of(url, limits=limits, allow_urls=True, allow_private=True))


def test_a_url_is_downloaded_when_the_caller_allows_it(server: str) -> None:
    assert fetch(f"{server}/file?a=ä") == DATA
    assert fetch(f"{server}/to?/file") == DATA
    with pytest.raises(InputError, match="network is off"):
        Source.of(f"{server}/file")


def test_addresses_inside_a_network_are_not_read_unless_allowed(server: str) -> None:
    port = server.rsplit(":", 1)[1]
    for host in (
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "192.168.0.1",
        "2130706433",
        "0x7f.1",
    ):
        with pytest.raises(InputError, match=r"not a public address|not known"):
            Source.of(f"http://{host}:{port}/file", allow_urls=True)


def test_redirects_are_checked_like_the_first_address(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/", "gopher://x"):
        with pytest.raises(InputError, match="expected an http or https URL"):
            fetch(f"{server}/to?{target}")
    with pytest.raises(InputError, match="redirects"):
        fetch(f"{server}/" + "to?/" * 6 + "file")
    monkeypatch.setattr(download, "_public", lambda address: address == "127.0.0.1")
    with pytest.raises(InputError, match="not a public address"):
        content(Source.of(f"{server}/to?http://10.1.2.3/x", allow_urls=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "404"),
        ("short", "ended after|failed"),
        ("liar", "at most 1000 bytes"),
        ("zipped", "compressed"),
    ],
)
def test_answers_that_are_not_the_file(server: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fetch(f"{server}/{name}")
    with pytest.raises(InputError, match="at most 100 bytes"):
        fetch(f"{server}/file", max_bytes=100)


@pytest.mark.parametrize("name", ["drip", "drip-head"])
def test_a_download_ends_with_its_time(server: str, name: str) -> None:
    before = time.monotonic()
    with pytest.raises(InputError, match=r"not complete after 0\.3 s"):
        fetch(f"{server}/{name}", timeout_s=0.3)
    assert time.monotonic() - before < 1.5


@pytest.mark.parametrize("url", ["ftp://a/b", "http://", "http://a b/", "https://[x", "file:///x"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match=r"URL|http"):
        Source.of(url, allow_urls=True)


def test_nothing_listens() -> None:
    with pytest.raises(InputError, match="cannot be connected to"):
        fetch("http://127.0.0.1:9/x")


def test_an_array_has_no_bytes() -> None:
    with pytest.raises(InputError, match="expected bytes, got an array"):
        Source.of(np.zeros(3)).open()
