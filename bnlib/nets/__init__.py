"""Networks in PyTorch: what Parts II to IV train and measure."""
