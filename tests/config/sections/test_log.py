from datetime import UTC, datetime
from pathlib import Path

import pytest

from kkdcpd.config import LogConfig, load_config, read_config
from kkdcpd.errors import ConfigError
from tests.config.broken import REALM, problems_of

LOCAL = '[[listen]]\naddress = "127.0.0.1:8080"\ntls = false\n'


def test_areas_have_the_common_level_unless_they_have_their_own() -> None:
    text = '[log]\nlevel = "warning"\n[log.levels]\nexchange = "info"\n' + REALM
    log = read_config(text, source=Path("config.toml")).log
    assert (log.level, log.levels.exchange, log.levels.guard) == ("warning", "info", "default")


def test_key_is_beside_the_configuration_and_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "names.key").write_text("0123456789abcdef\n")
    (tmp_path / "names.key").chmod(0o600)
    path = tmp_path / "config.toml"
    path.write_text(LOCAL + '[log]\nprincipals = "hashed"\nprincipals_key_file = "names.key"\n' + REALM)
    log = load_config(path, now=datetime.now(UTC)).config.log
    assert (log.principals, log.principals_key) == ("hashed", b"0123456789abcdef")
    assert "0123" not in repr(log)


def test_key_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(LOCAL + '[log]\nprincipals_key_file = "names.key"\n' + REALM)
    with pytest.raises(ConfigError) as refused:
        load_config(path, now=datetime.now(UTC))
    assert [problem.key for problem in refused.value.problems] == ["log.principals_key_file"]


def test_names_are_plain_by_default() -> None:
    assert LogConfig().principals == "plain"


BROKEN = {
    "a setting from somewhere else": (
        REALM + "[log]\nsyslog = true",
        (
            "log.syslog: there is no such setting; remove it, or use one of format, level, principals,"
            " principals_key_file, levels"
        ),
    ),
    "an unknown word": (
        REALM + '[log]\nlevel = "verbose"',
        'log.level: "verbose" is not one of its values; write "debug", "info", "warning" or "error"',
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines
