"""Where to listen: the rules between URLs, certificates and the network.

Owns: that nothing readable leaves the machine unless somebody insists.
Never: opens a socket.
Follows: etcd's checks of listen URLs, with their texts; differs: plaintext is for loopback only.
"""

from collections.abc import Sequence

from kvsecure.server.config.model import Listen
from kvsecure.server.config.outcome import ConfigError
from kvsecure.server.config.settings import Settings
from kvsecure.server.config.urls import Endpoint, Scheme, endpoints

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
    if any(url.startswith("unix") for url in advertised):
        raise ConfigError("--advertise-client-urls: unix sockets are not in this release")
    if not client_urls:
        raise ConfigError("--listen-client-urls must name at least one URL")
    listen = Listen(
        client=endpoints(client_urls),
        client_http=endpoints(settings.parts("listen-client-http-urls")),
        metrics=endpoints(settings.parts("listen-metrics-urls")),
        gateway=settings.switch("enable-grpc-gateway"),
    )
    _check_ports(listen.everything)
    _check_certificate(settings, listen)
    _check_plaintext(settings, listen, warnings)
    return listen, advertised


def _check_ports(everything: Sequence[Endpoint]) -> None:
    seen: dict[tuple[str, int], Endpoint] = {}
    for endpoint in everything:
        if not endpoint.port:
            continue
        other = seen.setdefault((endpoint.host, endpoint.port), endpoint)
        if other is endpoint:
            continue
        if other.scheme is not endpoint.scheme:
            raise ConfigError(
                f"http and https on one port are not in this release: {other.url}, {endpoint.url}"
            )
        raise ConfigError(f"two listeners cannot share one address: {endpoint.url}")


def _check_certificate(settings: Settings, listen: Listen) -> None:
    complete = bool(settings.text("cert-file")) and bool(settings.text("key-file"))
    if not complete and (settings.text("cert-file") or settings.text("key-file")):
        raise ConfigError("--cert-file and --key-file must be given together")
    if complete:
        return
    for endpoint in listen.client + listen.client_http:
        if endpoint.scheme is Scheme.HTTPS:
            raise ConfigError(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url "
                f"{endpoint.url} with HTTPS scheme"
            )
    for endpoint in listen.metrics:
        if endpoint.scheme is Scheme.HTTPS:
            raise ConfigError(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics "
                f"secure url {endpoint.url}"
            )


def _check_plaintext(settings: Settings, listen: Listen, warnings: list[str]) -> None:
    for endpoint in listen.everything:
        if endpoint.scheme is Scheme.HTTPS:
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
        if settings.text("cert-file"):
            warnings.append(
                f"the scheme of client url {endpoint.url} is http while a certificate is given: "
                "it is not used there"
            )
