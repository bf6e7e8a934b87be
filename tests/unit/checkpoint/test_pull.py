"""Pulling, from a small hub on this machine: only what we read, whole, errors in one line."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub.constants
import numpy as np
import pytest

from helpers.files import contents, hub_config, write_checkpoint
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.pull import pull, wanted
from matryo.errors import CapacityError, CheckpointError, ConfigError, MatryoError

NAME, COMMIT = "org/tiny", "0123456789abcdef0123456789abcdef01234567"
CODE = {
    "modeling.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "sub/config.json": b"{}",
    "consolidated.safetensors": b"x",
    "README.md": b"#",
}


class Hub:
    """The part of the hub's interface that a download uses, for one repository."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.sent: list[tuple[str, int]] = []  # file, bytes
        self.tokens: set[str | None] = set()
        self.refuse: Callable[[str], tuple[int, dict[str, str]] | None] = lambda path: None
        self.stop_after: dict[str, int] = {}  # file -> bytes until the connection breaks
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: Any) -> None:
                return

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = urlsplit(request.path).path
        self.tokens.add(request.headers.get("authorization"))
        refusal = self.refuse(path)
        if refusal is not None:
            return self.send(request, refusal[0], b"{}", refusal[1], body)
        if path in (
            f"/api/models/{NAME}",
            f"/api/models/{NAME}/revision/main",
            f"/api/models/{NAME}/revision/{COMMIT}",
        ):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.files.items()]
            return self.send_json(request, {"id": NAME, "sha": COMMIT, "siblings": siblings}, body)
        if path == f"/api/models/{NAME}/tree/{COMMIT}":
            tree = [
                {
                    "type": "file",
                    "path": name,
                    "size": len(data),
                    "oid": hashlib.sha1(data).hexdigest(),
                }
                for name, data in self.files.items()
            ]
            return self.send_json(request, tree, body)
        start = f"/{NAME}/resolve/{COMMIT}/"
        if path.startswith(start) and path.removeprefix(start) in self.files:
            return self.send_file(request, path.removeprefix(start), body)
        return self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def send_file(self, request: BaseHTTPRequestHandler, name: str, body: bool) -> None:
        data, first = self.files[name], 0
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        wanted_range = request.headers.get("range", "")
        if wanted_range.startswith("bytes="):
            first = int(wanted_range[6:].split("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        part = data[first:]
        request.send_response(206 if first else 200)
        for key, value in {**headers, "Content-Length": str(len(part))}.items():
            request.send_header(key, value)
        request.end_headers()
        if not body:
            return
        if name in self.stop_after:
            part = part[: self.stop_after[name]]
            request.close_connection = True
        self.sent.append((name, len(part)))
        request.wfile.write(part)

    def send_json(self, request: BaseHTTPRequestHandler, document: object, body: bool) -> None:
        self.send(
            request, 200, json.dumps(document).encode(), {"Content-Type": "application/json"}, body
        )

    def send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        headers: dict[str, str],
        body: bool,
    ) -> None:
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            request.send_header(key, value)
        request.end_headers()
        if body:
            request.wfile.write(data)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("hub") / "tiny"
    write_checkpoint(directory, shards=2)
    (directory / "tokenizer.json").write_text("{}", encoding="utf-8")
    return contents(directory)


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    server = Hub({**files, **CODE})
    yield server
    server.close()


def files_of(target: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()}


def test_everything_that_is_read_comes_and_nothing_else(
    hub: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    seen: list[tuple[int, int, str]] = []
    target = pull(
        NAME, tmp_path / "a" / "b", endpoint=hub.endpoint, progress=lambda *step: seen.append(step)
    )
    assert files_of(target) == files
    assert {name for name, _ in hub.sent} == set(files)
    total = sum(map(len, files.values()))
    assert seen[-1] == (total, total, NAME)
    assert HuggingFaceSource(target).config.num_layers == 9


def test_what_is_there_is_not_fetched_again(
    hub: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    pull(NAME, tmp_path / "new", endpoint=hub.endpoint)
    hub.sent.clear()
    (tmp_path / "new" / "tokenizer.json").unlink()
    pull(NAME, tmp_path / "new", endpoint=hub.endpoint)
    assert hub.sent == [("tokenizer.json", 2)]
    assert files_of(tmp_path / "new") == files


def test_a_broken_connection_leaves_what_does_not_load_and_goes_on_later(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    hub.stop_after = {second: 50_000}
    with pytest.raises(CheckpointError, match=f"cannot pull {NAME}"):
        pull(NAME, tmp_path / "new", endpoint=hub.endpoint)
    with pytest.raises(CheckpointError, match="is unfinished"):
        HuggingFaceSource(tmp_path / "new")
    assert (tmp_path / "new" / first).exists() and not (tmp_path / "new" / second).exists()
    hub.stop_after.clear()
    hub.sent.clear()
    pull(NAME, tmp_path / "new", endpoint=hub.endpoint)
    assert files_of(tmp_path / "new") == files
    assert {name for name, _ in hub.sent} == {second}
    assert capfd.readouterr().err == ""


def test_a_connection_that_breaks_once_is_continued_at_the_byte(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: hub.stop_after.clear())
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    name = "model-00002-of-00002.safetensors"
    hub.stop_after = {name: 50_000}
    pull(NAME, tmp_path / "new", endpoint=hub.endpoint)
    assert files_of(tmp_path / "new") == files
    assert [size for file, size in hub.sent if file == name] == [50_000, len(files[name]) - 50_000]


def test_what_a_killed_client_left_is_cleared_away(hub: Hub, tmp_path: Path) -> None:
    downloads = tmp_path / "new" / ".cache" / "huggingface" / "download"
    downloads.mkdir(parents=True)
    (downloads / "a.b.0123abcd.incomplete").touch()
    pull(NAME, tmp_path / "new", endpoint=hub.endpoint)
    assert not list(downloads.glob("*.incomplete"))


def test_the_token_is_sent(hub: Hub, tmp_path: Path) -> None:
    pull(NAME, tmp_path / "new", endpoint=hub.endpoint, token="hf_secret")
    assert hub.tokens == {"Bearer hf_secret"}


def test_a_revision_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    asked: list[str] = []
    hub.refuse = lambda path: asked.append(path)
    pull(NAME, tmp_path / "new", endpoint=hub.endpoint, revision=COMMIT)
    assert f"/api/models/{NAME}/revision/{COMMIT}" in asked


REFUSALS: dict[str, tuple[int, dict[str, str], str]] = {
    "gated": (403, {"X-Error-Code": "GatedRepo"}, f"accepted its terms: do so at https://huggingface.co/{NAME}"),
    "not there": (404, {"X-Error-Code": "RepoNotFound"}, "there is no org/tiny, or it is private"),
    "no revision": (404, {"X-Error-Code": "RevisionNotFound"}, "has no revision 'x'"),
    "no rights": (401, {}, "there is no org/tiny, or it is private|HTTP 401"),
    "broken": (500, {}, "HTTP 500"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_of_the_hub_is_one_line(hub: Hub, tmp_path: Path, case: str) -> None:
    status, headers, message = REFUSALS[case]
    hub.refuse = lambda path: (status, headers)
    with pytest.raises(CheckpointError, match=message) as caught:
        pull(NAME, tmp_path / "new", endpoint=hub.endpoint, revision="x")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_no_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for offline in (True, False):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(CheckpointError, match="is there a network") as caught:
            pull(NAME, tmp_path / "new", endpoint="http://127.0.0.1:9")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", ["", "tiny", "a/b/c", "../x", "org/..", "-x/y", "org/na me", "org/tiny\n", "a\0/b"]
)
def test_a_name_that_is_none_is_refused_before_anything_is_asked(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="is not the name of a repository"):
        pull(name, tmp_path / "new", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"config.json": b'{"model_type": "llama"}'}, ConfigError, "org/tiny: model_type"),
        ({"config.json": None}, CheckpointError, "holds no config.json with model.safetensors"),
        (
            dict.fromkeys(["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                           "model.safetensors.index.json"]),
            CheckpointError,
            "holds no config.json with model.safetensors",
        ),
    ],
)  # fmt: skip
def test_a_repository_of_another_kind_is_refused_before_its_weights_are_fetched(
    hub: Hub,
    tmp_path: Path,
    change: dict[str, bytes | None],
    error: type[MatryoError],
    message: str,
) -> None:
    for name, data in change.items():
        hub.files.pop(name)
        if data is not None:
            hub.files[name] = data
    with pytest.raises(error, match=message):
        pull(NAME, tmp_path / "new", endpoint=hub.endpoint)
    assert not any(name.endswith(".safetensors") for name, _ in hub.sent)


def test_a_disk_that_is_too_small_is_refused_first(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(CapacityError, match="are needed"):
        pull(NAME, tmp_path / "new", endpoint=hub.endpoint)
    assert hub.sent == []


READ = """config.json model.safetensors model-00001-of-00004.safetensors tokenizer.json
model.safetensors.index.json chat_template.jinja generation_config.json"""
NOT_READ = """../config.json model.safetensors/x x/model.safetensors model.pt training_args.bin
tokenizer.py"""


def test_only_plain_names_at_the_top_are_wanted() -> None:
    assert all(map(wanted, READ.split()))
    assert not any(map(wanted, (*CODE, *NOT_READ.split(), "config.json\n")))


def test_the_checkpoint_that_comes_is_the_one_that_was_sent(hub: Hub, tmp_path: Path) -> None:
    source = HuggingFaceSource(pull(NAME, tmp_path / "new", endpoint=hub.endpoint))
    assert np.isfinite(source.read("norm.weight")).all()
    assert source.config == HuggingFaceSource(tmp_path / "new").config
    assert hub_config()["hidden_size"] == source.config.hidden_size
