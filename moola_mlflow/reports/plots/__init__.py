"""Matplotlib figures without pyplot: each function returns a Figure."""
