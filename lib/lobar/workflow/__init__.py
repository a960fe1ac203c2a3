"""Runs our workflow files on one machine, with the commands that the pods would run."""
