"""Programs that an asynchronous test runs beside its own clients, on loopback."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path


class Processes:
    """Programs of one test, each with its output in a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = AsyncExitStack()

    async def start(self, *words: object, **variables: str) -> asyncio.subprocess.Process:
        name = self._directory / f"{Path(str(words[0])).name}.log"
        with name.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *map(str, words), stdout=log, stderr=log, env={**os.environ, **variables}
            )
        self._stack.push_async_callback(self._end, process)
        return process

    async def run(self, *words: object, **variables: str) -> str:
        """Run a program to its end, without holding up the client."""
        process = await asyncio.create_subprocess_exec(
            *map(str, words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **variables},
        )
        output, _ = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, output.decode()
        return output.decode()

    async def end(self) -> None:
        await self._stack.aclose()

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def listening(port: int) -> None:
    """Wait until somebody listens."""
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
