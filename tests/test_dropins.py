"""Drop-ins: sources in files beside the configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeinfer import cli
from edgeinfer.config.settings import load_config, source_names
from edgeinfer.errors import ConfigError, EdgeinferError, InputError
from edgeinfer.guard.limits import MAX_DROPIN_BYTES, MAX_DROPINS


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("site.yaml").write_text("sources:\n  yard: 'demo:'\n")
    Path("site.yaml.d").mkdir()
    return Path("site.yaml")


def drop(name: str, text: str) -> None:
    (Path("site.yaml.d") / name).write_text(text)


def refused(site: Path) -> EdgeinferError:
    with pytest.raises(EdgeinferError) as caught:
        load_config(site)
    return caught.value


def test_sources_of_dropins_are_read_by_name(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drop("b.yaml", "sources: {gate: {uri: 'demo:', max_fps: 3}}\n")
    drop("a.yaml", "sources: {roof: 'demo:', door: '0'}\n")
    for name, text in (("empty.yaml", ""), ("none.yaml", "sources:\n"), ("c.yml", "["), (".d.yaml", "["), ("e", "[")):
        drop(name, text)
    assert list(load_config(site).sources) == ["yard", "roof", "door", "gate"]
    assert load_config(site, [("sources.gate.max_fps", 4)]).sources["gate"].max_fps == 4
    assert source_names(site) == {"yard", "roof", "door", "gate"}
    assert cli.run(["check", "site.yaml"]) == 0
    assert capsys.readouterr().out.endswith("sources yard, roof, door, gate\n")


def test_a_configuration_whose_sources_are_all_in_dropins(site: Path) -> None:
    drop("a.yaml", "sources: {roof: 'demo:'}\n")
    for text in ("", "sources:\n", "frames: 3\n"):
        site.write_text(text)
        assert list(load_config(site).sources) == ["roof"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sources: {roof: 'demo:'}\nframes: 3\n", "2:1: frames: not in a drop-in"),
        ("- 1\n", "1:1: a drop-in holds sources and nothing else"),
        ("sources: [1]\n", "1:10: sources: a list is not allowed"),
        ("sources: {\n", "2:1: not valid YAML"),
        ("sources:\n  roof: {uri: 'demo:', max_fps: 0}\n", "2:33: sources.roof.max_fps: 0 is not allowed"),
        ("sources: {a b: 'demo:'}\n", "1:11: sources.a b: "),
        ("sources:\n  yard: 'demo:'\n", "2:3: sources.yard: there is a source of that name already, at site.yaml:2:3"),
    ],
)
def test_a_mistake_in_a_dropin_has_its_place(site: Path, text: str, says: str) -> None:
    drop("a.yaml", text)
    assert refused(site).message.startswith(f"site.yaml.d/a.yaml:{says}")


def test_a_name_that_two_dropins_have(site: Path) -> None:
    drop("a.yaml", "sources: {roof: 'demo:'}\n")
    drop("b.yaml", "\nsources: {roof: 'demo:'}\n")
    says = "site.yaml.d/b.yaml:2:11: sources.roof: there is a source of that name already, at site.yaml.d/a.yaml:1:11"
    assert refused(site).message == says


def test_the_file_is_looked_at_first(site: Path) -> None:
    drop("a.yaml", "sources: {roof: 'demo:'}\n")
    site.write_text("sources: [1]\n")
    assert refused(site).message.startswith("site.yaml:1:10: sources: a list")
    site.write_text("- 1\n")
    assert refused(site).message.startswith("site.yaml:1:1: config: a list")


def test_too_many_dropins(site: Path) -> None:
    for number in range(MAX_DROPINS):
        drop(f"{number:03}.yaml", f"sources: {{s{number}: 'demo:'}}\n")
    assert len(load_config(site).sources) == MAX_DROPINS + 1
    drop("last.yaml", "")
    assert refused(site).message == f"site.yaml.d: more than {MAX_DROPINS} files"


def test_dropins_that_are_too_large(site: Path) -> None:
    half = "#" * (MAX_DROPIN_BYTES // 2)
    drop("a.yaml", half)
    drop("b.yaml", half)
    load_config(site)
    drop("c.yaml", "#")
    error = refused(site)
    assert isinstance(error, ConfigError)
    assert error.message == "site.yaml.d: more than 256 KiB in all"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (os.mkfifo, "not a regular file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
        (lambda path: path.write_bytes(b"\xff"), "not a text file in UTF-8"),
    ],
    ids=["pipe", "folder", "dangling", "binary"],
)
def test_what_is_no_dropin_is_refused_at_once(site: Path, make: object, says: str) -> None:
    assert callable(make)
    make(Path("site.yaml.d/a.yaml"))
    assert refused(site).message.startswith("site.yaml.d/a.yaml: ")
    assert says in refused(site).message


def test_a_link_to_a_file_is_followed_as_the_configurations_own_is(site: Path) -> None:
    Path("other").write_text("sources: {roof: 'demo:'}\n")
    Path("site.yaml.d/a.yaml").symlink_to("../other")
    assert "roof" in load_config(site).sources


def test_a_folder_that_can_not_be_read(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(InputError, match=r"site\.yaml\.d: Permission denied"):
        load_config(site)


def test_something_else_called_like_the_folder(site: Path) -> None:
    Path("site.yaml.d").rmdir()
    Path("site.yaml.d").write_text("x")
    assert list(load_config(site).sources) == ["yard"]


def test_passwords_in_dropins_are_known(site: Path) -> None:
    drop("a.yaml", "sources: {roof: {uri: 'rtsp://u:sesame-42@10.0.0.1/x', max_fps: 0}}\n")
    refused(site)
    assert "sesame-42" not in str(ConfigError("it said sesame-42"))
