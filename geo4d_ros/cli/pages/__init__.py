"""Pages of docs/reference/ that are made from the code: `python -m geo4d_ros.cli.pages.reference`."""
