"""What bench/markov_lm.py is made of: chain, network, methods, one peer, bands, figures."""
