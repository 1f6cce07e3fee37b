"""When two spellings are the same principal, for what counts people and for what names them in the log."""

from kkdcpd.values import PrincipalName

__all__ = ["fold_principal"]


def fold_principal(name: PrincipalName, realm: str) -> str:
    """Return what the spellings of one principal have in common, as far as it can be told without a KDC.

    Active Directory ignores case, and takes `user` and the enterprise name `user@REALM` (RFC 6806 5) alike.
    No name has a NUL, and what is remembered is kept apart by them.
    """
    text = "/".join(name.components).replace("\0", "\ufffd")
    return text.casefold().removesuffix("@" + realm.casefold())
