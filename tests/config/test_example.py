"""The committed config.toml.example is the generated one, and is valid however it is uncommented."""

import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import (
    Config,
    EndpointSpec,
    ProcessConfig,
    RealmConfig,
    load_config,
    read_config,
    settings_of,
)
from kkdcpd.config.example import example, setting_line
from kkdcpd.config.kinds import Kind, ListOf, Number
from kkdcpd.config.named_tables import NamedTables
from kkdcpd.config.reader import Table
from kkdcpd.endpoints import Transport
from kkdcpd.errors import ConfigError
from lab.authority import Authority

EXAMPLE = Path(__file__).parents[2] / "config.toml.example"
TEXT = EXAMPLE.read_text()

_COMMENTED = re.compile(r"^#(?=[a-z\[])", re.MULTILINE)
_KEY = re.compile(r"#?([a-z_]+) = ")
_SECTION = re.compile(r"\[+([^]]+)\]+$")
_BOTH = (Transport.TCP, Transport.UDP)
DEFAULTS = Config(
    realms=(
        RealmConfig(
            name="EXAMPLE.COM",
            kdc=tuple(
                EndpointSpec(host=f"kdc{number}.example.com", port=88, transports=_BOTH) for number in (1, 2)
            ),
            kpasswd=(EndpointSpec(host="kdc1.example.com", port=464, transports=_BOTH),),
            discovery="none",
        ),
    )
)


def _kinds(kind: Kind[Any], key: str) -> list[tuple[str, Kind[Any]]]:
    match kind:
        case Table() | NamedTables():
            settings = settings_of(kind.form).items()
            return [found for name, each in settings for found in _kinds(each.kind, name)]
        case ListOf(item=Table() as table):
            return _kinds(table, key)
    return [(key, kind)]


ALL_KINDS = _kinds(Table(form=Config), "")


def _paragraphs_of(key: str) -> list[str]:
    """Return the prose and the keys between two empty lines, as one line of text for each section."""
    found = [part for part in TEXT.split("\n\n") if re.search(rf"^#?{key} = ", part, re.MULTILINE)]
    return [re.sub(r"\n# *", " ", part) for part in found]


def test_committed_example_is_the_generated_one() -> None:
    assert example() == TEXT, "run make docs"


def test_line_of_a_setting_has_its_valid_values() -> None:
    process = settings_of(ProcessConfig)
    assert setting_line("workers", process["workers"]) == 'workers = "auto"  # "auto", or 1 to 32 processes'
    assert (
        setting_line("drain_timeout", process["drain_timeout"]) == "drain_timeout = 25  # 0 to 3600 seconds"
    )
    assert setting_line("kdc", settings_of(RealmConfig)["kdc"]) == (
        'kdc = ["kdc1.example.com", "kdc2.example.com"]'
    )


def test_command_stays_on_one_line() -> None:
    commands = re.findall("`([^`]*)`", re.sub(r"\n# ", " ", TEXT))
    assert "openssl rand -hex 16" in commands
    assert all(command in TEXT for command in commands)


def test_example_is_valid() -> None:
    assert read_config(TEXT, source=EXAMPLE) == DEFAULTS


def test_uncommenting_every_key_gives_the_defaults() -> None:
    assert len(_COMMENTED.findall(TEXT)) > 20
    assert read_config(_COMMENTED.sub("", TEXT), source=EXAMPLE) == DEFAULTS


@pytest.mark.parametrize("key", sorted({key for key, _kind in ALL_KINDS}))
def test_every_key_is_in_the_example(key: str) -> None:
    assert re.search(rf"^#?{key} = |^# .*[{{ ]{key} = ", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("key", "kind"), [entry for entry in ALL_KINDS if isinstance(entry[1], Number)])
def test_every_number_has_unit_and_bounds(key: str, kind: Any) -> None:
    assert any(f"{kind.bounds}" in part for part in _paragraphs_of(key))


def test_required_changes_are_at_the_beginning() -> None:
    beginning = "\n".join(TEXT.splitlines()[:55])
    assert read_config(beginning, source=EXAMPLE) == DEFAULTS


def _commented_keys() -> Iterator[tuple[int, str, str]]:
    """Yield the number, the section and the key of each commented line."""
    section = ""
    for number, line in enumerate(TEXT.splitlines()):
        if header := _SECTION.match(line):
            section = header[1]
        elif line.startswith("#") and (key := _KEY.match(line)):
            yield number, section, key[1]


def _uncommented(*numbers: int) -> str:
    lines = TEXT.splitlines()
    return "\n".join(line[1:] if number in numbers else line for number, line in enumerate(lines))


def _flat(value: Any, path: str = "") -> dict[str, object]:
    """Return the settings of a document by section and name."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0]
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {key: found for name in value for key, found in _flat(value[name], f"{path}.{name}").items()}


COMMENTED_KEYS = list(_commented_keys())


@pytest.mark.parametrize(
    ("number", "section", "key"),
    COMMENTED_KEYS,
    ids=[f"{section}.{key}" for _, section, key in COMMENTED_KEYS],
)
def test_uncommenting_a_single_key_sets_it_in_its_section(number: int, section: str, key: str) -> None:
    text = _uncommented(number)
    assert read_config(text, source=EXAMPLE) == DEFAULTS
    path = f".{section.replace(chr(34), '')}.{key}"
    before, after = _flat(tomllib.loads(TEXT)), _flat(tomllib.loads(text))
    assert path not in before
    empty_section = {path.rpartition(".")[0]}
    assert {name for name in after if name not in before} == {path}
    assert {name for name in before if name not in after} <= empty_section


@pytest.mark.parametrize("key", sorted({key for _, _, key in COMMENTED_KEYS}))
def test_uncommenting_all_lines_of_a_name_is_valid(key: str) -> None:
    numbers = [number for number, _, other in COMMENTED_KEYS if other == key]
    assert read_config(_uncommented(*numbers), source=EXAMPLE) == DEFAULTS


def test_every_section_is_in_force() -> None:
    """TOML would give a key below a header that is a comment to the section above."""
    assert not re.search(r"^#\[", TEXT, re.MULTILINE)


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("client_ca", '"ca.pem"', 'client_certificates = "optional"'),
        ("client_crl", '"crl.pem"', 'client_certificates = "optional"'),
        ("additional", '[{ certificate = "other.pem", key = "other.key" }]', ""),
        ("tokens_file", '"tokens"', ""),
        ("principals_key_file", '"hash.key"', ""),
        ("krb5_conf", '"krb5.conf"', ""),
    ],
)
def test_files_are_read_where_the_example_has_their_setting(
    files: Path, key: str, value: str, needed: str
) -> None:
    text = TEXT.replace("/etc/kkdcpd/tls/certificate.pem", "server.pem", 1)
    text = text.replace("/etc/kkdcpd/tls/key.pem", "server.key", 1)
    if needed:
        text = text.replace('#client_certificates = "none"', needed)
    if key == "client_crl":
        text = text.replace('#client_ca = ""', 'client_ca = "ca.pem"')
    path = files / "config.toml"

    def write(value: str) -> None:
        path.write_text(re.sub(rf"^#{key} = .*$", f"{key} = {value}", text, count=1, flags=re.MULTILINE))

    write(value)
    load_config(path, now=datetime.now(UTC)).expect_within_dates(datetime.now(UTC))
    write(re.sub(r'"(?=\w+\.?\w*")', '"missing-', value))
    with pytest.raises(ConfigError, match="missing-"):
        load_config(path, now=datetime.now(UTC))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder with each file that the example may name."""
    folder = tmp_path_factory.mktemp("example")
    authority = Authority(folder)
    authority.issue("kdc.example.com")
    authority.issue("kdc.example.net", file_name="other")
    authority.revocation_list()
    (folder / "tokens").write_text("0123456789abcdef\n")
    (folder / "hash.key").write_text("0123456789abcdef\n")
    (folder / "krb5.conf").write_text("[realms]\n")
    for name in ("tokens", "hash.key"):
        (folder / name).chmod(0o600)
    return folder
