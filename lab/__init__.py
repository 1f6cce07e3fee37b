"""Real parts on loopback: a Kerberos realm, its clients, a certificate authority and kkdcpd itself.

Each part writes only into a folder that the caller gives, and ends with its context manager. `make demo`, the
tests and the benchmarks use these parts.

    program      runs other programs, to their end or in the background
    ports        free ports on loopback
    authority    a certificate authority
    namespace    a network namespace, in which packets can be dropped
    forwarder    connections from other loopback addresses
    realm        an MIT realm: KDCs and a kpasswd server
    otp          a slow RADIUS server, for one-time passwords
    samba        an Active Directory domain: Samba's domain controller
    dns          a DNS server: knot
    client       kinit, kvno, kpasswd and similar programs
    daemon       kkdcpd
    demo         all parts in use: `python -m lab.demo`
"""
