"""The certificate and its key: what is wrong with them is told at once, and a new pair is taken without a restart."""

from __future__ import annotations

import asyncio
import http.client
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeinfer.config.settings import HttpConfig, TlsConfig
from edgeinfer.errors import ConfigError, EdgeinferError, InputError
from edgeinfer.web.access import tokens
from edgeinfer.web.access.rights import open_access
from edgeinfer.web.access.tls import Certificate
from edgeinfer.web.binding import check_http
from edgeinfer.web.site.server import Site
from tests.conftest import Cli
from tests.test_run import one_error_line
from tests.test_zmq import wait_for
from tests.web.serving import views

ROOT = Path(__file__).parent.parent

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgeDl/fy6HTuUDRSoD
yfbLv1KV7eQgK18X6Xtqokkle4KhRANCAARInSEH1gmx653mHKn6u6l4FhdsTl5p
PqMHOZPhulu4CakSyP110PzvSdaYWTzaPXv3xpjbbNNtx/7JdkYFVJks
-----END PRIVATE KEY-----
"""
OTHER_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUnxtKPpZb3z4A4Ck
o1uZ+De3mocFcb16yQ6UCEwrkNuhRANCAASqdRfpf63qX7KjThMHRUQzXmIGsugD
PF3URrheA/2OSJ+f/k6p1z8a4BoUbh2qOLCytTTi+hTcYVSo3fvHnkhR
-----END PRIVATE KEY-----
"""
LOCKED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhFSAij2O+ZPwICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEIx3KWsP3/qVvoHAi+TETCEEgZA2
FzSRxvTvpA24Gu90ZEw38Lt0bPM8svrOf2MgU8CVCga47wCXGzucik1kWqOCaf6M
OkaQV5RwE4BXPQrVroGDXAwunAkF7I75eGnlRNkdrpV2YJA5J/phI1RIAP/KVkD4
KqR30u+lxJTa0lQMX+B67T3C3K/6y1W14njeekDoIJ8HoutUfaphe1oMlGcfW5s=
-----END ENCRYPTED PRIVATE KEY-----
"""
# Signed with KEY, for localhost and 127.0.0.1: from 2020 to 2120, from 2001 to 2002, from 2100, and for clients.
GOOD = """\
-----BEGIN CERTIFICATE-----
MIIBaTCCAQ+gAwIBAgIUWS00yIW5BJwqHzcHa8adLAY2Mc0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJZWRnZWluZmVyMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAx
MDAwMDAwWjAUMRIwEAYDVQQDDAllZGdlaW5mZXIwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARInSEH1gmx653mHKn6u6l4FhdsTl5pPqMHOZPhulu4CakSyP110Pzv
SdaYWTzaPXv3xpjbbNNtx/7JdkYFVJksoz0wOzAaBgNVHREEEzARgglsb2NhbGhv
c3SHBH8AAAEwHQYDVR0OBBYEFDrsrZn3p5O4exvCVS5N44voJGVoMAoGCCqGSM49
BAMCA0gAMEUCIGSV5mGb7BbX+Us9x2nRz3ay8mv0+C6Iuu8iyHbReF0qAiEA5/Sl
iWBzWJIiVu8A71RrAapy6pLdbFSjppXXfeI/pWE=
-----END CERTIFICATE-----
"""
EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIBZzCCAQ2gAwIBAgIUZj7V3oJ++LXvpE8hUKT3mToaRuswCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJZWRnZWluZmVyMB4XDTAxMDEwMTAwMDAwMFoXDTAyMDEwMTAw
MDAwMFowFDESMBAGA1UEAwwJZWRnZWluZmVyMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAESJ0hB9YJseud5hyp+rupeBYXbE5eaT6jBzmT4bpbuAmpEsj9ddD870nW
mFk82j1798aY22zTbcf+yXZGBVSZLKM9MDswGgYDVR0RBBMwEYIJbG9jYWxob3N0
hwR/AAABMB0GA1UdDgQWBBQ67K2Z96eTuHsbwlUuTeOL6CRlaDAKBggqhkjOPQQD
AgNIADBFAiAWXsliWVEIeJEEN3SP6QlCx5qoUZE7OM/9dyB1cxdSjwIhAM/wDEdk
BZg4VZ+ngwVZUcEZWwEpkSsoBC8nwV4Ctg2g
-----END CERTIFICATE-----
"""
EARLY = """\
-----BEGIN CERTIFICATE-----
MIIBazCCARGgAwIBAgIUE2BdvJncKy4hWtig7U2+eVIbEOYwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJZWRnZWluZmVyMCIYDzIxMDAwMTAxMDAwMDAwWhgPMjEyMDAx
MDEwMDAwMDBaMBQxEjAQBgNVBAMMCWVkZ2VpbmZlcjBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABEidIQfWCbHrneYcqfq7qXgWF2xOXmk+owc5k+G6W7gJqRLI/XXQ
/O9J1phZPNo9e/fGmNts023H/sl2RgVUmSyjPTA7MBoGA1UdEQQTMBGCCWxvY2Fs
aG9zdIcEfwAAATAdBgNVHQ4EFgQUOuytmfenk7h7G8JVLk3ji+gkZWgwCgYIKoZI
zj0EAwIDSAAwRQIgQ8gZGM5qrY6QGOgwYWJIuS203GbXqfZGvXsOMiP0I1kCIQDf
ETJuVlCooiY9Mz+ARmTf22ocFrPzIrqZ6rSFmcz6pQ==
-----END CERTIFICATE-----
"""
CLIENTS = """\
-----BEGIN CERTIFICATE-----
MIIBYzCCAQigAwIBAgIUeyh+XG/ku3NYEAJ8eGVXOtOq2/UwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJZWRnZWluZmVyMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAx
MDAwMDAwWjAUMRIwEAYDVQQDDAllZGdlaW5mZXIwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARInSEH1gmx653mHKn6u6l4FhdsTl5pPqMHOZPhulu4CakSyP110Pzv
SdaYWTzaPXv3xpjbbNNtx/7JdkYFVJksozYwNDATBgNVHSUEDDAKBggrBgEFBQcD
AjAdBgNVHQ4EFgQUOuytmfenk7h7G8JVLk3ji+gkZWgwCgYIKoZIzj0EAwIDSQAw
RgIhAJUcm+HgmRx6n6sClWDm5fuRwWWlEZRL82tSZMqU+xjqAiEA8l+wmB6WHmf3
MLVAtRrO57zgKSD0wLVjVxZ5AzDslZ4=
-----END CERTIFICATE-----
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    put(cert, GOOD)
    put(key, KEY)
    return cert, key


def put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def spoken(context: ssl.SSLContext, server_name: str | None = "localhost", trusted: str = GOOD) -> str:
    """The version of TLS that a client which trusts `trusted` alone and the server speak."""

    async def speak() -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        client = ssl.create_default_context(cadata=trusted)
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        client.check_hostname = server_name is not None
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=server_name or "")
            version = str(writer.get_extra_info("ssl_object").version())
            writer.close()
            return version

    return asyncio.run(speak())


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", None])
def test_a_pair_is_spoken_with_by_name_by_address_and_without_either(pair: tuple[Path, Path], name: str | None) -> None:
    assert spoken(Certificate(*pair).context, name) == "TLSv1.3"


def test_tls_before_1_2_is_not_spoken(pair: tuple[Path, Path]) -> None:
    assert Certificate(*pair).context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("cert", "key", "says"),
    [
        (GOOD, OTHER_KEY, "not the key of the certificate"),
        (GOOD, LOCKED_KEY, "the key has a password"),
        (GOOD, GOOD, "not a certificate and its key in PEM"),
        (KEY, KEY, "not a certificate and its key in PEM"),
        (GOOD, "", "not a certificate and its key in PEM"),
        ("rubbish", KEY, "not a certificate and its key in PEM"),
        (GOOD[:200], KEY, "not a certificate and its key in PEM"),
        (EXPIRED, KEY, "the certificate has expired"),
        (CLIENTS, KEY, "unsuitable certificate purpose"),
        (GOOD, "x" * (2 << 20), "larger than"),
    ],
)
def test_what_is_no_good_pair(pair: tuple[Path, Path], cert: str, key: str, says: str) -> None:
    put(pair[0], cert)
    put(pair[1], key)
    with pytest.raises(ConfigError, match=says) as error:
        Certificate(*pair)
    assert "\n" not in str(error.value)
    assert "MIG" not in str(error.value), "nothing of the key"


def test_a_certificate_from_the_future_is_only_warned_of(
    pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """A machine whose clock has no battery starts in the past."""
    put(pair[0], EARLY)
    Certificate(*pair)
    assert "not valid yet; is this machine's clock right?" in caplog.text


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o622, 0o660])
def test_a_key_of_tls_that_others_may_read_or_write_is_refused(pair: tuple[Path, Path], mode: int) -> None:
    pair[1].chmod(mode)
    if mode == 0o640 and os.geteuid() == 0:
        Certificate(*pair)  # root's, for one group
        return
    with pytest.raises(ConfigError, match=r"others may read|may write it"):
        Certificate(*pair)


def test_a_certificate_is_public_but_not_for_others_to_write(pair: tuple[Path, Path]) -> None:
    pair[0].chmod(0o644)
    Certificate(*pair)
    pair[0].chmod(0o646)
    with pytest.raises(ConfigError, match="may write it"):
        Certificate(*pair)


@pytest.mark.parametrize("which", [0, 1])
def test_files_of_tls_that_are_none(pair: tuple[Path, Path], which: int) -> None:
    pair[which].unlink()
    with pytest.raises(InputError, match="No such file"):
        Certificate(*pair)
    os.mkfifo(pair[which], 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        Certificate(*pair)
    pair[which].unlink()
    pair[which].mkdir()
    with pytest.raises(EdgeinferError):
        Certificate(*pair)


def test_a_new_certificate_is_taken_without_a_restart(pair: tuple[Path, Path]) -> None:
    certificate = Certificate(*pair)
    put(pair[0], CLIENTS)
    certificate.refresh()
    assert spoken(certificate.context) == "TLSv1.3", "a bad one is not taken"
    assert "purpose" in certificate.error
    put(pair[0], EARLY)
    certificate.refresh()
    assert certificate.error == ""
    with pytest.raises(ssl.SSLCertVerificationError):
        spoken(certificate.context)
    put(pair[0], GOOD)
    certificate.refresh()
    assert spoken(certificate.context) == "TLSv1.3"


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.chmod(0o666), lambda path: path.write_text(OTHER_KEY)])
def test_a_pair_that_goes_bad_while_the_daemon_runs_is_told_once_and_the_old_one_goes_on(
    pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    certificate = Certificate(*pair)
    harm(pair[1])
    for _ in range(3):
        certificate.refresh()
    assert len(caplog.records) == 1
    assert "goes on" in caplog.text
    assert spoken(certificate.context) == "TLSv1.3"


def test_the_page_over_tls(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _, secret = tokens.add(tmp_path / "t", "viewer")
    access = open_access(False, str(tmp_path / "t"), (str(pair[0]), str(pair[1])))
    assert access.certificate is not None
    site = Site("127.0.0.1", 0, views(access=access), access.certificate.context)
    site.start()
    try:
        client = ssl.create_default_context(cadata=GOOD)
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        connection = http.client.HTTPSConnection("127.0.0.1", site.port, timeout=20, context=client)
        origin = f"https://127.0.0.1:{site.port}"
        headers = {"Content-Type": "application/json", "Origin": origin}
        connection.request("POST", "/login", f'{{"token": "{secret}"}}', headers)
        answer = connection.getresponse()
        answer.read()
        cookie = answer.headers["Set-Cookie"]
        assert answer.status == 200
        assert cookie.startswith(f"__Host-edgeinfer_session_{site.port}=eis_")
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict; Secure")
        for given, status in (
            ({"Cookie": cookie.partition(";")[0]}, 200),
            ({}, 401),
            ({"Origin": origin[:4] + origin[5:]}, 403),
        ):
            connection.request("GET", "/api/v1/status", headers=given)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
        connection.close()
        with socket.create_connection(("127.0.0.1", site.port), timeout=20) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" not in plain.recv(100)
    finally:
        site.stop()


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize("bind", ["0.0.0.0:9108", "[::]:9108", "192.0.2.7:9108", "camera.example:9108"])
def test_beyond_this_machine_the_page_needs_a_token_and_tls(bind: str, insecure: bool) -> None:
    tls = TlsConfig(cert="c", key="k")
    file = "t"
    for token, given in ((None, None), (file, None), (None, tls)):
        with pytest.raises(ConfigError, match="can be reached from other machines"):
            check_http(HttpConfig(bind=bind, web=True, token=token, tls=given, insecure=insecure))
    check_http(HttpConfig(bind=bind, web=True, token=file, tls=tls))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_documented_line_of_openssl_makes_a_pair(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("openssl req"))
    before = os.umask(0o022)
    try:
        subprocess.run(shlex.split(line), cwd=tmp_path, check=True, capture_output=True)
    finally:
        os.umask(before)
    certificate = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert spoken(certificate.context, "camera.example", (tmp_path / "cert.pem").read_text()) == "TLSv1.3"


def test_check_looks_at_tokens_and_certificate(cli: Cli, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    tokens.add(tmp_path / "t", "viewer")
    config = tmp_path / "c.yaml"
    http = "{bind: '0.0.0.0:9108', web: true, token: t, tls: {cert: cert.pem, key: key.pem}}"
    config.write_text(f"sources: {{a: 'demo:'}}\nhttp: {http}\n")
    assert cli("check", "c.yaml").returncode == 0
    put(pair[0], EXPIRED)
    process = cli("check", "c.yaml")
    assert (process.returncode, "has expired" in one_error_line(process)) == (78, True)
    put(pair[0], GOOD)
    (tmp_path / "t").chmod(0o644)
    process = cli("check", "c.yaml")
    assert (process.returncode, "others may read this secret" in one_error_line(process)) == (78, True)


def test_a_daemon_over_tls_whose_token_is_revoked(
    daemon_process: Callable[..., subprocess.Popen[str]], cli: Cli, tmp_path: Path, pair: tuple[Path, Path], ipc: str
) -> None:
    secret = cli("web", "token", "new", "--file", "t").stdout.strip()
    http_settings = "{bind: '127.0.0.1:0', web: true, token: t, tls: {cert: cert.pem, key: key.pem}}"
    (tmp_path / "c.yaml").write_text(f"sources: {{a: {{uri: 'demo:', max_fps: 1}}}}\nhttp: {http_settings}\n")
    process = daemon_process("run", "--config", "c.yaml", "--bind", ipc)
    assert process.stdout is not None
    page = next(line for line in process.stdout if "page https://" in line)
    client = ssl.create_default_context(cadata=GOOD)
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    port = int(page.strip().rstrip("/").rpartition(":")[2])

    def status(**headers: str) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=client)
        connection.request("GET", "/api/v1/status", headers=headers)
        found = connection.getresponse().status
        connection.close()
        return found

    bearer = {"Authorization": f"Bearer {secret}"}
    assert (status(), status(**bearer)) == (401, 200)
    assert cli("web", "token", "revoke", "viewer", "--file", "t").returncode == 0
    wait_for(lambda: status(**bearer) == 401, "the daemon to notice")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert secret not in out + err
