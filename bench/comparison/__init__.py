"""What bench/collectives.py is made of: cases, libraries, one rank, one launch, limits, tables."""
