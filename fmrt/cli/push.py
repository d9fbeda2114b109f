"""``fmrt push``: a bundle onto the Hugging Face hub."""

from __future__ import annotations

import argparse

from fmrt.cli._arguments import Subparsers
from fmrt.cli._say import show
from fmrt.cli._status import DONE


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "push",
        help="publish a bundle on the Hugging Face hub",
        description="Compare every file of a bundle with its hash, upload them to a repository of "
        "the hub in one commit, and print its URL. Run again, it goes on where it broke off. Log "
        "in with hf auth login, or set HF_TOKEN.",
    )
    parser.set_defaults(run=run, needs="fmrt.bundle.push")
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory")
    parser.add_argument(
        "repository", metavar="ORG/NAME", help="of the hub; made where it is not there yet"
    )
    parser.add_argument(
        "--private", action="store_true", help="make the repository, where it is new, a private one"
    )
    parser.add_argument("--revision", metavar="BRANCH", help="the branch (default: the main one)")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")


def run(args: argparse.Namespace) -> int:
    """Push, and print the URL and what to do next."""
    from fmrt.bundle.push import push_bundle

    url = push_bundle(
        args.bundle,
        args.repository,
        private=args.private,
        revision=args.revision,
        message=args.message,
    )
    print(url, flush=True)
    show(args, f"\nnext: fmrt embed {args.repository} texts.txt -o vectors.npy")
    return DONE
