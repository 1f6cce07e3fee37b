"""Reads the requests of local programs, and answers each without a reply by a KRB-ERROR.

The error code says what the program may do next (RFC 4120 7.5.9). Clients try their next KDC after
KDC_ERR_SVC_UNAVAILABLE, so it means that no KDC has the message.
"""

import time

from kkdcpd.errors import MalformedError
from kkdcpd.frontends.http import responses
from kkdcpd.pipeline.joining import Answer, JoinableRequest
from kkdcpd.protocol import messages
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.framing import PREFIX_BYTES
from kkdcpd.protocol.krb_error import build_error
from kkdcpd.values import ClientConnection, Outcome, ProxyRequest, Refusal, RequestResult, Rule

__all__ = ["LocalRequest", "refuse_uid"]

_SENTENCES = {
    Outcome.MALFORMED_MESSAGE: "This is not a well-formed AS-REQ, TGS-REQ or kpasswd request.",
    Outcome.BODY_TOO_LARGE: "The message is longer than the limit of this proxy.",
}
"""Sentences in place of those that name parts of HTTP."""

ANSWERED_BEFORE = (
    "The server has answered an earlier request of this program, which did not wait for the answer. The "
    "password is probably changed: try the new one."
)


class LocalRequest(JoinableRequest):
    """A request of a local program, by any transport. `parsed` is None if the message is malformed.

    `has_next_kdc` is as in LocalOptions.
    """

    __slots__ = ("_error", "_has_next_kdc", "parsed")

    def __init__(self, client: ClientConnection, kerb_message: bytes, *, has_next_kdc: bool) -> None:
        self._has_next_kdc = has_next_kdc
        self.parsed: ProxyRequest | None = None
        try:
            self.parsed = messages.classify_bare(kerb_message)
        except MalformedError as error:
            self._error = error
        super().__init__(client, kerb_message, self.parsed.kind if self.parsed else None)
        self.bytes_in = len(kerb_message) - PREFIX_BYTES

    async def read(self) -> ProxyRequest:
        """Return the request."""
        if self.parsed is None:
            raise self._error
        return self.parsed

    def respond(self, result: RequestResult, payload: bytes | None) -> Answer:
        """Build the answer: the reply of the KDC, or an error with the request's id."""
        if payload is None or result.outcome is not Outcome.ANSWERED:
            payload = self._build_error(self._code_of(result), _sentence(result))
        self.bytes_out = len(payload)
        return Answer(payload=payload, result=result)

    def answer_newer(self, answer: Answer) -> Answer:
        """Return the answer to a newer password change of the same program.

        The reply to this one is of no use to the newer one, unless it is an error, which no key protects.
        """
        reply = answer.result.reply
        if reply and reply.facts.error_code is not None:
            return answer
        payload = self._build_error(KrbErrorCode.KRB_ERR_GENERIC, ANSWERED_BEFORE)
        return Answer(payload=payload, result=answer.result)

    def too_big(self) -> bytes:
        """Return the error after which the program sends the same request by TCP (RFC 4120 7.2.1)."""
        return build_error(KrbErrorCode.KRB_ERR_RESPONSE_TOO_BIG, request=self.parsed, now=time.time())

    def _code_of(self, result: RequestResult) -> KrbErrorCode:
        if result.outcome is Outcome.REFUSED:
            return KrbErrorCode.KDC_ERR_POLICY
        if result.outcome is Outcome.BODY_TOO_LARGE:
            return KrbErrorCode.KRB_ERR_FIELD_TOOLONG
        if result.may_be_delivered or not self._has_next_kdc:
            return KrbErrorCode.KRB_ERR_GENERIC
        return KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE

    def _build_error(self, code: KrbErrorCode, sentence: str) -> bytes:
        text = f"{sentence} (kkdcpd, request {self.id})"
        return build_error(code, text, request=self.parsed, now=time.time())


def refuse_uid(request: LocalRequest, uid: int) -> RequestResult:
    """Return the result of a request of a user that may not use the socket."""
    request.request = request.parsed
    refusal = Refusal(
        rule=Rule.UID,
        outcome=Outcome.REFUSED,
        text=f"The user {uid} may not use this KDC proxy",
        detail=f"the user {uid} is not one of the listener's users",
    )
    return RequestResult(outcome=Outcome.REFUSED, refusal=refusal, detail=refusal.detail)


def _sentence(result: RequestResult) -> str:
    return _SENTENCES.get(result.outcome) or responses.sentence(result.outcome, result.refusal)
