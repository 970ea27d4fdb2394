"""`edgeinfer service` on a folder that stands for a machine, and the unit files themselves."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.commands import service
from edgeinfer.errors import ConfigError, EdgeinferError, UnavailableError, UsageError
from edgeinfer.systemd import devices, units
from edgeinfer.systemd import install as installer
from edgeinfer.systemd.install import Host, Wish
from edgeinfer.systemd.steps import Call, Write, perform
from edgeinfer.systemd.units import Instance
from edgeinfer.watchdog.crash import Crash, CrashLog

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "systemd"
UNIT_FILES = sorted(path.name for path in FOLDER.glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


# The files


def settings(name: str) -> list[tuple[str, str]]:
    lines = (FOLDER / name).read_text().splitlines()
    return [(key, value) for key, _, value in (line.partition("=") for line in lines if line[:1] not in "#[ ")]


@needs_analyze
@pytest.mark.parametrize("name", UNIT_FILES)
def test_the_units_are_hardened(name: str, tmp_path: Path) -> None:
    """25: an exposure of 2.5 of 10."""
    argv = [str(ANALYZE), "security", "--offline=true", "--threshold=25", "--no-pager", str(FOLDER / name)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "offline" in done.stderr:
        pytest.skip("systemd-analyze is too old to judge a file")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@needs_analyze
@pytest.mark.parametrize("name", UNIT_FILES)
def test_systemd_understands_every_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name.replace("@", "@x")
    path.write_text(units.with_program((FOLDER / name).read_text(), "/bin/true"))
    done = subprocess.run([str(ANALYZE), "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if path.name in line], done.stderr


NEWER_THAN_249 = re.compile(
    r"RestartSteps|RestartMaxDelaySec|RestartMode|RootEphemeral|MemoryPressure\w+|ExtensionDirectories|OpenFile|"
    r"ImportCredential|DelegateSubgroup|MemoryKSM|PrivatePIDs|PrivateBPF|BPFDelegate\w+|SetLoginEnvironment|"
    r"LogFilterPatterns|RestrictFileSystems|SurviveFinalKillSignal"
)
"""Directives that systemd 249 (JetPack 6) does not know, by systemd's NEWS."""


@pytest.mark.parametrize("name", UNIT_FILES)
def test_the_units_keep_to_what_old_and_new_systemd_know_and_gpu_and_cameras_need(name: str) -> None:
    found = dict(settings(name))
    assert not [key for key in found if NEWER_THAN_249.fullmatch(key)]
    assert found["Type"] == "notify"
    assert found["RestartPreventExitStatus"] == "64 78"
    assert found["StartLimitIntervalSec"] == "0"
    for breaks in (
        "PrivateTmp",
        "PrivateDevices",
        "DynamicUser",
        "ProtectClock",
        "MemoryDenyWriteExecute",
        "PrivateUsers",
    ):
        assert breaks not in found, f"{breaks} hides a camera or the GPU, or stops CUDA"
    assert "SupplementaryGroups" not in found, "a group that is missing would stop the unit"


def test_the_template_differs_by_its_instance_alone() -> None:
    plain, template = (dict(settings(name)) for name in UNIT_FILES)
    differing = {key for key in plain if plain[key] != template[key]}
    assert plain.keys() == template.keys()
    assert all("%i" in template[key] for key in differing)
    assert differing == {
        "Description",
        "ExecStart",
        "StateDirectory",
        "RuntimeDirectory",
        "WorkingDirectory",
        "Environment",
    }


@pytest.mark.slow
def test_the_wheel_brings_every_module_and_the_units(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "edgeinfer").rglob("*.py")} <= names
    assert {f"edgeinfer/systemd/units/{path.name}" for path in FOLDER.iterdir()} <= names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgeinfer").rglob("*.py")} <= names


# Installing


@pytest.fixture
def machine(tmp_path: Path) -> Host:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("edgeinfer:x:990:990::/:/bin/false\n")
    return Host(root, 252, running=False)


def wish(config: bytes | None = b"x", instance: str | None = None, strict: bool = False) -> Wish:
    return Wish(Instance.named(instance), "/opt/edgeinfer/bin/python", [Path("/usr/bin")], config, strict)


def files(machine: Host) -> dict[str, str]:
    found = [path for path in machine.root.rglob("*") if path.is_file() and path.name != "passwd"]
    return {str(path.relative_to(machine.root)): path.read_text() for path in found}


def do(machine: Host, wanted: Wish, dry_run: bool = False) -> tuple[int, list[str]]:
    said: list[str] = []
    steps = [step for step in installer.installation(machine, wanted) if not isinstance(step, Call)]
    return perform(steps, said.append, dry_run), said


def test_an_installation_says_what_it_does_and_twice_is_once(machine: Host) -> None:
    changed, said = do(machine, wish(), dry_run=True)
    assert changed == 5
    assert all(line.startswith("would write ") for line in said)
    assert files(machine) == {}
    changed, said = do(machine, wish())
    assert changed == 5
    assert set(files(machine)) == {
        "etc/sysusers.d/edgeinfer.conf",
        "etc/tmpfiles.d/edgeinfer.conf",
        "etc/systemd/system/edgeinfer.service",
        "etc/systemd/system/edgeinfer@.service",
        "etc/edgeinfer/edgeinfer.yaml",
    }
    unit = files(machine)["etc/systemd/system/edgeinfer.service"]
    start = "ExecStart=/opt/edgeinfer/bin/python -m edgeinfer run --config /etc/edgeinfer/edgeinfer.yaml"
    assert start in unit.splitlines()
    assert stat.S_IMODE((machine.root / "etc/edgeinfer/edgeinfer.yaml").stat().st_mode) == 0o640
    changed, said = do(machine, wish())
    assert changed == 0
    assert all(line.startswith("unchanged: ") for line in said)


def test_drop_ins_are_installed_beside_the_configuration_whatever_the_umask(machine: Host, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("sources: {a: 'demo:'}\n")
    (tmp_path / "site.yaml.d").mkdir()
    (tmp_path / "site.yaml.d" / "gate.yaml").write_text("sources: {gate: 'demo:'}\n")
    (tmp_path / "site.yaml.d" / "note.txt").write_text("x")
    wanted = replace(wish(service.checked_config(path)), dropins=dict(service.dropin_bytes(path)))
    umask = os.umask(0o077)
    try:
        do(machine, wanted)
    finally:
        os.umask(umask)
    folder = machine.root / "etc/edgeinfer/edgeinfer.yaml.d"
    assert [found.name for found in folder.iterdir()] == ["gate.yaml"]
    assert (folder / "gate.yaml").read_text() == "sources: {gate: 'demo:'}\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert stat.S_IMODE((folder / "gate.yaml").stat().st_mode) == 0o640
    assert do(machine, wanted)[0] == 0


def test_what_was_changed_by_hand_is_put_right_and_said(machine: Host) -> None:
    do(machine, wish())
    unit = machine.root / "etc/systemd/system/edgeinfer.service"
    unit.write_text("[Service]\n")
    (machine.root / "etc/edgeinfer/edgeinfer.yaml").chmod(0o666)
    changed, said = do(machine, wish())
    assert changed == 2
    assert f"write {unit}" in said


@pytest.mark.parametrize(("version", "found"), [(249, False), (253, False), (254, True), (255, True)])
def test_backoff_only_where_systemd_knows_it(machine: Host, version: int, found: bool) -> None:
    do(Host(machine.root, version, running=False), wish())
    assert ("etc/systemd/system/edgeinfer.service.d/10-backoff.conf" in files(machine)) is found


def test_strict_devices_names_what_is_there(machine: Host) -> None:
    """Real devices only, which links to one stand for; not a plain file of such a name."""
    for name in ("video7", "nvidia7", "nvidia-uvm"):
        path = machine.root / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (machine.root / devices.LISTS).parent.mkdir(parents=True)
    with pytest.raises(EdgeinferError, match="no camera and no GPU"):
        installer.installation(machine, wish(strict=True))
    for name in ("video0", "nvidia0", "nvidiactl", "nvhost-ctrl", "dri/renderD128", "sda", "mem", "video0.txt", "odd"):
        path = machine.root / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to("/dev/null")
    lists = machine.root / devices.LISTS
    lists.mkdir(parents=True)
    (lists / "l4t.csv").write_text("# JetPack's\ndev, /dev/od*\ndev, /dev/none\nlib, /dev/mem\ndev, /dev/../dev/mem\n")
    do(machine, wish(strict=True))
    text = files(machine)["etc/systemd/system/edgeinfer.service.d/40-devices.conf"]
    allowed = re.findall(r"^DeviceAllow=(\S+) rw$", text, re.MULTILINE)
    assert allowed == [
        "/dev/dri/renderD128",
        "/dev/nvhost-ctrl",
        "/dev/nvidia0",
        "/dev/nvidiactl",
        "/dev/odd",
        "/dev/video0",
    ]
    assert "DevicePolicy=closed" in text
    do(machine, wish())
    assert not [name for name in files(machine) if "devices" in name], "without the option the drop-in goes"


@given(st.text(max_size=200))
def test_whatever_a_list_of_nvidias_holds_only_names_below_dev_come_of_it(text: str) -> None:
    for name in devices.listed(text):
        assert name.startswith("dev/")
        assert os.path.normpath(f"/{name}").startswith("/dev/") or set(name) <= set("dev/.")


@pytest.mark.slow
@given(st.lists(st.from_regex(r"[a-z0-9/-]{1,20}", fullmatch=True)))
def test_every_device_of_a_list_is_found(names: list[str]) -> None:
    text = "".join(f" dev ,  /dev/{name} \r\nsym, /dev/{name}x\n" for name in names)
    assert list(devices.listed(text)) == [f"dev/{name}" for name in names]


@pytest.mark.parametrize(
    ("groups", "lacking"),
    [
        ("video:x:44:edgeinfer\nrender:x:105:edgeinfer\n", []),
        ("video:x:44:other,edgeinfer\nrender:x:105:\n", ["render"]),
        ("video:x:44:edgeinfer2\nrender:x:990:\n", ["video"]),
        ("rubbish\n\nvideo:x:44:\n", ["video", "render"]),
    ],
)
def test_a_user_that_is_there_already_comes_into_the_groups_that_it_lacks(
    machine: Host, groups: str, lacking: list[str]
) -> None:
    (machine.root / "etc" / "group").write_text(groups)
    calls = [step for step in installer.installation(machine, wish()) if isinstance(step, Call) and step.needed()]
    asked = [step.argv[-2] for step in calls if step.argv[0] == "usermod"]
    assert asked == lacking
    assert any(step.argv[0] == "systemd-sysusers" for step in calls) is ("render" not in groups)
    assert all(step.argv[1:3] == ["--prefix", str(machine.root)] for step in calls if step.argv[0] == "usermod")
    (machine.root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    calls = [step for step in installer.installation(machine, wish()) if isinstance(step, Call) and step.needed()]
    assert [step.argv[0] for step in calls] == ["systemd-sysusers", "systemd-tmpfiles"], "that makes it with its groups"


def test_a_service_gets_no_more_groups_than_it_needs() -> None:
    lines = (FOLDER / "sysusers.conf").read_text().splitlines()
    assert {line.split()[2] for line in lines if line.startswith("m ")} == set(installer.GROUPS) == {"video", "render"}


def test_an_installation_restarts_what_runs_without_its_new_groups() -> None:
    call = Call(["true"], counts=True)
    assert perform([call, Call(["true"])], lambda _: None) == 1


def test_nvargus_daemon_is_only_started_again_where_that_is_wanted(machine: Host) -> None:
    wanted = Wish(Instance.named("front"), "/opt/edgeinfer/bin/python", [Path("/usr/bin")], b"x", restart_argus=True)
    do(machine, wanted)
    found = {name for name in files(machine) if "argus" in name}
    assert found == {"etc/systemd/system/edgeinfer-argus@.path", "etc/systemd/system/edgeinfer-argus@.service"}
    enabled = [step.argv[-1] for step in installer.activation(machine, wanted, 1) if isinstance(step, Call)]
    assert enabled == ["edgeinfer@front.service", "edgeinfer-argus@front.path"]
    wants = machine.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "edgeinfer-argus@front.path").symlink_to("/etc/systemd/system/edgeinfer-argus@.path")
    steps = installer.installation(machine, wish(instance="front"))
    off = [step.argv[-1] for step in steps if isinstance(step, Call) and "disable" in step.argv and step.needed()]
    assert off == ["edgeinfer-argus@front.path"], "without the option it is no more"
    assert "edgeinfer-argus@front.path" in installer.instances(machine)
    perform([s for s in installer.removal(machine, None, purge=True) if not isinstance(s, Call)], lambda _: None)
    assert not [name for name in files(machine) if "argus" in name]


@needs_analyze
def test_systemd_understands_the_units_that_start_nvargus_daemon_again(tmp_path: Path) -> None:
    for name, text in units.ARGUS.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name.replace("@", "@main")) for name in units.ARGUS]
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert not [line for line in done.stderr.splitlines() if "argus" in line], done.stderr


def test_an_instance_has_its_own_configuration(machine: Host) -> None:
    do(machine, wish(instance="front"))
    assert files(machine)["etc/edgeinfer/front.yaml"] == "x"
    unit = Instance.named("front")
    assert (unit.unit, unit.state) == ("edgeinfer@front.service", Path("/var/lib/edgeinfer/front"))


@pytest.mark.parametrize("name", ["", "a/b", "../x", "main", "-x", "a b", "ü", "x" * 65])
def test_names_that_are_no_instance(name: str) -> None:
    with pytest.raises(UsageError, match="--instance"):
        Instance.named(name)


@pytest.mark.parametrize("purge", [False, True])
def test_an_uninstallation_keeps_the_users_data_unless_told(machine: Host, purge: bool) -> None:
    do(machine, wish())
    crashes = CrashLog(machine.root / "var/lib/edgeinfer/main")
    crashes.write(Crash(code="x", text="y"))
    steps = [step for step in installer.removal(machine, None, purge) if not isinstance(step, Call)]
    said: list[str] = []
    perform(steps, said.append, dry_run=True)
    assert crashes.read() is not None
    perform(steps, said.append)
    left = {"etc/edgeinfer/edgeinfer.yaml", "var/lib/edgeinfer/main/last_crash.json"}
    assert set(files(machine)) == (set() if purge else left)
    assert perform(steps, said.append) == 0, "once more finds nothing to do"


def test_an_uninstallation_leaves_what_systemctl_edit_wrote(machine: Host) -> None:
    do(Host(machine.root, 255, running=False), wish())
    folder = machine.root / "etc/systemd/system/edgeinfer.service.d"
    (folder / "override.conf").write_text("[Service]\nNice=5\n")
    steps = [step for step in installer.removal(machine, None, purge=True) if not isinstance(step, Call)]
    perform(steps, lambda _: None)
    assert [path.name for path in folder.iterdir()] == ["override.conf"]
    (folder / "override.conf").unlink()
    perform(steps, lambda _: None)
    assert not folder.exists()


def test_one_instance_goes_and_the_others_stay(machine: Host) -> None:
    for name in ("front", "yard"):
        do(machine, wish(instance=name))
    steps = [s for s in installer.removal(machine, Instance.named("front"), purge=True) if not isinstance(s, Call)]
    perform(steps, lambda _: None)
    assert "etc/edgeinfer/yard.yaml" in files(machine)
    assert "etc/edgeinfer/front.yaml" not in files(machine)
    assert "etc/systemd/system/edgeinfer@.service" in files(machine)


def test_a_program_that_the_service_can_not_read_is_refused(tmp_path: Path) -> None:
    hidden = tmp_path / "home" / "venv"
    hidden.mkdir(parents=True)
    python = hidden / "python"
    python.touch()
    (tmp_path / "home").chmod(0o700)
    for place in (python, hidden, Path(pwd.getpwuid(0).pw_dir, "venv/bin/python")):
        with pytest.raises(ConfigError, match="user edgeinfer can't read it") as caught:
            installer.check_program([place])
        assert "python3 -m venv --system-site-packages /opt/edgeinfer" in caught.value.hint
        assert "pip install '.[cpu,rtsp]'" in caught.value.hint
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n")
    with pytest.raises(ConfigError, match=r"python3-libnvinfer .* '\.\[cpu,rtsp,jetpack6\]'"):
        installer.check_program([python], tmp_path)
    assert installer.check_program([Path("/usr/bin/env")]) is False


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/opt/edge infer/bin/python", 'ExecStart="/opt/edge infer/bin/python" -m edgeinfer '),
        ("/opt/100%/python", "ExecStart=/opt/100%%/python -m edgeinfer "),
        ("/opt/$x/python", "ExecStart=/opt/$$x/python -m edgeinfer "),
    ],
)
def test_odd_paths_reach_systemd_whole(path: str, line: str) -> None:
    assert line in units.with_program(units.shipped("edgeinfer.service"), path)


def test_a_failing_step_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(EdgeinferError, match=r"^false: exit code 1; journalctl"):
        perform([Call(["false"])], lambda _: None)
    with pytest.raises(EdgeinferError, match="no-such-program"):
        perform([Call(["no-such-program"])], lambda _: None)
    (tmp_path / "file").touch()
    with pytest.raises(EdgeinferError, match="run it as root"):
        perform([Write(tmp_path / "file" / "x", b"")], lambda _: None)


# The command


def test_without_systemd_it_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"no systemd on this machine.*run --supervise"):
        installer.detect(Path("/"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sauces: {}", "sauces: unknown key"),
        ("sources: {}", "no sources"),
        ("sources: {a: clip.mp4}", "sources.a.uri: clip.mp4: a service has no folder"),
        ("sources: {a: 'photos/*.jpg'}", "a service has no folder"),
        ("model: my.onnx\nsources: {a: 'demo:'}", "model.path: my.onnx"),
    ],
)
def test_a_configuration_that_could_not_run_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(EdgeinferError, match=re.escape(says)):
        service.checked_config(path)


@pytest.mark.parametrize("name", ["camera0.yaml", "demo.yaml", "two-cameras.yaml"])
def test_the_shipped_configurations_can_be_installed(name: str) -> None:
    assert yaml.safe_load(service.checked_config(ROOT / "configs" / name))


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="systemctl is not installed")
def test_install_status_and_uninstall_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "check_program", lambda *_: False)
    monkeypatch.setattr(service, "_machine", lambda root, dry_run: Host(root, 252, running=False))
    root = tmp_path / "image"
    for folder in ("etc", "usr/lib"):
        (root / folder).mkdir(parents=True)
    runner, at = CliRunner(), ["--root", str(root)]
    config = str(ROOT / "configs" / "demo.yaml")
    dry = runner.invoke(service.command, ["install", "--config", config, "--dry-run", *at], catch_exceptions=False)
    assert "would write" in dry.output
    assert not (root / "etc" / "systemd").exists()
    CrashLog(root / "var/lib/edgeinfer/main").write(Crash(code="stalled", text="stage x", stage="inference"))
    shown = runner.invoke(service.command, ["status", "--json", *at], catch_exceptions=False)
    status = json.loads(shown.output)
    assert status["installed"] is False
    assert status["last_crash"] == {"code": "stalled", "text": "stage x", "stage": "inference"}


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user who is not root")
def test_only_root_can_install() -> None:
    with pytest.raises(EdgeinferError, match="only root"):
        service._machine(Path("/"), dry_run=False)
