"""Log entries: bytes that old logs are made of, and what any other bytes come to."""

import pytest
from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st

from kvsecure.core.entry import COMMANDS, DamagedEntry, Entry, decode, encode, encode_puts, envelope
from kvsecure.model.burst import PutBurst
from kvsecure.model.caller import Caller, Origin
from kvsecure.model.ids import TenantId
from kvsecure.proto import (
    auth_pb2,
    authstore_pb2,
    kv_pb2,
    lease_pb2,
    maintenance_pb2,
    state_pb2,
    tenant_pb2,
    version_pb2,
)

_CALLER = Caller(TenantId(0x10), Origin.USER, "zoë", 0x1234)
# Version 1, a command's number, tenant, origin, law revision, length and bytes of the user.
_ENVELOPE = "00000010 01 0000000000001234 0004 7a6fc3ab"
# An entry of each command as the first release wrote it; these bytes are in people's logs.
_GOLDEN: tuple[tuple[Message, str], ...] = (
    (
        kv_pb2.PutRequest(key=b"k", value=b"v", lease=5, prev_kv=True),
        "0101 E 0a016b 120176 1805 2001",
    ),
    (kv_pb2.DeleteRangeRequest(key=b"k", range_end=b"l"), "0102 E 0a016b 12016c"),
    (
        kv_pb2.TxnRequest(
            compare=[kv_pb2.Compare(target=kv_pb2.Compare.MOD, key=b"k", mod_revision=3)],
            success=[kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"k"))],
        ),
        "0103 E 0a07 1002 1a016b 3003 1205 1203 0a016b",
    ),
    (kv_pb2.CompactionRequest(revision=9, physical=True), "0104 E 0809 1001"),
    (
        state_pb2.PutBurst(
            puts=[
                kv_pb2.PutRequest(key=b"k", value=b"v"),
                kv_pb2.PutRequest(key=b"l", value=b"w"),
            ]
        ),
        "0105 E 0a06 0a016b 120176 0a06 0a016c 120177",
    ),
    (state_pb2.Clock(time_s=300), "0106 E 08ac02"),
    (
        version_pb2.RetentionSetRequest(prefix=b"p", keep_versions=3, keep_for_s=60),
        "0107 E 0a0170 1003 183c",
    ),
    (version_pb2.RetentionDeleteRequest(prefix=b"p"), "0108 E 0a0170"),
    (version_pb2.DestroyRequest(key=b"k"), "0109 E 0a016b"),
    (lease_pb2.LeaseGrantRequest(TTL=60, ID=7), "010a E 083c 1007"),
    (lease_pb2.LeaseRevokeRequest(ID=7), "010b E 0807"),
    (
        lease_pb2.LeaseCheckpointRequest(
            checkpoints=[
                lease_pb2.LeaseCheckpoint(ID=7, remaining_TTL=300),
                lease_pb2.LeaseCheckpoint(ID=8),
            ]
        ),
        "010c E 0a05 0807 10ac02 0a02 0808",
    ),
    (auth_pb2.AuthEnableRequest(), "0114 E"),
    (auth_pb2.AuthDisableRequest(), "0115 E"),
    (
        auth_pb2.AuthUserAddRequest(name="u", hashedPassword="h"),
        "0116 E 0a0175 220168",
    ),
    (auth_pb2.AuthUserDeleteRequest(name="u"), "0117 E 0a0175"),
    (
        auth_pb2.AuthUserChangePasswordRequest(name="u", hashedPassword="h"),
        "0118 E 0a0175 1a0168",
    ),
    (auth_pb2.AuthUserGrantRoleRequest(user="u", role="r"), "0119 E 0a0175 120172"),
    (auth_pb2.AuthUserRevokeRoleRequest(name="u", role="r"), "011a E 0a0175 120172"),
    (auth_pb2.AuthRoleAddRequest(name="r"), "011b E 0a0172"),
    (auth_pb2.AuthRoleDeleteRequest(role="r"), "011c E 0a0172"),
    (
        auth_pb2.AuthRoleGrantPermissionRequest(
            name="r", perm=authstore_pb2.Permission(permType=2, key=b"k", range_end=b"l")
        ),
        "011d E 0a0172 1208 0802 12016b 1a016c",
    ),
    (
        auth_pb2.AuthRoleRevokePermissionRequest(role="r", key=b"k", range_end=b"l"),
        "011e E 0a0172 12016b 1a016c",
    ),
    (
        state_pb2.VerifierUpgrade(user="u", old_hash="a", new_hash="b"),
        "011f E 0a0175 120161 1a0162",
    ),
    (maintenance_pb2.AlarmRequest(action=1, memberID=3, alarm=1), "0128 E 0801 1003 1801"),
    (state_pb2.Compare(form=1), "0129 E 0801"),
    (tenant_pb2.TenantAddRequest(name="t", root_no_password=True), "0132 E 0a0174 1801"),
    (tenant_pb2.TenantDeleteRequest(name="t"), "0133 E 0a0174"),
    (
        state_pb2.MemberAdd(
            member=state_pb2.Member(id=300, peer_urls=["u"], is_learner=True), learners_max=1
        ),
        "013c E 0a08 08ac02 1a0175 2801 1001",
    ),
    (state_pb2.MemberRemove(id=300), "013d E 08ac02"),
    (state_pb2.MemberUpdate(id=300, peer_urls=["u"]), "013e E 08ac02 120175"),
    (state_pb2.MemberPromote(id=300), "013f E 08ac02"),
    (
        state_pb2.MemberPublish(id=300, name="n", client_urls=["c"]),
        "0140 E 08ac02 12016e 1a0163",
    ),
    (state_pb2.SigningKeyAdd(member_id=300, public_key=b"k"), "0141 E 08ac02 12016b"),
    (
        state_pb2.AuditHeadTell(member_id=300, seq=7, hash=b"h", signature=b"s", time_s=9),
        "0142 E 08ac02 1007 1a0168 220173 2809",
    ),
    (state_pb2.AuditHeadMiss(member_id=300, seq=7), "0143 E 08ac02 1007"),
)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("E", _ENVELOPE))


@pytest.mark.parametrize(
    ("command", "text"), _GOLDEN, ids=[type(command).__name__ for command, _ in _GOLDEN]
)
def test_entry_is_the_bytes_it_always_was(command: Message, text: str) -> None:
    """Each command is written as it was from the first release on, and read back."""
    entry = encode(type(command), envelope(_CALLER), command.SerializeToString(deterministic=True))

    assert entry.hex() == _bytes(text).hex()
    expected = _burst_of(command) if isinstance(command, state_pb2.PutBurst) else command
    assert decode(_bytes(text)) == Entry(_CALLER, expected)


def _burst_of(stored: state_pb2.PutBurst) -> PutBurst:
    return PutBurst([(put.key, put.value) for put in stored.puts])


def test_burst_is_written_without_building_its_message() -> None:
    """The bytes of a burst's requests, put together, are the message that the log holds."""
    puts = [kv_pb2.PutRequest(key=b"k%d" % n, value=b"v" * n) for n in (1, 100, 20_000)]

    entry = encode_puts(envelope(_CALLER), [put.SerializeToString() for put in puts])

    message = state_pb2.PutBurst(puts=puts)
    assert entry == encode(type(message), envelope(_CALLER), message.SerializeToString())
    assert decode(entry).command == _burst_of(message)


def test_every_command_has_golden_bytes() -> None:
    """There is an example of every command that a log may hold."""
    assert {type(command) for command, _ in _GOLDEN} == set(COMMANDS.values())


@given(
    tenant=st.integers(0, 2**32 - 1),
    origin=st.sampled_from(Origin),
    user=st.text(max_size=60),
    law_revision=st.integers(0, 2**64 - 1),
    value=st.binary(max_size=40),
)
def test_entry_round_trips(
    tenant: int, origin: Origin, user: str, law_revision: int, value: bytes
) -> None:
    """Whoever the caller is, what is read is what was written."""
    caller = Caller(TenantId(tenant), origin, user, law_revision)
    command = kv_pb2.PutRequest(key=b"k", value=value)

    entry = encode(kv_pb2.PutRequest, envelope(caller), command.SerializeToString())

    assert decode(entry) == Entry(caller, command)


@given(st.binary(max_size=80))
@example(b"")
@example(_bytes("0101 E ff"))
@example(_bytes("0201 E"))
@example(_bytes("01ff E"))
@example(bytes.fromhex("0101 00000010 09 0000000000000000 0000"))
@example(bytes.fromhex("0101 00000010 01 0000000000000000 0001 ff"))
def test_any_bytes_are_an_entry_or_damaged(content: bytes) -> None:
    """Bytes that are no entry are damage, and never another error."""
    try:
        entry = decode(content)
    except DamagedEntry:
        return
    assert isinstance(entry.command, (PutBurst, *COMMANDS.values()))


@given(data=st.data())
def test_near_entries_are_entries_or_damaged(data: st.DataObject) -> None:
    """An entry with some bytes changed is an entry or damage, and never another error."""
    content = bytearray(_bytes(data.draw(st.sampled_from(_GOLDEN))[1]))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(content))
    except DamagedEntry:
        return


@pytest.mark.parametrize("length", range(len(_bytes("0101 E"))))
def test_entry_cut_within_its_caller_is_damaged(length: int) -> None:
    """An entry that ends within its envelope is not taken for one of a shorter name."""
    with pytest.raises(DamagedEntry):
        decode(_bytes("0101 E")[:length])
