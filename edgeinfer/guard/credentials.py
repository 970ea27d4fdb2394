"""What credentials look like in a text: URLs, makers' own forms of them, properties of a pipeline, HTTP headers.

Makers' public forms that are known here (PW is the password):

    Hikvision, Axis, Tapo    rtsp://admin:PW@192.168.1.20:554/Streaming/Channels/101
    Xiongmai (XMeye)         rtsp://192.168.1.20:554/user=admin_password=PW_channel=1_stream=0.sdp
                             rtsp://192.168.1.20:554/user=admin&password=PW&channel=1&stream=0.sdp?
    Foscam                   http://192.168.1.20:88/cgi-bin/CGIProxy.fcgi?cmd=snapPicture2&usr=admin&pwd=PW
    Wansview, Apexis         http://192.168.1.20/videostream.cgi?loginuse=admin&loginpas=PW
    Vstarcam                 http://192.168.1.20:81/livestream.cgi?user=admin&pwd=PW&streamid=0
    Reolink                  http://192.168.1.20/cgi-bin/api.cgi?cmd=Snap&channel=0&user=admin&password=PW
    Hikvision ISAPI          http://192.168.1.20/ISAPI/Streaming/channels/101/httpPreview?auth=BASE64
    Dahua, Amcrest           rtsp://192.168.1.20/cam/realmonitor?channel=1&subtype=0&authbasic=BASE64
    Hi3510, Instar           http://192.168.1.20/cgi-bin/hi3510/snap.cgi?&-usr=admin&-pwd=PW
    TVT, Topsee              rtsp://192.168.1.20:554/0/admin:PW/main
    Blue Iris                http://192.168.1.20:81/mjpg/front/video.mjpg?user=admin&pw=PW
    ZoneMinder               http://192.168.1.20/zm/cgi-bin/nph-zms?mode=jpeg&monitor=1&user=admin&pass=PW
    Synology                 http://192.168.1.20:5000/webapi/entry.cgi?api=X&_sid=SESSION, StmKey="KEY"
    mistyped                 rtsp:///admin:PW@192.168.1.20, rtsp:admin:PW@192.168.1.20, admin:PW@192.168.1.20/main
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from urllib.parse import unquote

MIN_LENGTH = 4
"""A shorter secret is not looked for as such: it would tear up every text."""

# Every repetition has a bound, so that no text takes long.
_IN_URL = re.compile(r"(?<=://)()(\S{0,1024})(?=@)")
"""Up to the last @ of a URL: a password may hold /, @, quotes and brackets itself."""
_WITHOUT_SCHEME = re.compile(
    r"(?<![\w.%+-])()([\w.%+-]{1,64}:(?!//)[^\s@\"'<>]{1,256})"
    r"(?=@(?:\[|localhost\b|[\w-]{1,63}(?:\.[\w-]{1,63}){1,9}|[\w-]{1,63}[:/]))"
)
_SOME = r"[^=&?;\s]{0,40}"
_SECRET_NAME = (
    rf"{_SOME}(?:pass|pwd|psw|loginpas|token|key|secret|auth|cred|session){_SOME}|-?p|pw|_?sid|sig(?:nature)?"
)
_USER_NAME = rf"{_SOME}(?:user|usr|loginuse|login|account){_SOME}|u"
_QUERY_END = r"(?=:?(?:[&\s'\"]|\Z))"
_QUERY_SECRET = re.compile(rf"(?i)([?&;](?:{_SECRET_NAME})=)([^&\s'\"]*?){_QUERY_END}")
_QUERY_USER = re.compile(rf"(?i)([?&;](?:{_USER_NAME})=)([^&\s'\"]*?){_QUERY_END}")
_QUERY_IN_VALUE = re.compile(rf"(?i)([?&;](?:{_SECRET_NAME})=)([^&]*)")
"""The same where the whole text is a URL: then spaces and quotes belong to it too."""

_PATH_END = (
    r"(?=[_&/;](?:user(?:name)?|usr|pass(?:word|wd)?|pwd|channel|chn?|stream|subtype|onvif|type)="
    r"|[_&]?real_stream|\.sdp|:?(?:[&?\s'\"]|\Z))"
)
_PATH_SECRET = re.compile(rf"(?i)([/_&;,](?:pass(?:word|wd)?|pwd|pw)=)(.*?){_PATH_END}")
_PATH_USER = re.compile(rf"(?i)([/_&;,](?:user(?:name)?|usr)=)(.*?){_PATH_END}")
_SEGMENT = re.compile(
    r"(://[^\s/?\"']{1,256}(?:/[^\s/?:\"']{0,64}){0,9}/)([^\s/:?=\"']{1,64}:[^\s/?\"']{1,256})(?=[/?\s\"']|\Z)"
)
_PROPERTY = re.compile(
    r"(?i)(\b[\w-]{0,40}(?:password|passwd|passphrase|pwd|[-_]pw|secret|token|stmkey)\s?=\s?)(?!\*{3}[_&:.\s])"
    r"(\"[^\"]*\"?|'[^']*'?|[^\s\"',;&]+)"
)
"""In the text of a GStreamer pipeline, or in Python's."""
_HEADER = re.compile(r"(?i)(\bauthorization[\"']?\s?[:=]\s?)([^\r\n]+)")

_OWN = re.compile(r"()ei[st]_[A-Za-z0-9_-]{43}")
"""Tokens and sessions of our page (`web/access/`), wherever they stand."""

_IN_PATH = (_PATH_SECRET, _PATH_USER, _SEGMENT)
_HIDDEN = (_IN_URL, _QUERY_SECRET, _QUERY_USER, *_IN_PATH, _WITHOUT_SCHEME, _PROPERTY, _HEADER, _OWN)
_ACCOUNTS = (_IN_URL, _SEGMENT, _WITHOUT_SCHEME)
_SECRETS = (_QUERY_SECRET, _PATH_SECRET, _PROPERTY)

_KEY = re.compile(
    r"(?i)pass(?!ive|thr)|pwd|(?:^|[_.-])(?:pw|pin|key)$|[_.-]pw[_.-]|token|secret|credential|api_?key|private_?key|^auth"
)
_NAMES_A_FILE = re.compile(r"(?i)[_-](?:file|path|dir|folder|url)$")
_MAY_NAME_A_FILE = frozenset({"token", "key"})
_A_FILE = re.compile(
    r"(?:/(?:data|etc|home|media|mnt|opt|root|run|srv|tmp|usr|var)|\.{1,2}|~)/[\w./@+-]{1,200}\Z"
    r"|(?:[\w.+-]{1,60}/){0,9}(?:[\w.+-]{1,60}\.(?:pem|key|tokens?|txt)|[a-z._-]{0,32}tokens?)\Z"
)
"""An absolute path under a usual folder, or a name that says what it is; what is random looks like none."""
_KEY_MATERIAL = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z|-----BEGIN ")
_AFTER = re.compile(
    r"(?i)(?<![\w.-])(?=[\w.-]{0,60}(?:pass|pwd|pw|pin|key|token|secret|credential|auth))([\w.-]{1,64})[\"']?"
    r"(?:\s?[:=]\s?|\s)\s{0,64}(?=(\"(?:[^\"\\\n]|\\.){0,256}|'[^'\n]{0,256}|[^\s,\]}#]{1,256}))"
)


def hide(text: str, gone: str) -> str:
    """`text` with what looks like credentials replaced."""
    for shape in _HIDDEN:
        text = shape.sub(lambda found: found[1] + gone, text)
    return text


def account_in(value: str) -> tuple[int, int] | None:
    """Where in `value`, which is one URL with all its spaces, the account stands: up to its last @."""
    start, end = value.find("://") + 3, value.rfind("@")
    return (start, end) if 3 <= start <= end else None


def secret_spans(value: str) -> list[tuple[int, int]]:
    """Where in one value of the command line passwords stand; `${env:NAME}` is none."""
    whole = account_in(value)
    accounts = [*([whole] if whole else ()), *(m.span(2) for shape in _ACCOUNTS for m in shape.finditer(value))]
    others = [m.span(2) for shape in (*_SECRETS, _QUERY_IN_VALUE) for m in shape.finditer(value)]
    found = [span for span in accounts if _left(value[slice(*span)].partition(":")[2])]
    return found + [span for span in others if _left(value[slice(*span)])]


def _left(secret: str) -> str:
    return re.sub(r"\$\{env:\w+\}", "", secret)


def secrets_in(text: str) -> Iterator[str]:
    """Passwords and the like that stand in `text` as URLs have them.

    A user's name alone is no secret: "user" and "admin" would be gone from every sentence.
    """
    for shape in _ACCOUNTS:
        for found in shape.finditer(text):
            yield from secrets_of_account(found[2])
            if shape is _WITHOUT_SCHEME:  # the name before the first colon may have been a scheme
                yield from secrets_of_account(found[2].partition(":")[2])
    yield from (found[2].split()[-1].strip("\"'") for found in _HEADER.finditer(text) if found[2].strip())
    for shape in _SECRETS:
        for found in shape.finditer(text):
            yield found[2].strip("\"'") if shape is _PROPERTY else found[2]


def secrets_in_value(value: str) -> Iterator[str]:
    """The same for one value of a setting: all of it is one URL, if it is one."""
    if whole := account_in(value):
        yield from secrets_of_account(value[slice(*whole)])
    yield from (found[2] for found in _QUERY_IN_VALUE.finditer(value))
    yield from secrets_in(value)
    yield from _after_keys(value)


def secrets_of_account(account: str) -> Iterator[str]:
    """Of `user:password`: the password, both together, and how HTTP's basic authentication writes them."""
    user, colon, password = account.partition(":")
    if not colon or len(password) < MIN_LENGTH:
        return
    yield from (password, account)
    for spelled in {account, f"{unquote(user)}:{unquote(password)}"}:
        yield base64.b64encode(spelled.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def is_secret_key(key: str) -> bool:
    """Whether the value of a setting called so is to be kept to ourselves."""
    return bool(_KEY.search(key)) and not _NAMES_A_FILE.search(key)


def is_secret(key: str, value: str) -> bool:
    """Whether `value` is the secret of such a setting: `secret_key` names a file, unless it is the key itself, and so
    may `token` and `key`, where what stands there looks like one.
    """
    if "${env:" in value or value.lower() in _EMPTY or (key.lower() in _MAY_NAME_A_FILE and _A_FILE.match(value)):
        return False
    return is_secret_key(key) and (not key.lower().endswith("key") or bool(_KEY_MATERIAL.match(value)) or _is_api(key))


def names_a_file(value: str) -> bool:
    """Whether a value whose key looks like a secret's may be the name of a file: `/etc/web.tokens`, not a word or one
    of our tokens.
    """
    return bool(re.search(r"[./]", value)) and not re.search(r"\s|://", value) and not _OWN.search(value)


def secrets_in_lines(text: str) -> Iterator[str]:
    """What stands after such keys, and in URLs, in a text that may be YAML, JSON or neither."""
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            yield from secrets_in(line)
            yield from _after_keys(line)


def _after_keys(text: str) -> Iterator[str]:
    """`password: PW`, and what a slip makes of it: `password PW`, `password:PW`, `password: !PW`."""
    for found in _AFTER.finditer(text):
        value = found[2]
        for spelled in (value, value.lstrip("!*&|>\"'"), value.strip("\"'")):
            if is_secret(found[1], spelled):
                yield spelled


_EMPTY = frozenset({"null", "none", "true", "false"})


def _is_api(key: str) -> bool:
    return bool(re.search(r"(?i)api_?key$|^key$", key))
