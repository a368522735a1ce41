"""Which weights a finished run, or its evidence, is of."""

from pathlib import Path

from rd_tf import run_directory


def model_fingerprint(directory: Path) -> str | None:
    """SHA-256 (hex) of a run's weights, from its manifest; None where no finished run is there.

    Raises:
        InputError: the manifest is damaged.
    """
    if not run_directory.is_finished_run(directory):
        return None
    return str(run_directory.load_run_manifest(directory)["model"]["fingerprint"])
