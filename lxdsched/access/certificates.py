"""The names by which a certificate calls its owner."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import NameOID


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names, e-mail addresses and URIs of a certificate's subjectAltName, as `plain_name` has them.

    Only where it has no subjectAltName at all, its common name. None when either cannot be read: the certificate
    may be anybody's making.
    """
    try:
        return tuple(dict.fromkeys(plain_name(name) for name in _names(certificate)))
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ()


def plain_name(name: str) -> str:
    """Return a name in the one form in which names are compared: what does not care for case in small letters.

    That is a DNS name as a whole and the domain of an e-mail address; a URI stays as it is.
    """
    if ":" in name:
        return name
    local, at, domain = name.rpartition("@")
    return f"{local}{at}{domain.lower()}"


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return [each.value for each in common if isinstance(each.value, str)] if len(common) == 1 else []
    # Who may issue one kind of name alone does not come by another kind with it.
    dns = [name for name in found.get_values_for_type(x509.DNSName) if "@" not in name and ":" not in name]
    mail = [name for name in found.get_values_for_type(x509.RFC822Name) if "@" in name and ":" not in name]
    return [*dns, *mail, *(name for name in found.get_values_for_type(x509.UniformResourceIdentifier) if ":" in name)]
