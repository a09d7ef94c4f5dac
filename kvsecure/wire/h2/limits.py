"""What one connection's peer may make a server hold or do.

Owns: the bounds of a connection and their defaults, each with what it is against.
Never: enforces them; the connection does.
"""

from typing import NamedTuple

from kvsecure.wire.h2.pings import ANY_PINGS, PingLimits

__all__ = ["Limits"]


class Limits(NamedTuple):
    """What a peer may make a connection hold or do."""

    streams_max: int
    header_list_bytes_max: int
    # Compressed, over all CONTINUATION frames (CVE-2024-27316 and kin).
    header_block_bytes_max: int = 64 * 1024
    frame_bytes_max: int = 16_384
    stream_window_bytes: int = 1024 * 1024
    connection_window_bytes: int = 16 * 1024 * 1024
    # Frames that cost us work and the peer nothing, a second (CVE-2019-9512, -9514, -9515, -9518).
    idle_frames_per_s_max: int = 1_000
    # Streams that the peer begins and takes back, a second (CVE-2023-44487).
    resets_per_s_max: int = 200
    # Streams that its mistakes make us reset, a second (CVE-2025-8671).
    mistakes_per_s_max: int = 50
    pings: PingLimits = ANY_PINGS
