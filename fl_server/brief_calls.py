"""Calls of one message and one answer, from peers that nobody knows yet. `fl_server.device_api` serves enrolment with them.

gRPC gives such a call a place as soon as it begins, and waits for its message without an end: strangers would hold all places.
Here a handler begins with the call, takes the message when it comes, and hangs up on who is slow or has too many calls.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import common.device_api  # noqa: F401  (before grpc)

# isort: split
import grpc  # type: ignore[import-untyped]
from google.protobuf.descriptor import MethodDescriptor  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]

from fl_server.seats import Seats, host_of, network_of

Behaviour = Callable[[Any, Any], Awaitable[Any]]
"""Given the request and gRPC's context, gives the reply."""


class BriefCalls:
    """What bounds these calls, for all methods of a port together.

    Args:
        per_address: calls at a time.
        seconds: until the message must be complete.
    """

    def __init__(self, per_address: int, seconds: float) -> None:
        self._seats, self._seconds = Seats(2**31, per_address), seconds

    def handler(self, method: MethodDescriptor, behaviour: Behaviour) -> grpc.GenericRpcHandler:
        """Serves `method`, which on the wire is what its .proto says: one message, one answer."""

        async def answer(requests: Any, context: Any) -> Any:
            who = network_of(host_of(context.peer()))
            if not self._seats.take(who):
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many calls from this address at a time.")
            try:
                try:
                    async with asyncio.timeout(self._seconds):
                        request = await anext(aiter(requests), None)
                except TimeoutError:
                    await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "The request did not come in time.")
                if request is None:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The call came without a request.")
                return await behaviour(request, context)
            finally:
                self._seats.leave(who)

        rpc = grpc.stream_unary_rpc_method_handler(
            answer,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        return grpc.method_handlers_generic_handler(method.containing_service.full_name, {method.name: rpc})
