"""Real parts on loopback: a Kerberos realm, its clients, a certificate authority and kkdcpd itself.

Everything is made in a folder that the caller gives, nothing outside it is written, and what was started ends
with its context manager. `make demo`, the tests and the benchmarks build on it.

    program      runs other programs: short ones to their end, long ones in the background
    ports        free ports on loopback
    authority    a certificate authority
    namespace    a network of its own, in which packets can be dropped
    forwarder    connections from other addresses of loopback
    realm        an MIT realm: KDCs and a kpasswd server
    otp          a RADIUS server that takes its time, for one-time passwords
    samba        an Active Directory domain: Samba's domain controller
    dns          a DNS server: knot
    client       kinit, kvno, kpasswd and their like
    daemon       kkdcpd
    demo         all of them at work: `python -m lab.demo`
"""
