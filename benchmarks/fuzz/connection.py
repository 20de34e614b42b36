"""One client's connection: bytes out as they are, an answer in by HTTP's rules, and no more patience than stated."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class Answer:
    """An answer as it came. ``status`` 0: none did. ``whole``: it ended as HTTP has it. ``reset``: the
    connection ended under what was still being sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    late: bool = False
    reset: bool = False

    @property
    def is_stream(self) -> bool:
        return "event-stream" in self.headers.get("content-type", "")


async def asked(
    port: int, data: bytes, *, pieces: int, leaves_after: int | None, reads: int | None, seconds: float
) -> Answer:
    """Sends ``data`` and reads what comes. Who leaves, or reads a part only, gets that part."""
    answer = Answer()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)
    try:
        async with asyncio.timeout(seconds):
            await _send(writer, data if leaves_after is None else data[:leaves_after], pieces)
            if leaves_after is None or leaves_after == len(data):
                patience = seconds if leaves_after is None else 0.5
                async with asyncio.timeout(patience):
                    await _read(reader, answer, data.startswith(b"HEAD"), reads)
    except TimeoutError:
        answer.late = leaves_after is None
    except ConnectionError:
        answer.reset = True
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        pass  # what it is, the answer says: it is not whole
    finally:
        writer.transport.abort()
    return answer


async def _send(writer: asyncio.StreamWriter, data: bytes, pieces: int) -> None:
    size = max(1, -(-len(data) // pieces))
    try:
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            if pieces > 1:
                await asyncio.sleep(0.001)
    except ConnectionError:
        pass  # the proxy answered before all was sent, and may have closed


async def _read(reader: asyncio.StreamReader, answer: Answer, headless: bool, reads: int | None) -> None:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answer.status = int(head[0].split(" ")[1])
        if answer.status >= 200:
            break
    answer.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
    if headless or answer.status in (204, 304):
        answer.whole = True
    elif reads is not None:
        answer.body = await reader.read(reads)
    elif answer.headers.get("transfer-encoding") == "chunked":
        await _read_chunks(reader, answer)
    elif (length := answer.headers.get("content-length")) is not None:
        answer.body = await reader.readexactly(int(length))
        answer.whole = True
    else:
        answer.body = await reader.read()
        answer.whole = True


async def _read_chunks(reader: asyncio.StreamReader, answer: Answer) -> None:
    parts: list[bytes] = []
    try:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        answer.whole = True
    finally:
        answer.body = b"".join(parts)
