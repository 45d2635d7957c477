"""The most memory that a process holds."""

import threading
from types import TracebackType

import psutil


class PeakRss:
    """While entered, watches this process's resident memory. `mib`: the most beyond what was there at the start."""

    mib = 0.0

    def __enter__(self) -> "PeakRss":
        self._start = psutil.Process().memory_info().rss
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._done.wait(0.005):
            self.mib = max(self.mib, (process.memory_info().rss - self._start) / 2**20)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._done.set()
        self._watcher.join()
