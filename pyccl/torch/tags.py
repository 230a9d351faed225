"""The tags that this package's own operations have, out of the way of its callers'."""

MONITORED_BARRIER = 0xFFFFFFF0
WATCH_OF_RANK_0 = 0xFFFFFFF1
WATCH_OF_OTHERS = 0xFFFFFFF2
GRADIENTS = 0xFFFFFFF3
# From this one on, so many.
CALLBACKS = 0xFFFFFF00
CALLBACKS_COUNT = 64
