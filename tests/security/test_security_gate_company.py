"""The gate of a member that has others: what it may not have heard of yet."""

import asyncio

from security.lab import Asked, World

from kvsecure.proto import auth_pb2, kv_pb2

_PUT = kv_pb2.PutRequest(key=b"/app/k", value=b"v")


def test_right_that_is_on_its_way_is_waited_for(world: World) -> None:
    """A command is not refused for what another member was told before it was asked for."""
    world.user("web")
    world.engine.is_alone = False
    asked = world.ask(_PUT, world.peer("web"))
    world.role("app", b"/app/", b"/app0")
    world.system(auth_pb2.AuthUserGrantRoleRequest(user="web", role="app"))
    assert asked.why == ""

    world.engine.catch_up()
    world.turn.end()
    world.turn.end()

    assert asked.body is not None
    assert world.engine.applied == [_PUT]


def test_refusal_is_final_once_the_state_is_the_newest(world: World) -> None:
    """Who has no right is refused when the member has caught up, and on the record."""
    world.user("web")
    world.engine.is_alone = False
    asked = world.ask(_PUT, world.peer("web"))

    world.engine.catch_up()
    world.turn.end()

    assert asked.why == "PERMISSION_DENIED"
    assert not world.engine.applied


def test_what_is_allowed_does_not_wait(world: World) -> None:
    """A command that may be goes to the log at once: whether it still may is decided there."""
    world.engine.is_alone = False

    asked = world.ask(_PUT)
    world.turn.end()

    assert asked.body is not None
    assert not world.engine.readers


def test_member_that_cannot_catch_up_neither_allows_nor_denies(world: World) -> None:
    """Where nobody leads, who would be refused is told that it took too long, and a log-in too."""
    world.user("web")
    world.engine.is_alone = False
    denied = world.ask(_PUT, world.peer("web"))
    log_in = Asked(world.turn, world.peer(), b"")

    async def act() -> None:
        request = auth_pb2.AuthenticateRequest(name="root", password="wrong")
        logging_in = asyncio.ensure_future(world.gate.log_in(log_in, request))
        await asyncio.sleep(0)
        world.engine.give_up()
        await logging_in

    asyncio.run(act())
    world.turn.end()

    assert denied.why == log_in.why == "TIMEOUT"
    assert not world.gate.auth_failures
