from datetime import UTC, datetime
from pathlib import Path

import pytest

from kkdcpd.config import load_config
from kkdcpd.errors import ConfigError
from lab.authority import Authority
from tests.config.broken import PLAIN, REALM

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def _write(directory: Path, https: str) -> Path:
    path = directory / "config.toml"
    path.write_text(f"{PLAIN}{REALM}[upstream.https]\n{https}")
    return path


@pytest.mark.parametrize("setting", ["ca_file", "certificate"])
def test_unusable_file_is_found_when_the_configuration_is_read(setting: str, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    pair = '\nkey = "empty.pem"' if setting == "certificate" else ""
    path = _write(tmp_path, f'{setting} = "empty.pem"{pair}')
    with pytest.raises(ConfigError, match=rf"upstream\.https\.{setting}: .*empty\.pem"):
        load_config(path, now=NOW)


def test_usable_files_are_accepted(tmp_path: Path, authority: Authority) -> None:
    client = authority.issue_client("CN=agent")
    path = _write(
        tmp_path,
        f'ca_file = "{authority.certificate}"\ncertificate = "{client.certificate}"\nkey = "{client.key}"',
    )
    assert load_config(path, now=NOW).config.upstream.https.certificate == client.certificate
