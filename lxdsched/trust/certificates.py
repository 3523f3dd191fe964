"""Says for people what a certificate is, whatever a hostile host may have put into it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

from cryptography import x509

from lxdsched.quoting import one_line
from lxdsched.tls import fingerprint
from lxdsched.trust.records import Shown

MOST_NAMES = 8
"""Alternative names that are kept; a certificate may have thousands."""
MOST_CHARACTERS = 120
"""Characters that are kept of a name."""

T = TypeVar("T")


def describe(certificate: x509.Certificate, at: datetime) -> Shown:
    """Describe a certificate that was shown at a moment. What of it cannot be read is left out."""
    return Shown(
        fingerprint(certificate),
        at,
        subject=printable(_read(certificate.subject.rfc4514_string, "")),
        names=_read(lambda: _names(certificate), ()),
        not_before=_read(lambda: _moment(certificate.not_valid_before_utc), None),
        not_after=_read(lambda: _moment(certificate.not_valid_after_utc), None),
    )


def printable(text: str) -> str:
    """Show what a terminal would act on, and no more than a line can hold."""
    return one_line(text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…")


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(printable(str(name.value)) for name in islice(found, MOST_NAMES))


def _moment(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _read(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except Exception:  # it is read for people only, and the fingerprint is known
        return otherwise
