"""Checks everything under infra/, the workflows and the Dockerfile offline: `make manifests`."""
