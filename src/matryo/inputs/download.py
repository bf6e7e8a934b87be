"""Downloading a file that a user named by URL, without being led somewhere else.

In: an http or https URL. Out: its bytes in pieces, up to a size and a time. Names are resolved
once and the address that was checked is the one that is connected to; redirects are checked the
same way. Proxies and cookies are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from matryo.errors import InputError

MAX_REDIRECTS = 4
PIECE_BYTES = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)


def download(
    url: str, *, max_bytes: int, timeout_s: float, allow_private: bool = False
) -> Iterator[bytes]:
    """The bytes behind a URL, in pieces.

    `allow_private`: also addresses that are not public (this machine, the local network).
    Raises InputError for another scheme, an address that is not allowed, a status other than 200,
    too many redirects, more than `max_bytes`, or no end after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    scheme = ""
    for _ in range(MAX_REDIRECTS + 1):
        parts = _checked(url)
        if scheme == "https" and parts.scheme == "http":
            raise InputError(f"{url[:200]}: a redirect from https to http is not followed")
        scheme = parts.scheme
        connection = _connect(parts, deadline, allow_private)
        # A server may send a byte now and then for ever: whatever is waiting, the socket ends.
        timer = threading.Timer(max(deadline - time.monotonic(), 0), _shut, [connection.sock])
        timer.daemon = True
        timer.start()
        try:
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            # A compressed answer could grow beyond the limit: ask for the file as it is.
            connection.request("GET", _target(parts), headers={"Accept-Encoding": "identity"})
            response = connection.getresponse()
            if response.status in _REDIRECTS and response.getheader("Location"):
                url = urljoin(url, response.getheader("Location") or "")
                continue
            if response.status != 200:
                raise InputError(
                    f"{url[:200]}: expected status 200, got {response.status} {response.reason}"
                )
            yield from _body(response, url, max_bytes, deadline)
            return
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                raise InputError(
                    f"{url[:200]}: not complete after {timeout_s:g} s; raise the limit or "
                    "download the file first"
                ) from error
            raise InputError(f"{url[:200]}: download failed: {error}") from error
        finally:
            timer.cancel()
            connection.close()
    raise InputError(f"{url[:200]}: more than {MAX_REDIRECTS} redirects")


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed on access
    except ValueError as error:
        raise InputError(f"{url[:200]!r}: not a valid URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url[:200]!r}: expected an http or https URL with a host")
    if any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise InputError(f"{url[:200]!r}: a URL holds no spaces or control characters")
    return parts


def _connect(
    parts: SplitResult, deadline: float, allow_private: bool
) -> http.client.HTTPConnection:
    """A connection to an address of the host, if all its addresses are allowed."""
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host}: the host is not known: {error}") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not allow_private and not _public(address):
            raise InputError(f"{host}: {address} is not a public address; it is not read from")
    left = max(deadline - time.monotonic(), 0.001)
    connection = http.client.HTTPConnection(host, port, timeout=left)
    try:
        connection.sock = _first_that_answers(addresses, port, left)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(
                connection.sock, server_hostname=host, do_handshake_on_connect=False
            )
    except OSError as error:
        raise InputError(f"{host}: cannot be connected to: {error}") from error
    return connection


def _first_that_answers(addresses: list[str], port: int, timeout_s: float) -> socket.socket:
    for address in addresses[:-1]:
        try:
            return socket.create_connection((address, port), timeout=timeout_s)
        except OSError:
            continue  # the host has more addresses
    return socket.create_connection((addresses[-1], port), timeout=timeout_s)


def _public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return ip.is_global and not ip.is_multicast and (mapped is None or mapped.is_global)


def _target(parts: SplitResult) -> str:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return target if target.isascii() else quote(target, safe="/?&=%:@!$'()*+,;~-._")


def _body(
    response: http.client.HTTPResponse, url: str, max_bytes: int, deadline: float
) -> Iterator[bytes]:
    stated = response.getheader("Content-Length") or ""
    if stated.isdigit() and int(stated) > max_bytes:
        raise InputError(f"{url[:200]}: expected at most {max_bytes} bytes, got {stated}")
    if response.getheader("Content-Encoding", "identity") != "identity":
        raise InputError(
            f"{url[:200]}: the server sends a compressed answer that was not asked for"
        )
    num_bytes = 0
    while piece := response.read1(PIECE_BYTES):
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise InputError(f"{url[:200]}: expected at most {max_bytes} bytes, got more")
        yield piece
    if time.monotonic() >= deadline:
        raise TimeoutError("the time is over")
    if stated.isdigit() and num_bytes != int(stated):
        raise InputError(f"{url[:200]}: ended after {num_bytes} of {stated} bytes")


def _shut(connected: socket.socket) -> None:
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # closed already
