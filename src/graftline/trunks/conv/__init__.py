"""Convolutional trunks, for images."""
