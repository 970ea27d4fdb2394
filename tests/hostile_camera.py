"""Network cameras that attack whoever reads them: a small RTSP server over TCP whose RTP is whatever a test wants."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

SPS = bytes.fromhex("6742c01fd900a0050b011000000300100000030320f1831960")
PPS = bytes.fromhex("68cb83cb20")
"""H.264, 1280 × 720, baseline."""
Payloads = Iterable[bytes]


def sdp(sps: bytes = SPS, pps: bytes = PPS) -> str:
    sets = ",".join(base64.b64encode(part).decode() for part in (sps, pps))
    return (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
        f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:track1\r\n"
    )


def endless_fragments(size: int = 1400) -> Iterator[bytes]:
    """FU-A (RFC 6184): a picture that begins and is never complete."""
    yield bytes([0x7C, 0x85]) + bytes(size)
    while True:
        yield bytes([0x7C, 0x05]) + b"\xff" * size


class HostileCamera:
    """Serves one stream to whoever asks; `payloads` makes the RTP payloads of a connection."""

    def __init__(self, payloads: Callable[[], Payloads], description: str | None = None, marker: bool = False) -> None:
        self._payloads, self._marker = payloads, marker
        self._description = sdp() if description is None else description
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        self._closing = threading.Event()
        self._peers: list[socket.socket] = []
        self._serving: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/x"

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(20)
        for peer, serving in zip(self._peers, self._serving, strict=True):
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            serving.join(20)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._peers.append(peer)
            serving = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._serving.append(serving)
            serving.start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), peer, peer.makefile("rb") as requests:
            while not self._closing.is_set():
                head = self._request(requests)
                method = head[0].partition(" ")[0]
                number = next((line for line in head if line.lower().startswith("cseq")), "CSeq: 1")
                peer.sendall(self._answer(method, number).encode("latin-1"))
                if method == "PLAY":
                    self._play(peer)
                    return

    @staticmethod
    def _request(requests: Iterable[bytes]) -> list[str]:
        head: list[str] = []
        for line in requests:
            if line in (b"\r\n", b"\n") and head:
                return head
            head.append(line.decode("latin-1").strip())
        raise OSError("gone")

    def _answer(self, method: str, number: str) -> str:
        extra, body = "", ""
        if method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            body = self._description
            extra = f"Content-Base: {self.url}/\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        elif method == "PLAY":
            extra = "Session: 1\r\n"
        return f"RTSP/1.0 200 OK\r\n{number}\r\n{extra}\r\n{body}"

    def _play(self, peer: socket.socket) -> None:
        for index, payload in enumerate(self._payloads()):
            if self._closing.is_set():
                return
            kind, stamp = 96 | (0x80 if self._marker else 0), index * 3000 & 0xFFFFFFFF
            head = struct.pack(">BBHII", 0x80, kind, index & 0xFFFF, stamp, 1)
            packet = head + payload
            peer.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)


@contextmanager
def hostile_camera(
    payloads: Callable[[], Payloads] = endless_fragments, description: str | None = None, marker: bool = False
) -> Iterator[HostileCamera]:
    camera = HostileCamera(payloads, description, marker)
    yield camera
    camera.close()
