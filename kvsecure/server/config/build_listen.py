"""Where to listen: the rules between URLs, certificates and the network.

Owns: that nothing readable leaves the machine unless somebody insists.
Never: opens a socket.
Follows: etcd's checks of listen URLs, with their texts; differs: plaintext is for loopback only.
"""

from kvsecure.server.config.model import Listen
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.config.settings import Settings
from kvsecure.server.config.urls import Endpoint, endpoints

__all__ = ["build_listen"]


def build_listen(settings: Settings, warnings: list[str]) -> tuple[Listen, tuple[str, ...]]:
    """Return where to listen, and what to advertise to clients.

    Raises:
        ConfigError: An address cannot or must not be listened on, or nothing is advertised.
    """
    # Without a word from the operator a server with a certificate uses it.
    scheme = "https" if settings.text("cert-file") else "http"
    client_urls = settings.parts("listen-client-urls")
    advertised = settings.parts("advertise-client-urls")
    if not settings.given("listen-client-urls"):
        client_urls = (f"{scheme}://localhost:2379",)
        if not settings.given("advertise-client-urls"):
            advertised = client_urls
    elif not settings.given("advertise-client-urls"):
        advertised = ()
    if not advertised:
        raise ConfigError(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
        )
    if not client_urls:
        raise ConfigError("--listen-client-urls must name at least one URL")
    listen = Listen(
        client=endpoints(client_urls),
        client_http=endpoints(settings.parts("listen-client-http-urls")),
        metrics=endpoints(settings.parts("listen-metrics-urls")),
        gateway=settings.switch("enable-grpc-gateway"),
    )
    _check_addresses(listen)
    _check_certificate(settings, listen)
    _check_plaintext(settings, listen, warnings)
    return listen, advertised


def _check_addresses(listen: Listen) -> None:
    """Refuse an address that is listed twice; two URLs of one flag may be TLS and plaintext."""
    seen: dict[tuple[str, int], str] = {}
    for endpoints_of_flag in (listen.client, listen.client_http, listen.metrics):
        own = {
            endpoint.address: endpoint.url for endpoint in endpoints_of_flag if _is_one(endpoint)
        }
        for address in own.keys() & seen.keys():
            raise ConfigError(f"two listeners cannot share one address: {own[address]}")
        seen |= own


def _is_one(endpoint: Endpoint) -> bool:
    """Tell whether it is the same address each time: the system may choose the port."""
    return endpoint.path is not None or endpoint.port != 0


def _check_certificate(settings: Settings, listen: Listen) -> None:
    complete = bool(settings.text("cert-file")) and bool(settings.text("key-file"))
    if not complete and (settings.text("cert-file") or settings.text("key-file")):
        raise ConfigError("--cert-file and --key-file must be given together")
    if complete:
        return
    for endpoint in listen.client + listen.client_http:
        if endpoint.scheme.is_secure:
            raise ConfigError(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url "
                f"{endpoint.url} with HTTPS scheme"
            )
    for endpoint in listen.metrics:
        if endpoint.scheme.is_secure:
            raise ConfigError(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics "
                f"secure url {endpoint.url}"
            )


def _check_plaintext(settings: Settings, listen: Listen, warnings: list[str]) -> None:
    for endpoint in listen.everything:
        if endpoint.scheme.is_secure:
            continue
        if not endpoint.loopback:
            if not settings.switch("allow-insecure-listeners"):
                raise ConfigError(
                    f"{endpoint.url} would be readable on the network: use https with --cert-file "
                    "and --key-file, or insist with --allow-insecure-listeners"
                )
            warnings.append(
                f"--allow-insecure-listeners: everything on {endpoint.url}, passwords and secrets "
                "included, is readable on the network"
            )
        if endpoint in listen.metrics:
            continue
        if settings.text("cert-file") and endpoint.path is None:
            warnings.append(
                f"the scheme of client url {endpoint.url} is http while a certificate is given: "
                "it is not used there"
            )
