"""Searching a database of features: rankings, exact or by faiss, and whitening."""
