from dataclasses import replace

import pytest

from kkdcpd.config import PolicyConfig, PrincipalPattern, read_config
from kkdcpd.values import Mode
from tests.config.broken import REALM, SOURCE, problems_of

BROKEN = {
    "an unknown kind of message": (
        REALM + '[policy]\nmessage_kinds = ["as_req", "krb_error"]',
        (
            'policy.message_kinds[1]: "krb_error" is not one of its values; '
            'write "as_req", "tgs_req" or "kpasswd_req"'
        ),
    ),
    "no kind of message": (
        REALM + "[policy]\nmessage_kinds = []",
        'policy.message_kinds: is empty; write a list of kinds, such as ["as_req", "tgs_req"]',
    ),
    "a pattern with its realm": (
        REALM + '[policy]\ncname_deny = ["*/admin@EXAMPLE.COM"]',
        (
            'policy.cname_deny[0]: "*/admin@EXAMPLE.COM" has an @ in it; '
            "leave out the @ and the text after it: a name has no realm and no UPN suffix here"
        ),
    ),
    "a misspelt setting of one realm's policy": (
        REALM + '[realms."EXAMPLE.COM".policy]\nrequire_armour = "enforce"',
        'realms."EXAMPLE.COM".policy.require_armour: there is no such setting; did you mean require_armor?',
    ),
}


@pytest.mark.parametrize(("text", "lines"), BROKEN.values(), ids=BROKEN.keys())
def test_bad_value_is_refused_with_a_remedy(text: str, lines: str) -> None:
    assert problems_of(text) == lines


def test_policy_of_a_realm_overrides_the_common_policy() -> None:
    text = """
        [policy]
        require_armor = "monitor"
        services = 10
        cname_deny = ["*/admin"]
        [realms."A.TEST".policy]
        require_armor = "enforce"
        cname_deny = []
        sname_allow = ["HOST/*"]
        [realms."B.TEST"]
        """
    config = read_config(text, source=SOURCE)
    common = PolicyConfig(require_armor=Mode.MONITOR, services=10, cname_deny=(PrincipalPattern("*/admin"),))
    own = replace(
        common, require_armor=Mode.ENFORCE, cname_deny=(), sname_allow=(PrincipalPattern("HOST/*"),)
    )
    assert config.policy == common
    assert [realm.policy for realm in config.realms] == [own, common]


def test_policy_of_a_realm_has_the_defaults_otherwise() -> None:
    config = read_config('[realms."A.TEST".policy]\ns4u2self = "enforce"', source=SOURCE)
    assert config.realms[0].policy == PolicyConfig(s4u2self=Mode.ENFORCE)
