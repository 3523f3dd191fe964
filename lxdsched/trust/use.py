"""Trust in the first certificate that a host ever proved to own, or that a person has accepted since."""

from __future__ import annotations

from cryptography import x509
from OpenSSL import SSL
from twisted.logger import Logger

from lxdsched.tls import CertificateRefused, fingerprint
from lxdsched.trust.keeper import Keeper


class RememberedUse:
    """Trust in one host, by its URL. `host` is what people call it.

    Until a host is known, any certificate will do whose key it has; what is in the handshake decides by the memory.
    """

    chain = False
    _log = Logger()

    def __init__(self, keeper: Keeper, host: str, url: str) -> None:
        self._keeper = keeper
        self._host = host
        self._url = url

    def prepare(self, context: SSL.Context) -> None:
        """Nothing is needed: OpenSSL's opinion does not matter."""

    def check(self, certificate: x509.Certificate, name: str, problem: str | None) -> None:  # noqa: ARG002
        """Refuse a certificate that is not the one remembered, and any where it cannot be known which that is."""
        shown, known = fingerprint(certificate), self._keeper.known(self._url)
        if known is None:
            if self._keeper.fault is not None:
                raise CertificateRefused(
                    f"it shows {shown}, and it cannot be known whether that was its certificate before: "
                    f"{self._keeper.fault}"
                )
        elif known.fingerprint != shown:
            self._keeper.offer(self._url, certificate)
            raise CertificateRefused(
                f"its certificate has changed: it shows {shown}, trusted is {known.fingerprint}; "
                f"if the change was meant, `lxdsched trust accept {self._host}`"
            )

    def proven(self, certificate: x509.Certificate) -> None:
        """Remember the first certificate."""
        if self._keeper.known(self._url) is None:
            self._keeper.meet(self._url, certificate)
            self._log.warn(
                "host {host} is trusted on first use, and {path} remembers it; "
                "to pin it, set its fingerprint to {fingerprint}",
                host=self._host,
                path=self._keeper.file.path,
                fingerprint=fingerprint(certificate),
            )
