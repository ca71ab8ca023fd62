"""What a page of the book shows. Knows nothing of networks."""
