"""What to change when TLS fails: its own words name neither the setting nor the side that is wrong."""

from __future__ import annotations

from typing import Any

_HINTS = (
    ("hostname mismatch", "the server's certificate bears another name: use that name in redis.url, or give the server "
     "a certificate for this one (redis.ssl_check_hostname: false would give up that check)"),
    ("ip address mismatch", "the server's certificate bears another name: use that name in redis.url, or give the "
     "server a certificate for this address (redis.ssl_check_hostname: false would give up that check)"),
    ("certificate has expired", "the server's certificate has expired: renew it"),
    ("certificate verify failed", "no authority that is trusted here has signed the server's certificate: name the "
     "file of its authority in redis.ssl_ca_certs"),
    ("certificate_required", "the server wants a certificate of its clients: redis.ssl_certfile and redis.ssl_keyfile"),
    ("unknown_ca", "the server does not trust the authority of redis.ssl_certfile: use a certificate that its "
     "tls-ca-cert-file has signed"),
    ("wrong_version_number", "the server speaks no TLS on this port: use its TLS port, or redis:// instead of rediss://"),
    ("record_layer_failure", "the server speaks no TLS on this port: use its TLS port, or redis:// instead of rediss://"),
)  # fmt: skip
_CUT = ("reset by peer", "connection closed", "broken pipe", "eof occurred", "violation of protocol")


def hint(text: str, pool: Any) -> str:
    """What to change, to be appended to the text of a connection error; empty if it is not about TLS."""
    lower = text.lower()
    for words, advice in _HINTS:
        if words in lower:
            return f"; {advice}"
    options = getattr(pool, "connection_kwargs", {})
    if "ssl_cert_reqs" in options and any(cut in lower for cut in _CUT):
        # The alert that says so may be lost with the connection.
        if options.get("ssl_certfile"):
            return "; if it goes on: has the server's tls-ca-cert-file signed the certificate in redis.ssl_certfile?"
        return "; if the server wants a certificate of its clients: redis.ssl_certfile and redis.ssl_keyfile"
    return ""
