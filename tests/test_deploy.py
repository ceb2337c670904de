"""The units, the container file and their page name only commands, flags and exit codes that exist."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
import yaml
from typer.testing import CliRunner

import fl_client.cli
import fl_server.cli
from common.device_api.refusals import DeviceRevoked
from common.errors import EmoflError
from fl_server.server_lock import only_server

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
QUIET = {"ORT_DISABLE_TELEMETRY": "1", "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}

COMMAND = re.compile(r"(?<![\w/-])((?:/opt/emofl/bin/)?fl-(?:server|client) [^#&|]*)")

PROGRAMS: dict[str, click.Command] = {
    "fl-server": typer.main.get_command(fl_server.cli.app),
    "fl-client": typer.main.get_command(fl_client.cli.app),
}


def settings(unit: Path) -> dict[str, list[str]]:
    """Each setting of a unit with its values in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def check_command(words: list[str]) -> None:
    """Fails on a program, command or option that does not exist; what stands for options of the reader's is let pass."""
    program, *rest = words
    command = PROGRAMS[Path(program).name]
    waiting = list(rest)
    while waiting:
        word = waiting.pop(0)
        options = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
        if word.startswith("-") and word != "-":
            assert word in options, f"{word} is no option of `{command.name}`"
            option = options[word]
            assert isinstance(option, click.Option)
            if not option.is_flag:
                assert waiting, f"{word} has no value"
                waiting.pop(0)
        elif isinstance(command, click.Group):
            assert word in command.commands, f"{word} is no command"
            command = command.commands[word]
        else:
            assert word.startswith("$") or any(isinstance(one, click.Argument) for one in command.params), f"{word} is too much"


def instructions() -> Iterator[tuple[str, str]]:
    """Of the container file, with continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", (DEPLOY / "Containerfile").read_text()).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, value = line.partition(" ")
        yield name, value.strip()


def stage(name: str) -> list[tuple[str, str]]:
    """What one stage of the container file adds."""
    found, inside = [], False
    for instruction in instructions():
        if instruction[0] == "FROM":
            inside = instruction[1].endswith(f" AS {name}")
        if inside:
            found.append(instruction)
    assert found
    return found


def all_exit_codes(kind: type[EmoflError] = EmoflError) -> set[int]:
    return {kind.exit_code}.union(*(all_exit_codes(one) for one in kind.__subclasses__()))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_exists(unit: Path) -> None:
    (line,) = settings(unit)["ExecStart"]
    words = [word for word in shlex.split(line) if not word.startswith("$")]
    assert words[0].startswith("/opt/emofl/bin/")
    check_command(words)


def test_the_check_itself_finds_what_does_not_exist() -> None:
    wrong = [
        "fl-server begin",
        "fl-server start --directory x",
        "fl-server status extra",
        "fl-client --dta x",
        "fl-server start --dir",
    ]
    for line in wrong:
        with pytest.raises(AssertionError):
            check_command(shlex.split(line))
    with pytest.raises(KeyError):
        check_command(["fl-serve", "start"])
    check_command(shlex.split("fl-server revoke anna --dir x"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_started_again_unless_that_is_useless(unit: Path) -> None:
    known = settings(unit)
    assert known["Restart"] == ["on-failure"]
    codes = {int(code) for code in known["RestartPreventExitStatus"][0].split()}
    assert DeviceRevoked.exit_code in codes
    assert codes <= all_exit_codes()
    assert not codes & {0, EmoflError.exit_code, 8}
    assert known["StartLimitBurst"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_can_do_little_and_phones_nobody(unit: Path) -> None:
    known = settings(unit)
    environment = dict(word.split("=", 1) for line in known["Environment"] for word in line.split())
    assert environment.items() >= QUIET.items()
    assert environment["XDG_STATE_HOME"]
    for name, value in {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "PrivateTmp": "yes",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "RestrictSUIDSGID": "yes",
        "LimitCORE": "0",
        "UMask": "0077",
    }.items():
        assert known[name] == [value]
    assert known["MemoryMax"]
    assert known["TasksMax"]


def test_a_devices_unit_lets_it_keep_the_kernels_that_it_compiles() -> None:
    known = settings(DEPLOY / "systemd" / "emofl-client@.service")
    environment = dict(word.split("=", 1) for line in known["Environment"] for word in line.split())
    writable = known["ReadWritePaths"][0].split()
    assert any(environment["XDG_CACHE_HOME"].startswith(f"{folder}/") for folder in writable)


def test_the_servers_unit_passes_no_settings_of_a_run() -> None:
    """With settings, a start after the last round begins another run: a reboot would spend the devices' budgets."""
    (line,) = settings(DEPLOY / "systemd" / "emofl-server.service")["ExecStart"]
    assert shlex.split(line)[1:] == ["start", "--dir", "%S/emofl/server", "$EMOFL_SERVER_OPTIONS"]


def test_a_unit_gives_the_server_more_time_to_end_than_fl_server_stop_does() -> None:
    from fl_server.status_commands import STOP_SECONDS

    (seconds,) = settings(DEPLOY / "systemd" / "emofl-server.service")["TimeoutStopSec"]
    assert int(seconds) > STOP_SECONDS


@pytest.mark.parametrize(("name", "program"), [("server", "fl-server"), ("client", "fl-client")])
def test_an_image_starts_a_command_that_exists(name: str, program: str) -> None:
    known = dict(stage(name))
    entry, command = json.loads(known["ENTRYPOINT"]), json.loads(known["CMD"])
    assert entry == [program]
    check_command([*entry, *command])


def test_images_run_as_nobody_in_particular_and_phone_nobody() -> None:
    base = stage("base")
    user = dict(base)["USER"]
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)
    assert [value.split()[0] for name, value in instructions() if name == "USER"] == [user]
    environment = dict(word.split("=", 1) for name, value in base if name == "ENV" for word in value.split())
    assert environment.items() >= QUIET.items()
    assert environment["XDG_STATE_HOME"].startswith(dict(base)["VOLUME"] + "/")
    for name in ("server", "client"):
        assert stage(name)[0] == ("FROM", f"base AS {name}")


def test_the_health_check_tells_a_running_server_from_none(tmp_path: Path) -> None:
    check = json.loads(dict(stage("server"))["HEALTHCHECK"].partition("CMD")[2])
    assert check[:2] == ["sh", "-c"]
    asked, pattern = check[2].split(" | grep --quiet ")
    check_command(shlex.split(asked))
    words = shlex.split(asked)[1:]
    words[words.index("--dir") + 1] = str(tmp_path)
    (wanted,) = shlex.split(pattern)
    assert wanted not in CliRunner().invoke(fl_server.cli.app, words).output
    with only_server(tmp_path):
        assert wanted in CliRunner().invoke(fl_server.cli.app, words).output


def test_the_image_has_the_torch_that_the_project_asks_for() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (line,) = [value for name, value in instructions() if name == "RUN" and "TORCH_INDEX" in value]
    assert set(shlex.split(line)) >= {one for one in wanted if one.startswith("torch>")}


def test_the_image_is_built_of_every_package_and_nothing_else() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    wanted = {name.rstrip("*") for name in packages} | {"pyproject.toml", "README.md"}
    copied = {word for name, value in stage("build") if name == "COPY" for word in value.split()[:-1]}
    assert copied == wanted
    allowed = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    assert allowed[0] == "*"
    assert {line[1:] for line in allowed if line.startswith("!")} == wanted


def test_an_installation_has_the_files_of_the_pages() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["fl_server.web"]
    folder = ROOT / "fl_server" / "web"
    taken = {path for pattern in patterns for path in folder.glob(pattern)}
    assert {path for path in folder.iterdir() if path.is_file() and path.suffix != ".py"} <= taken


@pytest.mark.parametrize(("name", "program"), [("server", "fl-server"), ("client", "fl-client")])
def test_compose_starts_commands_that_exist_with_little_power(name: str, program: str) -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][name]
    check_command([program, *service["command"]])
    assert service["build"]["target"] == name
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert "privileged" not in service
    assert any(volume.endswith(":/data") for volume in service["volumes"])
    assert all(volume.endswith(":ro") for volume in service["volumes"] if "/faces" in volume)


def test_every_command_on_the_page_exists() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
    found = [words for line in lines for words in COMMAND.findall(line)]
    assert len(found) >= 5
    for line in found:
        check_command(shlex.split(line))
    client = [shlex.split(line.split(" client ", 1)[1]) for line in lines if "compose" in line and " client --" in line]
    assert client
    for words in client:
        check_command(["fl-client", *words])
