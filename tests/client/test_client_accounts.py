"""Users, roles and log-ins through the client, on a real server."""

from collections.abc import Callable

import pytest
from support.servers import ROOT_PASSWORD, Member

from kvsecure.client import Client, ClientError, Keys, Outcome, Secret
from kvsecure.client.roles import Permission, Right
from kvsecure.model.errors import Failure

__all__: list[str] = []

_PASSWORD = Secret.of_text("pond-Lantern-zebra-9931")


def test_user_may_do_what_a_role_permits_and_no_more(
    root: Client, as_user: Callable[[str, str], Client]
) -> None:
    """A right on a prefix opens exactly that, for exactly that verb."""
    root.users.add("web", _PASSWORD)
    root.roles.add("web-reader")
    permission = Permission(right=Right.READ, keys=Keys.prefix(b"/app/"))
    root.roles.grant("web-reader", permission)
    root.users.grant_role("web", "web-reader")
    root.kv.put(b"/app/a", b"1")
    web = as_user("web", _PASSWORD.reveal_text())

    found = web.kv.get(b"/app/a")

    assert found is not None
    assert root.users.roles_of("web") == ("web-reader",)
    assert root.roles.permissions_of("web-reader") == (permission,)
    for ask in (
        lambda: web.kv.put(b"/app/a", b"2"),
        lambda: web.kv.get(b"/ops/token"),
        web.users.list,
    ):
        with pytest.raises(ClientError) as refused:
            ask()
        assert refused.value.failure is Failure.PERMISSION_DENIED
        assert refused.value.outcome is Outcome.REFUSED


def test_revoked_permission_is_gone(root: Client, as_user: Callable[[str, str], Client]) -> None:
    """What is revoked no longer helps, and must be named as it was granted."""
    root.users.add("brief", _PASSWORD)
    root.roles.add("brief")
    root.users.grant_role("brief", "brief")
    keys = Keys.one(b"/brief")
    root.roles.grant("brief", Permission(right=Right.READWRITE, keys=keys))
    user = as_user("brief", _PASSWORD.reveal_text())
    user.kv.put(b"/brief", b"1")

    with pytest.raises(ClientError) as refused:
        root.roles.revoke("brief", Keys.prefix(b"/brief"))
    root.roles.revoke("brief", keys)

    assert refused.value.failure is Failure.PERMISSION_NOT_GRANTED
    with pytest.raises(ClientError) as denied:
        user.kv.get(b"/brief")
    assert denied.value.failure is Failure.PERMISSION_DENIED


def test_users_and_roles_come_and_go(root: Client) -> None:
    """Users and roles are listed while they exist, and each can lose the other."""
    root.users.add("passing", None)
    root.roles.add("passing")
    root.users.grant_role("passing", "passing")

    assert "passing" in root.users.list()
    assert "passing" in root.roles.list()
    root.users.revoke_role("passing", "passing")
    assert root.users.roles_of("passing") == ()
    root.users.delete("passing")
    root.roles.delete("passing")
    assert "passing" not in root.users.list()
    assert "passing" not in root.roles.list()


def test_changed_password_counts_at_once(
    root: Client, as_user: Callable[[str, str], Client]
) -> None:
    """After a change only the new password logs in."""
    root.users.add("mover", _PASSWORD)
    root.users.change_password("mover", Secret.of_text("heron-Basket-violet-5520"))

    as_user("mover", "heron-Basket-violet-5520").users.roles_of("mover")
    with pytest.raises(ClientError) as refused:
        as_user("mover", _PASSWORD.reveal_text()).users.roles_of("mover")

    assert refused.value.failure is Failure.AUTH_FAILED


@pytest.mark.parametrize("user", ["nobody-knows", "root"])
def test_wrong_credentials_are_one_error(
    member: Member, as_user: Callable[[str, str], Client], user: str
) -> None:
    """An unknown user and a wrong password are refused alike."""
    with pytest.raises(ClientError) as refused:
        as_user(user, "not the password of anybody").kv.get(b"k")

    assert refused.value.failure is Failure.AUTH_FAILED


def test_log_in_gives_a_token_that_works(root: Client, member: Member) -> None:
    """A token from one client is good for another one without the password."""
    token = root.auth.log_in("root", Secret.of_text(ROOT_PASSWORD)).token

    with Client.open(
        member.endpoint, ca_file=str(member.authority.certificate), token=token
    ) as client:
        assert "root" in client.users.list()


def test_status_of_authentication_counts_changes(root: Client) -> None:
    """The state tells whether authentication is on and moves with every change of accounts."""
    before = root.auth.status()

    root.roles.add("counted")
    after = root.auth.status()

    assert before.enabled
    assert after.auth_revision == before.auth_revision + 1


def test_authentication_is_switched(root: Client) -> None:
    """The switch turns authentication off and on again."""
    root.auth.disable()
    off = root.auth.status().enabled
    root.auth.enable()

    assert not off
    assert root.auth.status().enabled
    root.kv.put(b"k", b"v")


def test_request_without_log_in_is_refused(member: Member) -> None:
    """Where authentication is on, a client without credentials may do nothing."""
    with (
        Client.open(member.endpoint, ca_file=str(member.authority.certificate)) as client,
        pytest.raises(ClientError) as refused,
    ):
        client.kv.get(b"k")

    assert refused.value.failure is Failure.USER_EMPTY
