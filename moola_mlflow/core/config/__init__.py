"""The configuration.

``base`` holds what sections have in common, one module for each room its sections, ``commands`` the sections of each
command, and ``presets`` the way from a preset and the command line to a configuration.
"""
