"""Segmentation data: masks in every layout."""
