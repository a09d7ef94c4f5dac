"""Greetings: a hello and its answer, on either side of a connection.

Owns: when a hello or a welcome is accepted, and what is said to one that is not.
Never: knows what is spoken afterwards.
Keeps: whoever was greeted is the member that its certificate names.
"""

from kvsecure.server.peers.channel import Channel
from kvsecure.server.peers.framing import Kind, Malformed, frame
from kvsecure.server.peers.hello import Hello, Purpose, Refusal, Welcome, agree, refusal_of
from kvsecure.server.peers.setting import Setting

__all__ = ["accept_hello", "accept_teller", "accept_welcome", "answer", "hear_refusal"]


def accept_hello(setting: Setting, channel: Channel, kind: int, payload: bytes) -> Hello | None:
    """Judge the first frame of whoever has connected; return it if it is welcome.

    It is not answered yet if it is, and refused if it is not.

    Raises:
        Malformed: It is no hello.
    """
    if kind != Kind.HELLO:
        raise Malformed("a frame came before the hello")
    hello = Hello.decode(payload)
    if hello.purpose is Purpose.MEMBERS:
        if hello.cluster_id or hello.sender or hello.recipient:
            raise Malformed("a question for the members has ids")
        doubt = setting.roster.doubt_of_name(hello.name, channel.certified)
    else:
        doubt = setting.roster.doubt_of_hello(hello, channel.certified)
    if doubt is None and agree(setting.versions, hello.versions) is None:
        doubt = Refusal.VERSION
    if doubt is None:
        return hello
    channel.refuse(doubt, f"member {hello.sender:x}")
    return None


def answer(setting: Setting, channel: Channel, hello: Hello) -> None:
    """Welcome whoever has said a hello that was accepted."""
    own = setting.roster.own
    version = agree(setting.versions, hello.versions) or setting.versions.highest
    welcome = Welcome(version, own.cluster_id, own.member_id, own.name)
    channel.write(frame(Kind.WELCOME, welcome.encode()))


def accept_welcome(
    setting: Setting, channel: Channel, member: int, kind: int, payload: bytes
) -> Welcome | None:
    """Judge the first frame of whoever was dialled; return it if it is the member's welcome.

    Raises:
        Malformed: It is neither a welcome nor a refusal.
    """
    if kind == Kind.REFUSAL:
        hear_refusal(setting, channel, member, payload)
        return None
    welcome = _welcome(kind, payload)
    doubt = setting.roster.doubt_of_welcome(welcome, member, channel.certified)
    doubt = doubt or _doubt_of_version(setting, welcome)
    if doubt is None:
        return welcome
    channel.refuse(doubt, f"member {member:x}")
    return None


def accept_teller(setting: Setting, channel: Channel, kind: int, payload: bytes) -> Welcome | None:
    """Judge the first frame of whoever was asked who the members are; return it if it is good.

    Any node of the trust domain may answer: which of them are members is what was asked.

    Raises:
        Malformed: It is neither a welcome nor a refusal.
    """
    if kind == Kind.REFUSAL:
        channel.abort(f"refused by the peer: {refusal_of(payload).words}")
        return None
    welcome = _welcome(kind, payload)
    doubt = setting.roster.doubt_of_name(welcome.name, channel.certified)
    doubt = doubt or _doubt_of_version(setting, welcome)
    if doubt is None:
        return welcome
    channel.refuse(doubt)
    return None


def hear_refusal(setting: Setting, channel: Channel, member: int, payload: bytes) -> None:
    """Take in that a member refuses us.

    Raises:
        Malformed: It does not say why.
    """
    refusal = refusal_of(payload)
    channel.abort(f"refused by the peer: {refusal.words}")
    setting.on_refused_by(member, refusal)


def _welcome(kind: int, payload: bytes) -> Welcome:
    """Return what a frame says that is no refusal.

    Raises:
        Malformed: It is no welcome.
    """
    if kind != Kind.WELCOME:
        raise Malformed("a frame came before the welcome")
    return Welcome.decode(payload)


def _doubt_of_version(setting: Setting, welcome: Welcome) -> Refusal | None:
    spoken = setting.versions
    return None if spoken.lowest <= welcome.version <= spoken.highest else Refusal.VERSION
