"""What the chapters derive, as small NumPy functions: one module for each chapter that has a theory, named as it."""
