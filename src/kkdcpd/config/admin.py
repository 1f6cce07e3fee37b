"""[admin]: where metrics and health are told, and what must be well for us to be ready. See `schema`."""

from collections.abc import Iterator
from dataclasses import field

from kkdcpd.config.addresses import ListenAddress, parse_listen_address
from kkdcpd.config.kinds import Flag, ListOf, Text
from kkdcpd.config.reader import Table, setting
from kkdcpd.config.rules import items_differ
from kkdcpd.config.texts import parse_mode, parse_realm_name
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["ADMIN_TABLE", "AdminConfig"]


def _parse_address(text: str) -> ListenAddress | None:
    return parse_listen_address(text) if text else None


_ADDRESS = Text(
    parse=_parse_address,
    remedy='write an address of this host such as "127.0.0.1:9088", or "unix:/run/kkdcpd/admin.sock", '
    'or "" for none',
)
_MODE = Text(parse=parse_mode, remedy='write octal digits in quotes, such as "0660"')
_REALM = Text(parse=parse_realm_name, remedy='write the name of a realm, such as "EXAMPLE.COM"')


@frozen
class AdminConfig:
    """[admin]: the listener for metrics and health. `address` is None if there shall be none."""

    address: ListenAddress | None = field(
        default=ListenAddress(host="127.0.0.1", port=9088),
        metadata=setting(_ADDRESS, "Where metrics and health are told, by plain HTTP; empty is nowhere."),
    )
    unix_mode: int = field(
        default=0o660, metadata=setting(_MODE, "The file mode of a unix socket, in octal digits.")
    )
    anywhere: bool = field(
        default=False,
        metadata=setting(Flag(), "Whether it may listen where other hosts can connect."),
    )
    ready_realms: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            ListOf(
                item=_REALM,
                remedy='write a list of realms, such as ["EXAMPLE.COM"]',
                rule=items_differ,
            ),
            "The realms without whose KDCs we aren't ready.",
        ),
    )


def _stays_local(admin: AdminConfig, key: str) -> Iterator[ConfigProblem]:
    address = admin.address
    if address is None or address.is_local or admin.anywhere:
        return
    yield ConfigProblem(
        key=f"{key}.address",
        problem=f"at {address}, every host that can connect could read the names of realms and KDCs",
        remedy="listen on 127.0.0.1, [::1] or a unix socket, or accept it with anywhere = true",
    )


ADMIN_TABLE = Table(form=AdminConfig, rule=_stays_local)
