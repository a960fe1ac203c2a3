"""Runs our workflow files on one machine, and reads how a workflow on a cluster went."""
