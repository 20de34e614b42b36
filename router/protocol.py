"""uvicorn's HTTP protocol with a bound on what a request's head may hold before it is whole."""

from __future__ import annotations

from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.errors import HeadersTooLarge


def bounded_http(header_bytes: int) -> type[BoundedHttp]:
    """The protocol with this bound, as uvicorn wants it: a class."""
    return type("BoundedHttp", (BoundedHttp,), {"header_bytes": header_bytes})


class BoundedHttp(HttpToolsProtocol):
    """Ends a connection whose request line and headers go on for more than ``header_bytes`` without an end:
    they would be gathered in memory for as long as they come. Heads that are whole are the application's to
    weigh."""

    header_bytes: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open_bytes = 0
        self._open = True  # a head is under way

    def on_message_begin(self) -> None:
        self._open = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._open, self._open_bytes = False, 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._open:
            self._open_bytes += len(data)
            if self._open_bytes > self.header_bytes and not self.transport.is_closing():
                self._refuse()

    def _refuse(self) -> None:
        error = HeadersTooLarge(f"the headers are longer than {self.header_bytes} bytes")
        body = orjson.dumps(error.body())
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()
