"""What bench/state.py is made of: hashing, peers, copying, links, tables."""
