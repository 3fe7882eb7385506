"""Where a remote generator is: `remote://host:port`, or `remotes://host:port` over TLS."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from geo4d_ros.errors import ConfigurationError, require

SCHEMES = ('remote', 'remotes')
TOKEN_VARIABLE = 'GEO4D_TOKEN'
DEFAULT_PORT = 8642
DEFAULT_TIMEOUT = 10.0  # [s]
_EXAMPLE = 'write remote://host:port, or remotes://host:port?ca=FILE for TLS'


def is_remote(name: str) -> bool:
    """Whether `name` is an address rather than a checkpoint."""
    return name.partition('://')[0] in SCHEMES and '://' in name


@dataclass(frozen=True)
class Address:
    """host, port; tls with an optional file of certificates to trust; timeout [s] of a whole prediction."""

    host: str
    port: int
    tls: bool = False
    ca: Path | None = None
    timeout: float = DEFAULT_TIMEOUT
    compression: str = 'zstd'

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `remote[s]://host[:port][?timeout=S&compression=zstd|none|png|jpeg&ca=FILE]`; ConfigurationError."""
        from geo4d_ros.generation.remote.arrays import COMPRESSIONS

        require(is_remote(text), f'{text!r} is no remote generator; {_EXAMPLE}', ConfigurationError)
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port or DEFAULT_PORT
            options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
            timeout = float(options.pop('timeout', DEFAULT_TIMEOUT))
        except ValueError as error:
            raise ConfigurationError(f'{text!r} is no address ({error}); {_EXAMPLE}') from None
        ca, compression = options.pop('ca', None), options.pop('compression', 'zstd')
        require(bool(host) and parts.path in ('', '/') and not options and parts.username is None,
                f'{text!r} is no address; {_EXAMPLE}, and put the token into {TOKEN_VARIABLE}', ConfigurationError)
        require(0 < timeout <= 3600, f'timeout should be seconds in (0, 3600] but got {timeout}', ConfigurationError)
        require(compression in COMPRESSIONS, f'compression should be one of {", ".join(COMPRESSIONS)} '
                f'but got {compression!r}', ConfigurationError)
        return cls(str(host), port, parts.scheme == 'remotes', Path(ca) if ca else None, timeout, compression)

    @property
    def uri(self) -> str:
        """For the websocket library."""
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'{"wss" if self.tls else "ws"}://{host}:{self.port}'

    def context(self) -> ssl.SSLContext | None:
        """Checks the server's certificate and name; None without TLS."""
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except OSError as error:
            raise ConfigurationError(f'cannot read certificates from {self.ca}: {error}') from error

    def headers(self) -> dict[str, str]:
        """The token of the environment, if there is one."""
        token = os.environ.get(TOKEN_VARIABLE)
        return {'Authorization': f'Bearer {token}'} if token else {}
