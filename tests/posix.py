"""The mark of a test that needs links, signals, pipes or limits as Linux and macOS have them."""

import sys

import pytest

only_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs links, signals or limits of POSIX")
