"""What a failed TLS handshake means to the person in front of it."""

from __future__ import annotations

import ssl

from halftunnel_vpn.errors import RoadError

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_NOT_YET_VALID = 9
_EXPIRED = 10
_WRONG_NAME = (62, 64)


def certificate_failure(error: ssl.SSLCertVerificationError, server: str) -> RoadError:
    """The certificate was refused. Reasons: certificate-expired, certificate-not-yet-valid,
    certificate-wrong-name, certificate-not-trusted.
    """
    if error.verify_code == _EXPIRED:
        return RoadError(
            f"the certificate of {server} has expired: check this machine's clock, then renew it",
            reason="certificate-expired",
        )
    if error.verify_code == _NOT_YET_VALID:
        return RoadError(
            f"the certificate of {server} is not valid yet: check this machine's clock",
            reason="certificate-not-yet-valid",
        )
    if error.verify_code in _WRONG_NAME:
        return RoadError(
            f"the certificate of {server} is for another name: check the URL, or set the right server name",
            reason="certificate-wrong-name",
        )
    return RoadError(
        f"the certificate of {server} is not trusted ({error.verify_message}): "
        f"get a fresh profile from the exit server, or find out what answers in its place",
        reason="certificate-not-trusted",
    )


def tls_failure(error: OSError, server: str) -> RoadError:
    """Any other end of the handshake. Reason: tls-failed."""
    if isinstance(error, ssl.SSLError):
        detail = (error.reason or "protocol error").lower().replace("_", " ")
    else:
        detail = "the connection was cut"
    return RoadError(
        f"no TLS with {server} ({detail}): check that the port speaks TLS, and any firewall on the way",
        reason="tls-failed",
    )
