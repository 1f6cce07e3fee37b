"""Builds AS-REQs with FAST armor (RFC 6113 5.4) and with any names in the outer request.

MIT's client programs repeat the client's name in the outer request. An attacker can choose another name. The
cryptography is libkrb5's. ctypes calls only documented functions.
"""

import contextlib
import ctypes
import ctypes.util
import functools
import time
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_uint, c_void_p

from kkdcpd.protocol import der

__all__ = ["Armor", "armor_padata"]

PA_FX_FAST = 136
PA_ENCRYPTED_CHALLENGE = 138

AS_REQ_TAG = 0x6A
ARMOR_AP_REQUEST = 1
AP_OPTS_USE_SUBKEY = 1
GC_CACHED = 2

HMAC_SHA1_AES256 = 16
"""A checksum type (RFC 3962 7)."""

USAGE_TICKET = 2
USAGE_REQUEST_CHECKSUM = 50
USAGE_REQUEST = 51
USAGE_CLIENT_CHALLENGE = 54

AES256 = 18
"""The encryption type of MIT's keys by default; their salt is the realm and the name (RFC 4120 4)."""


class _Data(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("length", c_uint), ("data", c_void_p))


class _Keyblock(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("enctype", c_int32), ("length", c_uint), ("contents", c_void_p))


class _EncData(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("enctype", c_int32), ("kvno", c_uint), ("ciphertext", _Data))


class _Checksum(ctypes.Structure):
    _fields_ = (("magic", c_int32), ("kind", c_int32), ("length", c_uint), ("contents", c_void_p))


class _Creds(ctypes.Structure):
    _fields_ = (
        ("magic", c_int32),
        ("client", c_void_p),
        ("server", c_void_p),
        ("keyblock", _Keyblock),
        ("times", c_int32 * 4),
        ("is_skey", c_uint),
        ("ticket_flags", c_int32),
        ("addresses", c_void_p),
        ("ticket", _Data),
        ("second_ticket", _Data),
        ("authdata", c_void_p),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(ctypes.util.find_library("krb5") or "libkrb5.so.3")
    library.krb5_init_context.argtypes = (c_void_p,)
    return library


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"libkrb5 returned the error {code}")


class Armor:
    """Armor by the ticket-granting ticket in a credential cache, with a new subkey for each request.

    Only one thread may use it.
    """

    def __init__(self, credential_cache: str, realm: str) -> None:
        self._krb5 = _library()
        self._realm = realm
        self._context = c_void_p()
        self._keys: dict[tuple[str, str], _Keyblock] = {}
        _check(self._krb5.krb5_init_context(byref(self._context)))
        self._creds = self._ticket(credential_cache, f"krbtgt/{realm}@{realm}")

    def hide(
        self, inner: bytes, outer: bytes, *, proof: tuple[str, str] | None = None, hides_names: bool = False
    ) -> bytes:
        """Return an AS-REQ with the body of `outer` in clear text and the body of `inner` encrypted.

        Both are AS-REQs without armor. `proof` is the user's name and password for an encrypted challenge.
        With `hides_names`, the request asks the KDC to hide the client's name (RFC 6113 5.4.2).
        """
        body = _body_of(outer)
        with self._ap_request() as (request, key):
            padata = self._challenge(key, *proof) if proof else b""
            options = b"\0\x40\0\0\0" if hides_names else b"\0\0\0\0\0"
            fast = _sequence(
                der.encode(der.BIT_STRING[0], options), der.encode(0x30, padata), _body_of(inner)
            )
            armor = _sequence(der.encode_integer(ARMOR_AP_REQUEST), der.encode(der.OCTET_STRING[0], request))
            checksum = self._checksum(key, body)
            armored = _sequence(armor, checksum, self._encrypt(key, USAGE_REQUEST, fast))
        fast_padata = _padata(PA_FX_FAST, der.encode_explicit(0, armored))
        fields = {
            1: der.encode_integer(5),
            2: der.encode_integer(10),
            3: der.encode(0x30, fast_padata),
            4: body,
        }
        contents = b"".join(der.encode_explicit(number, field) for number, field in fields.items())
        return der.encode(AS_REQ_TAG, der.encode(0x30, contents))

    def made_up_ticket(self, user: str, password: str) -> bytes:
        """Build an AP-REQ with a ticket for the user's key, as the user's password makes it."""
        encrypted = self._encrypt(
            c_void_p(ctypes.addressof(self._key_of(user, password))), USAGE_TICKET, b"no EncTicketPart"
        )
        components = der.encode(0x30, der.encode(der.GENERAL_STRING[0], user.encode()))
        ticket = _sequence(
            der.encode_integer(5),
            der.encode(der.GENERAL_STRING[0], self._realm.encode()),
            _sequence(der.encode_integer(1), components),
            encrypted,
        )
        options = der.encode(der.BIT_STRING[0], bytes(5))
        fields = der.encode_integer(5), der.encode_integer(14), options, der.encode(0x61, ticket), encrypted
        return der.encode(0x6E, _sequence(*fields))

    def _ticket(self, credential_cache: str, service: str) -> c_void_p:
        krb5, context = self._krb5, self._context
        cache, wanted, found = c_void_p(), _Creds(), c_void_p()
        _check(krb5.krb5_cc_resolve(context, credential_cache.encode(), byref(cache)))
        client, server = c_void_p(), c_void_p()
        _check(krb5.krb5_cc_get_principal(context, cache, byref(client)))
        _check(krb5.krb5_parse_name(context, service.encode(), byref(server)))
        wanted.client, wanted.server = client, server
        _check(krb5.krb5_get_credentials(context, GC_CACHED, cache, byref(wanted), byref(found)))
        krb5.krb5_cc_close(context, cache)
        return found

    @contextlib.contextmanager
    def _ap_request(self) -> Iterator[tuple[bytes, c_void_p]]:
        """Make an AP-REQ with a new subkey, and the armor key of both (RFC 6113 5.4.1.1)."""
        krb5, context = self._krb5, self._context
        authentication, message = c_void_p(), _Data()
        _check(
            krb5.krb5_mk_req_extended(
                context, byref(authentication), c_int32(AP_OPTS_USE_SUBKEY), None, self._creds, byref(message)
            )
        )
        subkey, armor_key = c_void_p(), c_void_p()
        _check(krb5.krb5_auth_con_getsendsubkey(context, authentication, byref(subkey)))
        session_key = (
            ctypes.addressof(ctypes.cast(self._creds, POINTER(_Creds)).contents) + _Creds.keyblock.offset
        )
        self._combine(subkey, b"subkeyarmor", c_void_p(session_key), b"ticketarmor", armor_key)
        try:
            yield ctypes.string_at(message.data, message.length), armor_key
        finally:
            krb5.krb5_free_keyblock(context, armor_key)
            krb5.krb5_free_keyblock(context, subkey)
            krb5.krb5_free_data_contents(context, byref(message))
            krb5.krb5_auth_con_free(context, authentication)

    def _challenge(self, armor_key: c_void_p, user: str, password: str) -> bytes:
        """Encrypt the time by the armor key and the password's (RFC 6113 5.4.6)."""
        key, users_pointer = c_void_p(), c_void_p(ctypes.addressof(self._key_of(user, password)))
        self._combine(armor_key, b"clientchallengearmor", users_pointer, b"challengelongterm", key)
        now = der.encode(der.GENERALIZED_TIME[0], time.strftime("%Y%m%d%H%M%SZ", time.gmtime()).encode())
        value = self._encrypt(key, USAGE_CLIENT_CHALLENGE, _sequence(now))
        self._krb5.krb5_free_keyblock(self._context, key)
        return _padata(PA_ENCRYPTED_CHALLENGE, value)

    def _key_of(self, user: str, password: str) -> _Keyblock:
        """Derive the key of a password (RFC 3962 4), once: it takes milliseconds."""
        if (user, password) not in self._keys:
            secret, secret_buffer = _data(password.encode())
            salt, salt_buffer = _data(f"{self._realm}{user}".encode())
            key = _Keyblock()
            _check(
                self._krb5.krb5_c_string_to_key(
                    self._context, c_int32(AES256), byref(secret), byref(salt), byref(key)
                )
            )
            del secret_buffer, salt_buffer
            self._keys[user, password] = key
        return self._keys[user, password]

    def _combine(self, first: c_void_p, label: bytes, second: c_void_p, other: bytes, key: c_void_p) -> None:
        labels = c_char_p(label), c_char_p(other)
        _check(
            self._krb5.krb5_c_fx_cf2_simple(self._context, first, labels[0], second, labels[1], byref(key))
        )

    def _checksum(self, key: c_void_p, content: bytes) -> bytes:
        data, buffer = _data(content)
        checksum = _Checksum()
        _check(
            self._krb5.krb5_c_make_checksum(
                self._context, c_int32(0), key, c_int32(USAGE_REQUEST_CHECKSUM), byref(data), byref(checksum)
            )
        )
        value = ctypes.string_at(checksum.contents, checksum.length)
        self._krb5.krb5_free_checksum_contents(self._context, byref(checksum))
        del buffer
        return _sequence(der.encode_integer(checksum.kind), der.encode(der.OCTET_STRING[0], value))

    def _encrypt(self, key: c_void_p, usage: int, content: bytes) -> bytes:
        data, buffer = _data(content)
        enctype = ctypes.cast(key, POINTER(_Keyblock)).contents.enctype
        length = c_size_t()
        _check(
            self._krb5.krb5_c_encrypt_length(
                self._context, c_int32(enctype), c_size_t(len(content)), byref(length)
            )
        )
        cipher = ctypes.create_string_buffer(length.value)
        encrypted = _EncData(ciphertext=_Data(0, length.value, ctypes.addressof(cipher)))
        _check(
            self._krb5.krb5_c_encrypt(self._context, key, c_int32(usage), None, byref(data), byref(encrypted))
        )
        del buffer
        fields = {
            0: der.encode_integer(enctype),
            2: der.encode(der.OCTET_STRING[0], cipher.raw[: encrypted.ciphertext.length]),
        }
        contents = b"".join(der.encode_explicit(number, field) for number, field in fields.items())
        return der.encode(0x30, contents)


def armor_padata(ap_request: bytes) -> tuple[int, bytes]:
    """Build a PA-FX-FAST with this AP-REQ as its armor. Its checksum and its contents are made up."""
    armor = _sequence(der.encode_integer(ARMOR_AP_REQUEST), der.encode(der.OCTET_STRING[0], ap_request))
    checksum = _sequence(der.encode_integer(HMAC_SHA1_AES256), der.encode(der.OCTET_STRING[0], bytes(12)))
    etype = der.encode_explicit(0, der.encode_integer(AES256))
    cipher = der.encode_explicit(2, der.encode(der.OCTET_STRING[0], bytes(60)))
    return PA_FX_FAST, der.encode_explicit(0, _sequence(armor, checksum, der.encode(0x30, etype + cipher)))


def _data(content: bytes) -> tuple[_Data, ctypes.Array[ctypes.c_char]]:
    """Return libkrb5's krb5_data of the content, and its buffer, which has to exist as long."""
    buffer = ctypes.create_string_buffer(content, len(content))
    return _Data(0, len(content), ctypes.addressof(buffer)), buffer


def _sequence(*fields: bytes) -> bytes:
    """Build a SEQUENCE of fields with the tags 0, 1 and so on."""
    return der.encode(0x30, b"".join(der.encode_explicit(*field) for field in enumerate(fields)))


def _padata(kind: int, value: bytes) -> bytes:
    fields = {1: der.encode_integer(kind), 2: der.encode(der.OCTET_STRING[0], value)}
    contents = b"".join(der.encode_explicit(number, field) for number, field in fields.items())
    return der.encode(0x30, contents)


def _body_of(request: bytes) -> bytes:
    """Return the KDC-REQ-BODY of an AS-REQ."""
    outer = der.read_element(request, 0, len(request), bytes((AS_REQ_TAG,)))
    sequence = der.read_element(request, *outer, der.SEQUENCE)
    _tag, start, stop = der.scan_fields(request, sequence)[4]
    return der.encode(0x30, request[start:stop])
