"""The page's certificate and key: checked before anybody connects, and read again when their files change."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from pathlib import Path

from edgeinfer.errors import ConfigError, InputError, unreadable
from edgeinfer.guard.files import in_time
from edgeinfer.guard.limits import MAX_KEY_FILE_BYTES
from edgeinfer.transport.guarded import check_owned, read_owned

log = logging.getLogger(__name__)

_EXPIRED, _NOT_YET = 10, 9
"""X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""
_MAKES_ONE = "docs/security.md has the line of openssl that makes a pair"


class Certificate:
    """What TLS is spoken with: `context` for a server, whose next connections see each pair that `refresh` finds."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises InputError, ConfigError, TemporaryError: unreadable, not a pair, expired, a key that others may read.

        One that is not valid yet is only warned of: a machine whose clock has no battery starts in the past.
        """
        self.cert, self.key = cert, key
        self._pair = in_time(self._read)
        self._now = load(self._pair, cert, key)
        self.context = server_context()
        self.context.sni_callback = self._choose  # asked at each handshake, with a name or without
        self.error = ""

    def refresh(self) -> None:
        """Takes a pair that has changed, if it is a good one; until then the old one goes on. May take long."""
        try:
            pair = self._read()
            if pair != self._pair:
                self._now = load(pair, self.cert, self.key)
                log.info("web: the certificate in %s is used from now on", self.cert)
            self._pair, self.error = pair, ""
        except Exception as error:  # no file, no memory, no pair: whatever it is may be mended by the next look
            if str(error) != self.error:
                log.warning("web: %s; the certificate that was there goes on", error)
            self.error = str(error)

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._now

    def _read(self) -> tuple[bytes, bytes]:
        return _bytes(self.cert, secret=False), _bytes(self.key, secret=True)


def server_context() -> ssl.SSLContext:
    """TLS 1.2 and later, by OpenSSL's own choice of ciphers; HTTP/1.1, which is what WebSockets begin with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    return context


def load(pair: tuple[bytes, bytes], cert: Path, key: Path) -> ssl.SSLContext:
    """A server's context with this pair, that has spoken with itself. Raises ConfigError."""
    context = server_context()
    with _Memory(pair[0]) as cert_file, _Memory(pair[1]) as key_file:
        try:
            context.load_cert_chain(cert_file.path, key_file.path, password=_no_password)
        except _EncryptedError:
            raise ConfigError(f"{key}: the key has a password", f"openssl pkey -in {key} writes it without") from None
        except ssl.SSLError as error:
            raise _not_a_pair(error, cert, key) from None
        _try(context, cert_file.path, cert)
    return context


def _try(context: ssl.SSLContext, path: str, cert: Path) -> None:
    """A handshake in memory, with a client that trusts this certificate alone: OpenSSL says what is wrong with it."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client.load_verify_locations(path)
        ours = context.wrap_bio(to_server, to_client, server_side=True)
        theirs = client.wrap_bio(to_client, to_server)
        for _ in range(4):
            for side in (theirs, ours):
                _step(side)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            raise ConfigError(f"{cert}: the certificate has expired", _MAKES_ONE) from None
        if error.verify_code != _NOT_YET:
            raise ConfigError(f"{cert}: {error.verify_message}", _MAKES_ONE) from None
        log.warning("web: %s: the certificate is not valid yet; is this machine's clock right?", cert)
    except ssl.SSLError as error:
        raise ConfigError(f"{cert}: no connection could be made with it ({error.reason})", _MAKES_ONE) from None


def _step(side: ssl.SSLObject) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):
        side.do_handshake()


class _Memory:
    """A file without a name: OpenSSL reads what was checked, and not what may be at the path by then."""

    def __init__(self, data: bytes) -> None:
        self._descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
        self.path = f"/proc/self/fd/{self._descriptor}"
        with open(self._descriptor, "wb", closefd=False) as file:
            file.write(data)

    def __enter__(self) -> _Memory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class _EncryptedError(Exception):
    pass


def _no_password() -> str:
    """Without this OpenSSL would ask for one at the terminal."""
    raise _EncryptedError


def _not_a_pair(error: ssl.SSLError, cert: Path, key: Path) -> ConfigError:
    if error.reason == "KEY_VALUES_MISMATCH":
        return ConfigError(
            f"{key}: not the key of the certificate in {cert}", "name the two files that belong together"
        )
    said = f" ({error.reason.replace('_', ' ').lower()})" if error.reason else ""
    return ConfigError(f"{cert} and {key}: not a certificate and its key in PEM{said}", _MAKES_ONE)


def _bytes(path: Path, secret: bool) -> bytes:
    try:
        return read_owned(path, MAX_KEY_FILE_BYTES, lambda status: check_owned(path, status, secret))
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
