"""Where a command goes and as whom: the token of a context is never sent astray."""

import dataclasses

import pytest

from kvsecure.cli.context import Context
from kvsecure.cli.invocation import Chosen, Target, resolve
from kvsecure.model.secret import Secret

__all__: list[str] = []

_NOW_S = 1_000
_TOKEN = Secret(b"token")
_BY_TOKEN = Context(
    endpoints=("a:1",), cacert="/ca", user="web", tenant="acme", token=_TOKEN, token_expiry_s=2_000
)
_BY_CERT = Context(endpoints=("a:1",), cacert="/ca", user="root", cert="/r.crt", key="/r.key")


def _resolve(context: Context, **chosen: object) -> Target:
    return resolve(Chosen(**chosen), context, now_s=_NOW_S)  # type: ignore[arg-type]  # by name


def test_context_alone_is_used_whole() -> None:
    """Without options everything comes from the context."""
    target = _resolve(_BY_TOKEN)

    assert (target.endpoints, target.cacert) == (("a:1",), "/ca")
    assert (target.user, target.tenant, target.token) == ("web", "acme", _TOKEN)
    assert not target.asks_password


def test_context_with_certificate_needs_no_password() -> None:
    """A context with a certificate works by it."""
    target = _resolve(_BY_CERT)

    assert (target.cert, target.key, target.token) == ("/r.crt", "/r.key", None)
    assert not target.asks_password


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        ({}, True),
        ({"user": "web"}, True),
        ({"user": "web", "tenant": "acme"}, True),
        ({"endpoints": ("a:1",)}, True),
        # Another address whose server the context's own authority must have certified.
        ({"endpoints": ("b:1",)}, True),
        ({"endpoints": ("b:1",), "cacert": "/ca"}, True),
        ({"endpoints": ("b:1",), "cacert": "/other"}, False),
        ({"cacert": "/other"}, False),
        ({"endpoints": ("http://b:1",)}, False),
        ({"endpoints": ("b:1", "http://c:1")}, False),
        ({"user": "ops"}, False),
        ({"tenant": "other"}, False),
        ({"tenant": "default"}, False),
        ({"cert": "/web.crt", "key": "/web.key"}, False),
    ],
)
def test_token_goes_only_where_the_context_vouches(
    *, chosen: dict[str, object], sent: bool
) -> None:
    """The token is sent as the context's user, to servers that its authority certified."""
    assert (_resolve(_BY_TOKEN, **chosen).token == _TOKEN) is sent


def test_token_without_an_authority_stays_at_its_endpoints() -> None:
    """The public authorities certify everybody, so they vouch for nobody."""
    context = dataclasses.replace(_BY_TOKEN, cacert="")

    assert _resolve(context).token == _TOKEN
    assert _resolve(context, endpoints=("b:1",)).token is None


def test_other_user_does_not_use_the_contexts_certificate() -> None:
    """A certificate belongs to one user; another one must prove themselves."""
    target = _resolve(_BY_CERT, user="web")

    assert (target.user, target.cert, target.key) == ("web", "", "")
    assert target.asks_password


def test_other_user_with_a_password_file_is_not_asked() -> None:
    """A password file is proof enough."""
    target = _resolve(_BY_CERT, user="web", password_file="/pw")

    assert not target.asks_password


def test_other_certificate_makes_another_user() -> None:
    """With a certificate of one's own the context's user does not count."""
    target = _resolve(_BY_TOKEN, cert="/web.crt", key="/web.key")

    assert (target.user, target.tenant, target.cert) == ("", "", "/web.crt")
    assert not target.asks_password


def test_same_certificate_changes_nothing() -> None:
    """Naming the context's own certificate is naming its user."""
    target = _resolve(_BY_CERT, cert="/r.crt", key="/r.key")

    assert (target.user, target.cert) == ("root", "/r.crt")


def test_ended_token_gives_way_to_the_certificate() -> None:
    """A token that has ended would make a good certificate useless."""
    context = dataclasses.replace(_BY_CERT, token=_TOKEN, token_expiry_s=_NOW_S)

    assert _resolve(context).token is None
    assert _resolve(dataclasses.replace(context, token_expiry_s=_NOW_S + 1)).token == _TOKEN
    assert _resolve(dataclasses.replace(context, token_expiry_s=0)).token == _TOKEN


def test_ended_token_alone_is_still_sent() -> None:
    """Without a certificate the server shall say that the log-in has ended."""
    assert _resolve(dataclasses.replace(_BY_TOKEN, token_expiry_s=1)).token == _TOKEN


def test_default_tenant_is_not_written() -> None:
    """The label of the default tenant means no tenant."""
    assert _resolve(Context(), user="web", tenant="default").tenant == ""
