"""The command csi-local-path: arguments in, exit codes out.

Exit codes: 0 done, 1 it failed (the message says why), 2 the arguments are wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from csi import __version__, config, config_file
from csi.config_file import ConfigurationError
from csi.errors import DriverError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except DriverError as error:
        print(f"csi-local-path: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"csi-local-path: {error.strerror}{where}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="csi-local-path",
        description="A CSI driver for volumes on a node's own disks.",
        epilog="A pool is made once with 'pool create'; 'serve' then runs the driver over it.",
    )
    parser.add_argument("--version", action="version", version=f"csi-local-path {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="run the driver until it is stopped"))
    _add_place(commands.add_parser("place", help="have restores and clones made where they can be"))
    pool = commands.add_parser("pool", help="make the directory that holds volumes")
    actions = pool.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_pool_create(actions.add_parser("create", help="make a pool"))
    _add_volumes(commands.add_parser("volumes", help="list the volumes of a pool by their claims"))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs the driver until SIGTERM or SIGINT, then finishes the calls under way. Flags go "
        "over the configuration file."
    )
    parser.add_argument(
        "--config", default="", metavar="FILE", help="configuration: YAML with apiVersion and kind"
    )
    parser.add_argument(
        "--role",
        default=config.Role.NODE.value,
        choices=[role.value for role in config.Role],
        help="node (default): serve the volumes of this node; resizer: stand beside a cluster-wide "
        "external-resizer and leave growth to the nodes, without a pool or any privilege",
    )
    parser.add_argument(
        "--endpoint",
        default="",
        metavar="URL",
        help=f"socket to serve on (default: $CSI_ENDPOINT or {config.DEFAULT_ENDPOINT})",
    )
    parser.add_argument(
        "--controller-endpoint",
        default="",
        metavar="URL",
        help="serve the Controller services on a socket of their own",
    )
    parser.add_argument(
        "--node-id",
        default="",
        metavar="NAME",
        help="name of this node (default: $NODE_ID or the host's name)",
    )
    parser.add_argument(
        "--pool",
        default="",
        metavar="PATH",
        help=f"directory of the pool (default: as configured, or {config_file.DEFAULT_POOL_PATH})",
    )
    parser.add_argument(
        "--log-level", default="", choices=("debug", "info", "warning", "error"), help="how much"
    )
    parser.set_defaults(run=_serve)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs in a pod of a cluster until SIGTERM or SIGINT: gives each claim that is restored "
        "from a snapshot or cloned to the node where its source is. It needs no pool and no "
        "privilege. Without it the scheduler tries nodes at random."
    )
    parser.add_argument(
        "--config", default="", metavar="FILE", help="configuration of the driver; its name and log"
    )
    parser.add_argument(
        "--log-level", default="", choices=("debug", "info", "warning", "error"), help="how much"
    )
    parser.set_defaults(run=_place)


def _add_pool_create(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Gives a directory the mark of a pool. With --file or --device it first makes a "
        "filesystem that can share blocks, and mounts it there."
    )
    parser.add_argument("path", metavar="PATH", help="where the pool is, or is to be mounted")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--file", metavar="FILE", help="make the filesystem in this new file")
    place.add_argument("--device", metavar="DEVICE", help="make the filesystem on this empty disk")
    parser.add_argument("--size", metavar="SIZE", help="size of the file, such as 100Gi")
    parser.add_argument(
        "--filesystem",
        default="xfs",
        choices=("xfs", "btrfs"),
        help="xfs (default), or btrfs, which also holds directory volumes to their size",
    )
    parser.add_argument(
        "--if-missing", action="store_true", help="leave a pool that is there already as it is"
    )
    parser.set_defaults(run=_create_pool)


def _add_volumes(parser: argparse.ArgumentParser) -> None:
    parser.description = "Lists the volumes of a pool with the claims they belong to."
    parser.add_argument(
        "--pool",
        default=config_file.DEFAULT_POOL_PATH,
        metavar="PATH",
        help="directory of the pool",
    )
    parser.add_argument("--output", default="table", choices=("table", "json"), help="format")
    parser.set_defaults(run=_list_volumes)


def _serve(arguments: argparse.Namespace) -> int:
    from csi import footprint

    footprint.leave_out_openssl()
    with footprint.importing():
        from csi import serving

    flags = config.Flags(
        config=arguments.config,
        role=config.Role(arguments.role),
        endpoint=arguments.endpoint,
        controller_endpoint=arguments.controller_endpoint,
        node_id=arguments.node_id,
        pool=arguments.pool,
        log_level=arguments.log_level,
    )
    return serving.serve(config.load(flags))


def _place(arguments: argparse.Namespace) -> int:
    from csi.cluster.api import ApiServer
    from csi.cluster.placing import run
    from csi.observe.logs import configure_logging

    flags = config.Flags(config=arguments.config, log_level=arguments.log_level)
    configuration = config.load(flags)
    configure_logging(configuration.log_level, configuration.log_format)
    return run(ApiServer(config.cluster_address()), configuration.settings.driver_name)


def _create_pool(arguments: argparse.Namespace) -> int:
    from csi.pool import setup
    from csi.pool.mark import is_pool

    if arguments.if_missing and is_pool(arguments.path):
        print(f"{arguments.path} is a pool already")
        return 0
    if arguments.file and not arguments.size:
        raise ConfigurationError("--file needs --size")
    if arguments.size and not arguments.file:
        raise ConfigurationError("--size goes with --file: only a file is given a size")
    if arguments.file:
        size_bytes = config.parse_quantity(arguments.size, "--size")
        made = setup.create_in_file(
            arguments.path, arguments.file, size_bytes, arguments.filesystem
        )
    elif arguments.device:
        made = setup.create_on_device(arguments.path, arguments.device, arguments.filesystem)
    else:
        made = setup.create_in_directory(arguments.path)
    print(f"pool {made.uuid} made at {arguments.path}")
    if made.reflink:
        print("snapshots and clones of images share blocks here: they are quick and small")
    else:
        print("this filesystem cannot share blocks: snapshots and clones are copied (use xfs)")
    if made.directory_quota:
        print("directory volumes are held to their size here")
    else:
        print(f"directory volumes cannot be held to their size here: {made.quota_advice}")
    if made.fstab:
        print(f"to have it back after a reboot, add this line to /etc/fstab:\n{made.fstab}")
    return 0


def _list_volumes(arguments: argparse.Namespace) -> int:
    from csi import reporting
    from csi.pool.listing import list_volumes

    rows, damaged = list_volumes(arguments.pool)
    if arguments.output == "json":
        json.dump(reporting.as_data(rows, damaged), sys.stdout, indent=1)
        print()
    else:
        for line in reporting.as_table(rows):
            print(line)
    for key, reason in damaged.items():
        print(f"volumes/{key}: {reason}", file=sys.stderr)
    return 1 if damaged else 0


if __name__ == "__main__":
    sys.exit(main())
