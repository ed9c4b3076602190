"""Answers in one write. uvicorn writes head and body one after the other: two calls of the system
and two packets, where the interpreter's lock changes hands both times."""

from asyncio import Transport

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class OneWrite(Transport):
    """The transport of one answer: the head of one whose length is known waits for its body, which
    comes at once."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        super().__init__()
        self._cycle, self._transport = cycle, cycle.transport
        self._head: bytes | None = b""  # None once it was written

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See Transport."""
        # Before the answer there may be a 100 Continue, which must not wait.
        if self._head is None or not self._cycle.response_started:
            self._transport.write(data)
        elif not self._head and self._cycle.chunked_encoding is False:
            self._head = bytes(data)
        else:
            head, self._head = self._head, None
            self._transport.write(head + data)

    def close(self) -> None:
        """See Transport."""
        if self._head:  # no body will come
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        """See Transport."""
        return self._transport.is_closing()
