"""grpc.reflection: which services there are, and the descriptors of what they speak.

Owns: looking up files by name and by what they define.
Never: needs an identity; tells more than the `.proto` files, which are public.
Follows: the gRPC server reflection protocol, v1; v1alpha is the same on the wire. etcd has none.
"""

from collections.abc import Iterable
from typing import Final, final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from kvsecure.api.services import Receiver, StreamCall
from kvsecure.model.errors import Code
from kvsecure.proto import reflection_pb2
from kvsecure.proto.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

__all__ = ["Catalogue", "reflect"]

# Symbols that are asked about are repeated in the answer; a name is not longer.
_NAME_CHARACTERS_MAX: Final = 512


@final
class Catalogue:
    """What can be asked about: the files of some services, and the files that these import."""

    def __init__(self, services: Iterable[str]) -> None:
        """Collect the files.

        Args:
            services: Full names; one without a descriptor is left out.
        """
        self._pool = descriptor_pool.Default()
        self._files: dict[str, FileDescriptor] = {}
        self.services: list[str] = []
        for name in sorted(services):
            try:
                self._add(self._pool.FindServiceByName(name).file)
            except KeyError:
                continue
            self.services.append(name)

    def file(self, name: str) -> list[bytes]:
        """Return a file and all that it imports, directly or not, encoded.

        Raises:
            KeyError: It is not one of these.
        """
        found: dict[str, FileDescriptor] = {}
        waiting = [self._files[name]]
        while waiting:
            file = waiting.pop()
            if file.name not in found:
                found[file.name] = file
                waiting += file.dependencies
        return [file.serialized_pb for file in found.values()]

    def defining(self, symbol: str) -> list[bytes]:
        """Return the file that defines a service, a method, a message, a field or an enum.

        Raises:
            KeyError: None of these does.
        """
        return self.file(self._pool.FindFileContainingSymbol(symbol).name)

    def has_message(self, name: str) -> bool:
        """Tell whether a message is defined in one of the files."""
        try:
            return self._pool.FindMessageTypeByName(name).file.name in self._files
        except KeyError:
            return False

    def _add(self, file: FileDescriptor) -> None:
        if file.name not in self._files:
            self._files[file.name] = file
            for imported in file.dependencies:
                self._add(imported)


def reflect(call: StreamCall, catalogue: Catalogue) -> Receiver:
    """Answer each question of one stream."""
    return _Reflection(call, catalogue)


@final
class _Reflection:
    """One stream."""

    __slots__ = ("_call", "_catalogue")

    def __init__(self, call: StreamCall, catalogue: Catalogue) -> None:
        self._call = call
        self._catalogue = catalogue

    def received(self, message: ServerReflectionRequest) -> None:
        """Answer one question; the answer repeats it."""
        answer = ServerReflectionResponse(valid_host=message.host, original_request=message)
        kind = message.WhichOneof("message_request")
        asked = "" if kind is None else str(getattr(message, kind))
        if kind is None or len(asked) + len(message.host) > _NAME_CHARACTERS_MAX:
            answer.ClearField("original_request")
            answer.ClearField("valid_host")
            _refuse(answer, Code.INVALID_ARGUMENT, "a question of no kind known here")
        else:
            self._answer(message, kind, answer)
        self._call.send(answer.SerializeToString())

    def half_closed(self) -> None:
        """Everything is answered at once: the stream is over."""
        self._call.finish()

    def drained(self) -> None:
        """Nothing is held back."""

    def closed(self) -> None:
        """There is nothing to let go of."""

    def _answer(
        self, message: ServerReflectionRequest, kind: str, answer: ServerReflectionResponse
    ) -> None:
        catalogue = self._catalogue
        try:
            match kind:
                case "list_services":
                    for name in catalogue.services:
                        answer.list_services_response.service.add(name=name)
                case "file_by_filename":
                    _give(answer, catalogue.file(message.file_by_filename))
                case "file_containing_symbol":
                    _give(answer, catalogue.defining(message.file_containing_symbol))
                case "all_extension_numbers_of_type" if catalogue.has_message(
                    message.all_extension_numbers_of_type
                ):
                    # proto3 has no extensions.
                    name = message.all_extension_numbers_of_type
                    answer.all_extension_numbers_response.base_type_name = name
                case _:
                    _refuse(answer, Code.NOT_FOUND, "there are no extensions")
        except KeyError:
            _refuse(answer, Code.NOT_FOUND, "not found")


def _give(answer: ServerReflectionResponse, files: list[bytes]) -> None:
    answer.file_descriptor_response.file_descriptor_proto.extend(files)


def _refuse(answer: ServerReflectionResponse, code: Code, text: str) -> None:
    answer.error_response.CopyFrom(
        reflection_pb2.ErrorResponse(error_code=code.value, error_message=text)
    )
