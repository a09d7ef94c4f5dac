"""Everything that a state is made of, as one value that can be compared.

Owns: what belongs to a state.
Never: changes it, or leaves out what only a restart would show.
"""

from kvsecure.core.state import State

__all__ = ["everything"]


def everything(state: State) -> object:
    """Return the whole state, what is due to be stored included."""
    spaces = {
        space.tenant: (
            dict(space.index.heads),
            {key: bytes(run) for key, run in space.index.past.items()},
            list(space.index.live),
            list(space.index.dead),
            dict(space.retention),
            {
                lease: (
                    found.ttl_s,
                    found.deadline_ns,
                    frozenset(found.keys),
                )
                for lease, found in space.leases._leases.items()
            },
        )
        for space in state.store.spaces()
    }
    accounts = [
        (
            tenant.record.SerializeToString(deterministic=True),
            tenant.law_revision,
            [user.SerializeToString(deterministic=True) for user in tenant.users.values()],
            [role.SerializeToString(deterministic=True) for role in tenant.roles.values()],
        )
        for tenant in state.accounts.tenants()
    ]
    return (
        spaces,
        accounts,
        state.accounts.next_tenant_id,
        state.store.revision,
        state.store.compacted,
        len(state.store.slices),
        [each.encode() for each in state.store.destructions.values()],
        [(chunk.firsts.tolist(), chunk.seconds.tolist()) for chunk in state.store.timeline._chunks],
        frozenset(state.store.timeline._changed),
        frozenset(state.alarms),
        [member.SerializeToString(deterministic=True) for member in state.members],
        (state.members.voters, state.members.learners, state.members.revision),
        (frozenset(state.members._removed), state.members.keys),
        dict(state.records.fresh),
        list(state.records.fresh_rows),
        list(state.records.obsolete),
        list(state.store.rows),
        dict(state._rows),
    )
