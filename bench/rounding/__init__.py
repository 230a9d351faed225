"""What bench/quantization.py is made of: errors, speed."""
