"""The promise of the product: what is given away is never given away twice."""
