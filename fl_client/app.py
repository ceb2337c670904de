"""The ClientApp, the same in simulation and deployment: decodes a request, lets the device answer, encodes the reply."""

import logging
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common.errors import ReplyError
from common.messages import Refusal, TrainReply, decode_request, decode_sum, encode_reply, encode_sum
from fl_client.device import Device, answer_safely

log = logging.getLogger("emofl.client")


def build_client_app(open_device: Callable[[Context], Device]) -> ClientApp:
    """A ClientApp that answers `train` messages and no others: requests for a round, and the steps of its secure sum.

    Args:
        open_device: the device that a Flower context stands for: the one on this machine, or one of a simulation's.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        try:
            try:
                if "sum" in message.content:
                    header, content = decode_sum(message.content)
                    return Message(encode_sum(*open_device(context).add_up(header, content)), reply_to=message)
                request, weights = decode_request(message.content)
            except ReplyError as error:
                log.error("A message is refused (bad-request): %s", error)
                return _refusal(message, "bad-request")
            reply, update = answer_safely(open_device(context), request, weights)
            return Message(encode_reply(reply, update, request.upload), reply_to=message)
        except Exception:
            # Flower would send the text of whatever is raised here to the server.
            log.exception("no answer to a message")
            return _refusal(message, "failed")

    return app


def _refusal(message: Message, reason: Refusal) -> Message:
    return Message(encode_reply(TrainReply(run="", round=0, status="refused", reason=reason)), reply_to=message)
