"""The texts of the settings, as the generated documents need them."""

import subprocess
import sys

import pytest

from kkdcpd.config import Config
from kkdcpd.config.documentation import Prose, Section, introduction, sections
from tests.config.test_schema import ALL_SETTINGS

SECTIONS = {section.header: section for section in sections()}


def test_sections_have_the_order_of_the_example() -> None:
    headers = list(SECTIONS)
    assert headers[:4] == ["[tls]", "[[tls.additional]]", '[realms."EXAMPLE.COM"]', "[[listen]]"]
    assert headers[-4:] == ["[guard]", "[guard.rates]", "[guard.failures]", "[policy]"]


def test_each_setting_is_described() -> None:
    described = {name for section in SECTIONS.values() for group in section.groups for name in group.settings}
    subsections = {"https", "levels", "rates", "failures"}
    assert described == {name for form, name, _ in ALL_SETTINGS if form is not Config} - subsections


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS.keys())
def test_each_text_begins_with_a_summary(section: Section) -> None:
    texts = [section.prose, *(group.prose for group in section.groups)]
    assert all(text.summary.endswith(".") and len(text.summary) < 250 for text in texts)


def test_settings_without_a_text_share_the_next_text() -> None:
    (group,) = (group for group in SECTIONS["[http]"].groups if "head_timeout" in group.settings)
    assert list(group.settings) == ["body_timeout", "head_timeout", "handshake_timeout"]


def test_text_below_another_text_is_a_note() -> None:
    assert [note.summary.split()[0] for note in SECTIONS['[realms."EXAMPLE.COM"]'].notes] == [
        "More",
        "Tokens:",
    ]


def test_table_in_a_value_is_inline() -> None:
    assert [header for header, section in SECTIONS.items() if section.is_inline] == ["[[tls.additional]]"]
    assert [header for header, section in SECTIONS.items() if section.is_subsection] == [
        "[[tls.additional]]",
        "[log.levels]",
        "[upstream.https]",
        "[guard.rates]",
        "[guard.failures]",
    ]


def test_paragraphs_join_unless_code_is_between_them() -> None:
    prose = Prose(paragraphs=("One.", "Two.", "    code", "Three."))
    assert prose.blocks == ("One. Two.", "    code", "Three.")
    assert introduction().summary.startswith("The configuration of kkdcpd.")


def test_service_does_not_load_the_texts() -> None:
    program = "import sys, kkdcpd.config, kkdcpd.worker; print('kkdcpd.config.documentation' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert output == "False\n"
