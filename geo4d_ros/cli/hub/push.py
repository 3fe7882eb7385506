"""`geo4d push`: a checkpoint to a model hub."""

from __future__ import annotations

import argparse

from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='model directory, or the name of a shipped one')
    parser.add_argument('repository', metavar='OWNER/NAME', help='on the hub; made where there is none')
    parser.add_argument('--private', action='store_true', help='make a new repository a private one')
    parser.add_argument('--revision', metavar='BRANCH', help='default: the main one')
    parser.add_argument('--message', default='', metavar='TEXT', help='of the commit')
    parser.add_argument('--dry-run', action='store_true', help='only say what would be uploaded')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Check, upload, say where it is."""
    from geo4d_ros.generation.checkpoints.hub import check_name, files_of, push
    from geo4d_ros.generation.manifest import checkpoint_sha256
    from geo4d_ros.resources import find_checkpoint

    check_name(args.repository)
    directory = find_checkpoint(args.checkpoint)
    names = files_of(directory)
    mib = sum((directory / name).stat().st_size for name in names) / 2**20
    report = {'repository': args.repository, 'files': names, 'mib': round(mib, 2),
              'model_sha256': checkpoint_sha256(directory), 'commit': None}
    if args.dry_run:
        print('\n'.join(names))
        print(f'{len(names)} files, {mib:.1f} MiB, to {args.repository}: nothing was uploaded')
    else:
        report['commit'] = push(directory, args.repository, private=args.private, revision=args.revision,
                                message=args.message)
        print(f'{len(names)} files, {mib:.1f} MiB: {report["commit"]}')
    if args.json:
        write_report('push', report, args.json)
    return 0
