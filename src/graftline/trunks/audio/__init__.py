"""Trunks of sound: transformers' own models of speech, from the waveform on."""
