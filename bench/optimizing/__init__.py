"""What bench/outer_steps.py is made of: links, the peers behind them, overhead, pairs."""
