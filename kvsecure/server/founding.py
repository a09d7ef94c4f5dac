"""Founding: what a new cluster's accounts begin with, before anybody can connect.

Owns: the root user, the policy bundle, and enabling authentication, all in one entry batch.
Never: runs on a cluster that has accounts; nobody can be first to a door that is not open yet.
Follows: security.md A14 and etcd-surface B.2 (bootstrap race).
"""

from pathlib import Path

from google.protobuf.message import Message

from kvsecure.bundled import resource
from kvsecure.core.accounts import ROOT
from kvsecure.crypto.passwords import hash_password
from kvsecure.model.errors import Refused
from kvsecure.model.secret import Secret
from kvsecure.pki.files import UnsafeFile, read_private
from kvsecure.proto import auth_pb2
from kvsecure.security.password_policy import PasswordPolicy
from kvsecure.security.policy import BundleError, commands_of
from kvsecure.server.config.model import Compat, PolicyName, ServerConfig
from kvsecure.storage.files import StorageError

__all__ = ["founding_commands", "must_be_founded"]


def must_be_founded(config: ServerConfig) -> bool:
    """Tell whether nothing may be served before there are accounts."""
    return config.compat is not Compat.ETCD or (
        config.security.initial_root_password_file is not None
    )


def founding_commands(config: ServerConfig, policy: PasswordPolicy) -> list[Message]:
    """Return the commands that found a new cluster, in order.

    Raises:
        StorageError: A file that is needed is missing or not fit; the text says which and why.
    """
    password_file = config.security.initial_root_password_file
    if password_file is None:
        if config.compat is Compat.ETCD:
            # etcd starts without authentication and without accounts.
            return []
        raise StorageError(
            "a new cluster needs --initial-root-password-file FILE: authentication is on from the "
            "first moment. (--compat etcd starts like etcd, without it.)"
        )
    verifier = hash_password(_root_password(password_file, policy))
    return [
        *_bundle(config),
        auth_pb2.AuthUserAddRequest(name=ROOT, hashedPassword=verifier),
        auth_pb2.AuthRoleAddRequest(name=ROOT),
        auth_pb2.AuthUserGrantRoleRequest(user=ROOT, role=ROOT),
        auth_pb2.AuthEnableRequest(),
    ]


def _root_password(path: Path, policy: PasswordPolicy) -> Secret:
    try:
        content = read_private(path)
        password = Secret(content.reveal().rstrip(b"\r\n"))
        policy.check(password, ROOT)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None
    except (UnsafeFile, Refused) as error:
        raise StorageError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise StorageError(f"{path}: a password is text in UTF-8") from None
    return password


def _bundle(config: ServerConfig) -> list[Message]:
    chosen = config.security.initial_policy
    if chosen is PolicyName.NONE:
        return []
    path = resource("policies", "default.yaml") if chosen is PolicyName.DEFAULT else chosen.path
    try:
        return commands_of(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from None
    except BundleError as error:
        raise StorageError(f"{path}: {error}") from None
