"""Trunks that are whole detectors: public models of the DETR family."""
