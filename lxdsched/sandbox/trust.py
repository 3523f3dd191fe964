"""The endpoints of the trust store: `/1.0/certificates` and what lies below."""

from __future__ import annotations

import base64
import binascii

from cryptography import x509

from lxdsched.sandbox.answers import Answer, LXDError, created, done, listing, sync
from lxdsched.sandbox.bodies import Shape, is_flag, is_text, is_texts
from lxdsched.sandbox.questions import Question, forbidden
from lxdsched.sandbox.records import TrustedCertificate

_POST = Shape(
    "CertificatesPost",
    {"name": is_text, "type": is_text, "certificate": is_text, "restricted": is_flag, "projects": is_texts},
)


def show_certificates(question: Question) -> Answer:
    """`GET /1.0/certificates`: a restricted caller sees them all, too."""
    entries = list(question.database.certificates.values())
    if question.recursion:
        return sync([entry.show() for entry in entries])
    return listing([f"/1.0/certificates/{entry.fingerprint}" for entry in entries])


def _found(question: Question) -> TrustedCertificate:
    wanted = question.names["fingerprint"]
    certificates = question.database.certificates
    found = [entry for fingerprint, entry in certificates.items() if fingerprint.startswith(wanted)]
    if len(found) != 1:
        raise LXDError(404, "Certificate not found")
    return found[0]


def show_certificate(question: Question) -> Answer:
    """`GET /1.0/certificates/FINGERPRINT`, of which the beginning is enough."""
    return sync(_found(question).show())


def create_certificate(question: Question) -> Answer:
    """`POST /1.0/certificates`: the DER of a client certificate in base64. Only who is trusted may add another."""
    if not question.caller.trusted:
        raise forbidden()
    body = _POST.read(question.body)
    if not body.text("certificate"):
        raise LXDError(400, "Client is already trusted")
    question.require_unrestricted()
    if body.text("type") != "client":
        raise LXDError(400, "Invalid certificate type")
    certificate = _decode(body.text("certificate"))
    if certificate.not_valid_after_utc < question.state.now():
        raise LXDError(400, "The provided certificate is expired")
    if any(project not in question.database.projects for project in body.texts("projects")):
        raise LXDError(404, "Project not found")
    entry = TrustedCertificate.of(
        certificate,
        name=body.text("name") or "client",
        restricted=body.flag("restricted"),
        projects=body.texts("projects"),
    )
    if entry.fingerprint in question.database.certificates:
        raise LXDError(409, "Certificate already in trust store")
    question.database.trust(entry, question.cause)
    return created(f"/1.0/certificates/{entry.fingerprint}")


def _decode(text: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise LXDError(400, "illegal base64 data at input byte 0") from None
    except ValueError:
        raise LXDError(400, "Invalid certificate material: x509: malformed certificate") from None


def delete_certificate(question: Question) -> Answer:
    """`DELETE /1.0/certificates/FINGERPRINT`."""
    question.require_unrestricted()
    called = question.names["fingerprint"]
    question.database.distrust(_found(question).fingerprint, question.cause, called=called)
    return done()
