"""What all tests share."""

from __future__ import annotations

import signal

# A shell starts what runs in its background with Ctrl-C ignored, and processes inherit that. Some
# tests interrupt processes of their own.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
