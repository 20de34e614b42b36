"""Logs of other systems, imported as history that was never audited: it may be learnt from, and tells nothing else."""
