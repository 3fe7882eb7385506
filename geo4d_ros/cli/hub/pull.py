"""`geo4d pull`: a checkpoint from a model hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('repository', metavar='OWNER/NAME', help='on the hub, written by `geo4d push`')
    parser.add_argument('--out', type=Path, metavar='DIR', help='new directory (default: outputs/models/NAME)')
    parser.add_argument('--revision', metavar='REV', help='branch, tag or commit (default: the main branch)')
    parser.add_argument('--sha256', metavar='DIGEST', help='of the weights: others are refused')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Download, check, say how to use it."""
    from geo4d_ros.generation.checkpoints.hub import check_name, pull

    check_name(args.repository)
    out = args.out or Path('outputs/models') / args.repository.split('/')[1]
    commit, digest = pull(args.repository, out, revision=args.revision, sha256=args.sha256)
    print(f'weights {digest[:12]} of commit {commit[:12]}: use them with --checkpoint {out}')
    if args.json:
        write_report('pull', {'repository': args.repository, 'commit': commit, 'model_sha256': digest,
                              'directory': str(out)}, args.json)
    return 0
