"""Which chains of certificates OpenSSL should not be left alone with.

It compares each name in a chain with each constraint on names above it, before anything is known of who has issued
them: a chain that anybody can make takes it seconds.
"""

from __future__ import annotations

from cryptography import x509
from OpenSSL import crypto

MOST_ABOVE = 5
"""Certificates that may stand above one's own in a chain."""
MOST_NAMES = 200
"""Names that a certificate may have."""
MOST_CONSTRAINTS = 32
"""Names, or parts of them, that a certificate may allow or forbid those below it."""

_BYTES = 64
"""Bytes of a certificate that cannot be read, for each of which it is taken to have a name."""


def too_much(shown: crypto.X509, depth: int) -> str | None:
    """Say what of a certificate, so many above the first, would take long to look at; None for nothing.

    To be asked in the callback of the verification: the last time of that is right before names are compared.
    """
    if depth > MOST_ABOVE:
        return f"there are more than {MOST_ABOVE} certificates above its own"
    try:
        names, constraints = _named(shown.to_cryptography())
    except (ValueError, x509.InvalidVersion):
        names = constraints = len(crypto.dump_certificate(crypto.FILETYPE_ASN1, shown)) // _BYTES
    if names > MOST_NAMES or constraints > MOST_CONSTRAINTS:
        return f"a certificate of its chain has more than {MOST_NAMES} names or {MOST_CONSTRAINTS} constraints on names"
    return None


def _named(certificate: x509.Certificate) -> tuple[int, int]:
    names = constraints = 0
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = len(list(extension.value))
        elif isinstance(extension.value, x509.NameConstraints):
            both = extension.value.permitted_subtrees, extension.value.excluded_subtrees
            constraints = sum(len(each or ()) for each in both)
    return names, constraints
