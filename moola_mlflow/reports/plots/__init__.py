"""Matplotlib figures, drawn without pyplot: each function returns a Figure."""
