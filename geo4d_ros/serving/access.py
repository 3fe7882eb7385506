"""Who may ask: token, TLS, and which addresses may be bound without them."""

from __future__ import annotations

import hmac
import ipaddress
import ssl
from pathlib import Path

from geo4d_ros.errors import ConfigurationError, require


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """TLS of a PEM certificate and key; None without them. ConfigurationError when they cannot be used."""
    if certificate is None and key is None:
        return None
    require(certificate is not None and key is not None, '--tls-cert and --tls-key go together', ConfigurationError)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(str(certificate), str(key))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f'cannot use {certificate} with {key}: {error}') from error
    return context


def check_exposure(host: str, token: str | None, tls: bool, insecure: bool) -> None:
    """Beyond this machine only with token and TLS, unless the operator says that the network is trusted."""
    if insecure or is_loopback(host) or (token and tls):
        return
    raise ConfigurationError(f'{host} can be reached by other machines: give --tls-cert, --tls-key and the environment '
                             'variable GEO4D_TOKEN, or --insecure on a network where everybody may ask')


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_fits(header: str | None, token: str | None) -> bool:
    """Whether an Authorization header carries the token; always without one. Takes equally long either way."""
    return token is None or hmac.compare_digest((header or '').encode(), f'Bearer {token}'.encode())
