"""One-time passwords with a slow server: a second copy of a password would be refused."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from kkdcpd.endpoints import KDC_TRANSPORTS, Transport
from lab.namespace import NetworkNamespace
from lab.otp import OtpUser, RadiusServer
from lab.program import Completed
from lab.realm import MitRealm, Principal
from tests.interop.conftest import PASSWORD, REALM, FrontMaker, Witness

CODE = "123456"
# All users log on at the same time, so that their waiting times do not add up.
USERS = {
    f"{transport.value}-{seconds}": OtpUser(password=CODE, seconds=seconds)
    for transport in KDC_TRANSPORTS
    for seconds in (3, 12)
}
MESSAGES = {Transport.TCP: "tcp dport {} tcp flags & (syn | ack) == syn", Transport.UDP: "udp dport {}"}


def test_slow_one_time_passwords_are_sent_once_and_waited_for(make_front: FrontMaker, tmp_path: Path) -> None:
    with ExitStack() as stack:
        network = stack.enter_context(NetworkNamespace(tmp_path))
        radius = stack.enter_context(RadiusServer(tmp_path / "radius", USERS))
        realm = stack.enter_context(_realm(tmp_path / "realm", radius))
        kdcs = {transport: realm.start_kdc(transports={transport}) for transport in KDC_TRANSPORTS}
        sites = {
            transport: make_front(
                realm,
                f"{transport.value}://{kdc.endpoints[0]}",
                f"{transport.value}://{realm.kdc.endpoints[0]}",
            )
            for transport, kdc in kdcs.items()
        }
        tickets = sites[Transport.TCP].clients()
        tickets.kinit("armorer", PASSWORD).expect_ok()
        witness = Witness(realm)
        for transport, kdc in kdcs.items():
            network.count(transport.value, MESSAGES[transport].format(kdc.port))

        def log_in(user: str) -> Completed:
            client = sites[Transport(user.partition("-")[0])].clients()
            return client.kinit(user, CODE, "-T", tickets.credential_cache)

        with ThreadPoolExecutor() as threads:
            logins = dict(zip(USERS, threads.map(log_in, USERS), strict=True))
        assert {user: login.output for user, login in logins.items() if not login.is_ok} == {}
        assert sorted(name.partition("@")[0] for name in radius.asked) == sorted(USERS)
        assert witness.seen_by(realm.kdc) == []
        for transport, kdc in kdcs.items():
            packets = network.counted(transport.value)
            # Two users request a challenge and answer it; kkdcpd probes a KDC that keeps a request waiting.
            assert len(witness.seen_by(kdc)) == 4
            assert packets == 4 + len(witness.probes_of(kdc))
            assert {line["transport"] for line in sites[transport].all_exchanges()} == {transport.value}
            assert {line["attempts"] for line in sites[transport].all_exchanges()} == {"1"}


def _realm(directory: Path, radius: RadiusServer) -> MitRealm:
    one_time = [
        Principal(name=user, password=PASSWORD, options=("+requires_preauth",), strings={"otp": "[]"})
        for user in USERS
    ]
    return MitRealm(
        directory,
        name=REALM,
        principals=[Principal(name="armorer", password=PASSWORD), *one_time],
        options=radius.options,
    )
