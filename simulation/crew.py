"""Workers that answer messages for simulated devices: threads of this process, or processes of their own. `simulation.backend`
makes them.

A reply that fails is an error reply with the exception's type, as from a real device.
"""

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.allocator import keep_freed_memory
from common.errors import RunError
from simulation.local_grid import FIRST_NODE, Desk, Done

log = logging.getLogger("emofl.simulation")

MakeApp = Callable[[], ClientApp]
SAME = b"="
"""Stands for the content that this worker got last."""


def goes_on(message: Message) -> bool:
    """Whether it is a later step of a secure sum: the update waits in the memory of the worker that trained it."""
    return message.has_content() and "sum" in message.content


def _context(number: int, clients: int) -> Context:
    """What a device's app gets to know. Devices keep nothing in it: their state is in files of their own."""
    return Context(0, number, {"partition-id": number, "num-partitions": clients}, RecordDict(), {})


def _error(message: Message, kind: str) -> Message:
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, kind), reply_to=message)


class Threads:
    """Workers in this process; torch releases the interpreter while it computes.

    Args:
        threads: of torch, for each worker.
    """

    def __init__(self, make_app: MakeApp, clients: int, workers: int, threads: int) -> None:
        self._make_app, self._clients, self.threads = make_app, clients, threads
        self._desk = Desk(workers, goes_on)
        self._names = [f"worker-{worker}" for worker in range(workers)]
        self._workers: list[threading.Thread] = []

    def start(self, done: Done) -> None:
        """As `Crew.start`."""
        try:
            app = self._make_app()
        except Exception as error:
            raise RunError(f"The simulated devices cannot be opened: {error}") from error
        self._workers = [
            threading.Thread(target=self._work, args=(worker, app, done), name=name) for worker, name in enumerate(self._names)
        ]
        for thread in self._workers:
            thread.start()

    def hand(self, message: Message, number: int) -> None:
        """As `Crew.hand`."""
        self._desk.put(message, number)

    def stop(self) -> None:
        """As `Crew.stop`; waits for what is being answered."""
        self._desk.close()
        for thread in self._workers:
            thread.join()

    def _work(self, worker: int, app: ClientApp, done: Done) -> None:
        torch.set_num_threads(self.threads)
        while (taken := self._desk.take(worker)) is not None:
            message, number = taken
            try:
                reply = app(message=message, context=_context(number, self._clients))
            except Exception as error:
                log.exception("device %d failed", number)
                reply = _error(message, type(error).__name__)
            done(reply)


class Processes:
    """Workers in processes of their own: several cores at once, also for what Python itself computes.

    Contents travel as bytes, the one that all devices of a round get once per worker.

    Args:
        make_app: picklable.
        threads: of torch, for each worker.
    """

    def __init__(self, make_app: MakeApp, clients: int, workers: int, threads: int) -> None:
        self._arguments, self.threads = (make_app, clients, threads), threads
        self._desk = Desk(workers, goes_on)
        self._count = workers
        self._processes: list[tuple[BaseProcess, Connection]] = []
        self._threads: list[threading.Thread] = []

    def start(self, done: Done) -> None:
        """As `Crew.start`; returns at once, a worker that does not come up answers with errors."""
        context = multiprocessing.get_context("spawn")
        # Ctrl-C goes to all processes of a terminal; the workers leave it to this one.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for worker in range(self._count):
                here, there = context.Pipe()
                process = context.Process(target=serve, args=(there, *self._arguments), name=f"worker-{worker}", daemon=True)
                process.start()
                there.close()
                self._processes.append((process, here))
                self._threads.append(threading.Thread(target=self._work, args=(worker, here, done)))
        except Exception as error:
            self.stop()
            raise RunError(f"A worker process cannot be started: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for thread in self._threads:
            thread.start()

    def hand(self, message: Message, number: int) -> None:
        """As `Crew.hand`."""
        self._desk.put(message, number)

    def stop(self) -> None:
        """As `Crew.stop`: workers end, in the middle of an answer if need be; a device's files bear that."""
        self._desk.close()
        for process, _ in self._processes:
            process.terminate()
            process.join()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        for _, here in self._processes:
            here.close()

    def _work(self, worker: int, connection: Connection, done: Done) -> None:
        last: RecordDict | None = None
        while (taken := self._desk.take(worker)) is not None:
            message, number = taken
            try:
                fresh = None
                if message.content is not last:
                    fresh, last = recorddict_to_proto(message.content).SerializeToString(), message.content
                connection.send_bytes(f"{number} {message.metadata.message_type}".encode())
                connection.send_bytes(fresh or SAME)
                kind, content = connection.recv_bytes().decode(), connection.recv_bytes()
                reply = _error(message, kind) if kind else Message(_read(content), reply_to=message)
            except (OSError, EOFError, ValueError):
                last = None
                reply = _error(message, "WorkerEnded")
            done(reply)


def serve(connection: Connection, make_app: MakeApp, clients: int, threads: int) -> None:
    """A worker process: answers what comes over `connection` until it closes."""
    keep_freed_memory()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    app: ClientApp | None = None
    content = RecordDict()
    while True:
        try:
            number, kind = connection.recv_bytes().decode().split(" ", 1)
            fresh = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            app = app or make_app()
            content = content if fresh == SAME else _read(fresh)
            message = Message(content, int(number) + FIRST_NODE, kind)
            message.metadata.__dict__["_message_id"] = "simulated"
            reply = app(message=message, context=_context(int(number), clients))
            failure, found = "", recorddict_to_proto(reply.content).SerializeToString()
        except Exception as error:
            log.exception("device %s failed", number)
            failure, found = type(error).__name__, SAME
        try:
            connection.send_bytes(failure.encode())
            connection.send_bytes(found)
        except OSError:
            return


def _read(content: bytes) -> RecordDict:
    return recorddict_from_proto(ProtoRecordDict.FromString(content))
