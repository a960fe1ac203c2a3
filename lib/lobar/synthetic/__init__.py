"""Synthetic chest X-rays in the format of the RSNA challenge, to run lobar without real patients."""
