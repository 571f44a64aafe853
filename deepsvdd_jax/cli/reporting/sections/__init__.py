"""Sections of the page of a sweep, a group of them a file."""
