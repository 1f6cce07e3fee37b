"""Settings in the wrong section."""

from pathlib import Path

import pytest

from kkdcpd.config import Config, HttpConfig, read_config, settings_of
from kkdcpd.config.kinds import ListOf
from kkdcpd.config.named_tables import NamedTables
from kkdcpd.config.reader import Table, UnknownSetting, closest
from kkdcpd.errors import ConfigError

REALM = '[realms."EXAMPLE.COM"]\nkdc = ["kdc.example.com"]\n'


def problem_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(text, source=Path("/etc/kkdcpd/config.toml"))
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            f'format = "json"\n{REALM}',
            "format: there is no such setting here: format belongs to [log]; move it there",
        ),
        (
            f'{REALM}[log.levels]\nformat = "json"',
            "log.levels.format: there is no such setting here: format belongs to [log]; move it there",
        ),
        (
            f"{REALM}workers = 2",
            (
                'realms."EXAMPLE.COM".workers: there is no such setting here: '
                "workers belongs to [process]; move it there"
            ),
        ),
        (
            f'{REALM}[guard]\nmode = "off"',
            (
                "guard.mode: there is no such setting here: "
                "mode belongs to [guard.rates] or [guard.failures]; move it there"
            ),
        ),
        (
            f"{REALM}[http]\nproxy_protocol = true",
            (
                "http.proxy_protocol: there is no such setting here: "
                "proxy_protocol belongs to [[listen]]; move it there"
            ),
        ),
        (
            f'{REALM}[upstream]\nkpasswd = ["kdc"]',
            (
                "upstream.kpasswd: there is no such setting here: "
                'kpasswd belongs to [realms."NAME"]; move it there'
            ),
        ),
        (
            f"{REALM}[[listen]]\nclient_certificate = 'required'",
            (
                "listen[0].client_certificate: there is no such setting here: "
                'client_certificate belongs to [realms."NAME".policy] or [policy]; '
                "move it there, or did you mean client_certificates?"
            ),
        ),
        (
            f'{REALM}[process]\nfromat = "json"',
            "process.fromat: there is no such setting; did you mean format, which belongs to [log]?",
        ),
        (f'{REALM}[log]\nfromat = "json"', "log.fromat: there is no such setting; did you mean format?"),
        (
            f"{REALM}[levels]",
            "levels: there is no such setting here: levels belongs to [log]; move it there",
        ),
        (
            f"{REALM}[http]\nxyzzy = 1",
            (
                "http.xyzzy: there is no such setting; remove it, or use one of "
                f"{', '.join(settings_of(HttpConfig))}"
            ),
        ),
    ],
)
def test_problem_of_an_unknown_setting_names_its_section(text: str, problem: str) -> None:
    assert problem_of(text) == problem


def _sections(kind: object, name: str) -> list[tuple[str, set[str]]]:
    """Return the header and the settings of each section."""
    match kind:
        case ListOf(item=Table() as table):
            return [(f"[[{name}]]", set(settings_of(table.form)))]
        case NamedTables(form=form):
            return [(f'[{name}."X"]', set(settings_of(form)))]
        case Table(form=form):
            inner = [(f"{name}.{key}", declared.kind) for key, declared in settings_of(form).items()]
            below = [found for path, each in inner for found in _sections(each, path)]
            return [(f"[{name}]", set(settings_of(form))), *below]
    return []


SECTIONS = [
    found for name, declared in settings_of(Config).items() for found in _sections(declared.kind, name)
]


def test_every_setting_is_known_from_every_other_section() -> None:
    everything = {name for _header, names in SECTIONS for name in names}
    assert len(SECTIONS) >= 15
    for header, names in SECTIONS:
        for name in sorted(everything - names):
            with pytest.raises(ConfigError) as caught:
                read_config(f"{header}\n{name} = 1\n", source=Path("/etc/kkdcpd/config.toml"))
            (unknown,) = [each for each in caught.value.problems if isinstance(each, UnknownSetting)]
            assert f"{name} belongs to [" in unknown.problem


def test_closest_name_is_similar() -> None:
    assert closest("fromat", ["level", "format"]) == "format"
    assert closest("xyzzy", ["level", "format"]) is None
