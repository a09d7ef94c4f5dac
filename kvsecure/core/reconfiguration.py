"""Reconfiguration: consensus is brought to the members that the log has declared.

Owns: when the leader begins a change, and when the two agree.
Never: declares anything; leaves a joint step, which consensus does by itself.
Follows: Raft section 6 and thesis 4.3. What is declared is a command like any other, so a leader
    that is lost half way is followed by one that goes on from the state.
Keeps: every member can tell whether they agree; only the leader does anything about it.
"""

import contextlib
from typing import final

from kvsecure.core.members import Members
from kvsecure.core.raft.configuration import Configuration
from kvsecure.core.raft.node import Node
from kvsecure.core.raft.refusals import Refusal
from kvsecure.core.raft.status import Role

__all__ = ["Reconfiguration"]


@final
class Reconfiguration:
    """Of one member's node, by the members of its state."""

    __slots__ = ("_members", "_node")

    def __init__(self, node: Node, members: Members) -> None:
        self._node = node
        self._members = members

    def step(self) -> bool:
        """Begin a change if this member leads, and one is called for and can begin.

        To be called whenever something was applied or committed, or somebody else leads: what
        cannot begin yet begins then.

        Returns:
            Whether one has begun: there is something to be written and sent.
        """
        node, members = self._node, self._members
        if node.role is not Role.LEADER or not members.voters:
            return False
        if self._agrees(node.configuration) or node.configuration.is_joint:
            return False
        # A change is under way, it is handing over, or it is too new: it is tried again.
        with contextlib.suppress(Refusal):
            node.propose_change(members.voters, members.learners)
            return True
        return False

    @property
    def is_settled(self) -> bool:
        """Whether the configuration in force is the declared one, and committed.

        A member that was removed never hears of that, so for itself it takes it to be.
        """
        node = self._node
        if self._members.is_removed(node.member):
            return True
        if not self._agrees(node.configuration):
            return False
        status = node.status()
        return status.configuration_index <= status.committed

    @property
    def is_gone(self) -> bool:
        """Whether this member was removed, and the others can do without it."""
        node = self._node
        if not self._members.is_removed(node.member) or node.member in node.configuration.members:
            return False
        status = node.status()
        return status.configuration_index <= status.committed

    def _agrees(self, configuration: Configuration) -> bool:
        members = self._members
        return (
            configuration.voters == members.voters
            and configuration.learners == members.learners
            and not configuration.is_joint
        )
