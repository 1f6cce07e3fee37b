"""The section [policy]: rules for messages, in all realms or in one realm."""

from typing import Annotated

from kkdcpd.config.kinds import Items, Member, Range, Text, seconds
from kkdcpd.config.patterns import PrincipalPattern, parse_principal_pattern
from kkdcpd.config.problems import items_differ
from kkdcpd.frozen import frozen
from kkdcpd.values import MessageKind, Mode

__all__ = ["PolicyConfig"]

_REQUESTS = (MessageKind.AS_REQ, MessageKind.TGS_REQ, MessageKind.KPASSWD_REQ)
RequestKind = Annotated[MessageKind, Member(enumeration=MessageKind, members=_REQUESTS)]
Pattern = Annotated[
    PrincipalPattern,
    Text(parse=parse_principal_pattern, remedy='write a pattern such as "*/admin" or "host/*"'),
]
ClientPatterns = Annotated[
    tuple[Pattern, ...], Items(remedy='write a list of patterns, such as ["*/admin"]', rule=items_differ)
]
ServicePatterns = Annotated[
    tuple[Pattern, ...], Items(remedy='write a list of patterns, such as ["host/*"]', rule=items_differ)
]


@frozen
class PolicyConfig:
    """Rules for messages, in all realms.

    `policy` in a realm's section has the settings that differ for this realm. Each rule has a mode. With
    "monitor", the log line names what the rule would refuse.
    """

    message_kinds: Annotated[
        tuple[RequestKind, ...],
        Items(
            remedy='write a list of kinds, such as ["as_req", "tgs_req"]',
            may_be_empty=False,
            rule=items_differ,
        ),
    ] = _REQUESTS
    message_kind: Mode = Mode.ENFORCE
    """The kinds of requests that kkdcpd relays: "as_req" (log-on), "tgs_req" (tickets for services),
    "kpasswd_req" (password changes).

    Other messages are malformed. The rule is enforced, because the list is yours: by default it has all
    kinds.
    """

    kpasswd_set: Mode = Mode.OFF
    """Password changes by the protocol that can also set another user's password (RFC 3244, version 0xff80).

    kkdcpd sees only the version, which Heimdal's and Windows' clients also use to change their own password.
    So the rule is off.
    """

    require_armor: Mode = Mode.OFF
    """Passwords without FAST armor (RFC 6113) or PKINIT: an eavesdropper can guess such a password offline.

    Log-ons of computers and anonymous PKINIT are exempt, because armor is made from them. Off, because few
    clients use armor by default. DisallowUnprotectedPasswordAuth of Windows' own proxy is the same rule.
    """

    weak_etypes: Mode = Mode.MONITOR
    """Requests that offer only RC4 and DES, which make offline guessing easy.

    Monitored, because old devices may support nothing else.
    """

    unproven_ticket: Mode = Mode.MONITOR
    """Tickets that a KDC issues without preauthentication: any client can request such a ticket and guess the
    password offline (AS-REP roasting).

    Monitored, because the cure is the account's setting at the KDC.
    """

    initial_service: Mode = Mode.MONITOR
    """Log-ons (AS-REQs) that request a ticket for another service than krbtgt or kadmin/changepw.

    With MIT's KDC they reveal which users exist, and return tickets in the users' keys. Monitored, because
    kadmin and `kinit -S` send such requests, too.
    """

    many_services: Mode = Mode.MONITOR
    services: Annotated[int, Range(1, 1000000, "services")] = 50
    services_window: Annotated[float, seconds(86400, minimum=10)] = 300.0
    """Clients that request tickets for many different services (Kerberoasting): the number of services that
    is allowed, and the time.

    Monitored, because an office behind one address uses many services.
    """

    s4u2self: Mode = Mode.OFF
    s4u2proxy: Mode = Mode.OFF
    """Tickets in the name of other users, for the client itself and for other services ([MS-SFU]).

    Web servers use them, but rarely from outside. Off, because the KDC decides which services may.
    """

    realm_mismatch: Mode = Mode.ENFORCE
    """Requests with different realms in the envelope and in the inner message.

    kkdcpd knows aliases and referrals; any other such request would avoid the rules of one of the two realms.
    """

    cname: Mode = Mode.ENFORCE
    cname_allow: ClientPatterns = ()
    cname_deny: ClientPatterns = ()
    sname: Mode = Mode.ENFORCE
    sname_allow: ServicePatterns = ()
    sname_deny: ServicePatterns = ()
    """The principals that may log on, and the services for which tickets may be requested, as far as the
    request shows them.

    Patterns are names without realm, such as "*/admin", where `*` is any text; upper and lower case are
    equal. A non-empty allow list refuses all other names; a deny list refuses its names. krbtgt, which
    referrals need, is always allowed. Enforced, because the lists are yours; set cname or sname to "monitor"
    to try them first.
    """

    client_certificate: Mode = Mode.ENFORCE
    token: Mode = Mode.ENFORCE
    """Clients without the certificate or token that their realm needs (client_certificates, tokens_file
    above).

    Enforced, because a realm needs neither by default; "monitor" logs such clients, and lets them in.
    """
