"""Anomaly maps: images scored and mapped in pieces, folders of maps, masks of defects."""
