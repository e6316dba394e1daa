"""The configuration: one versioned file and a few flags; the only reader of file and environment.

The file says what is the same on every node, the flags what differs between them. An unknown key
is an error that names it, so that a typing mistake never passes for a default.
"""

from __future__ import annotations

import enum
import os
import re
import socket
from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from csi import config_file
from csi.config_file import ConfigurationError, File, ParametersSection, PoolSection
from csi.errors import InvalidRequest, UnsupportedRequest
from csi.mkfs_options import parse_mkfs_options
from csi.model import EphemeralSettings, Kind, Parameters, Settings
from csi.quantity import parse_size

DEFAULT_ENDPOINT = "unix:///run/csi-local-path/csi.sock"

_FILESYSTEMS = ("ext4", "xfs", "btrfs")
_DRIVER_NAME = re.compile(r"[a-zA-Z]([a-zA-Z0-9.-]{0,61}[a-zA-Z])?", re.ASCII)
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)


class PoolConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """A pool to open; sizes are in bytes."""

    name: str
    path: str
    ratio: float
    reserved_bytes: int | None


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is configured, checked."""

    role: Role
    settings: Settings
    pools: tuple[PoolConfiguration, ...]
    endpoint: str
    controller_endpoint: str
    log_level: str
    log_format: Literal["json", "text"]


class Role(enum.StrEnum):
    """What a process of the driver is for."""

    NODE = "node"
    RESIZER = "resizer"


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says; empty means not said."""

    config: str = ""
    role: Role = Role.NODE
    endpoint: str = ""
    controller_endpoint: str = ""
    node_id: str = ""
    pool: str = ""
    log_level: str = ""


def load(flags: Flags, environment: Mapping[str, str] = os.environ) -> Configuration:
    """Reads the file that the flags name, if any, and puts flags and environment over it.

    Raises:
        ConfigurationError: Something in them is wrong.
    """
    file = config_file.read(flags.config) if flags.config else config_file.EMPTY
    node_id = flags.node_id or environment.get("NODE_ID", "") or socket.gethostname()
    pools = _pools(file.pools, flags.pool)
    settings = Settings(
        driver_name=_driver_name(file.driver_name),
        node_id=node_id,
        topology={f"{file.driver_name}/node": topology_value(node_id)},
        max_volumes=_at_least(0, file.max_volumes_per_node, "maxVolumesPerNode"),
        default_fs_type=_one_of(file.default_fs_type, _FILESYSTEMS, "defaultFsType"),
        default_size_bytes=_bytes(file.default_size, "defaultSize"),
        selinux_mount=file.se_linux_mount,
        ephemeral=_inline(file, {pool.name for pool in pools}),
    )
    endpoint = flags.endpoint or environment.get("CSI_ENDPOINT", "") or DEFAULT_ENDPOINT
    return Configuration(
        role=flags.role,
        settings=settings,
        pools=pools,
        endpoint=endpoint,
        controller_endpoint=flags.controller_endpoint,
        log_level=_one_of(
            flags.log_level or file.log.level, ("debug", "info", "warning", "error"), "log.level"
        ),
        log_format=file.log.format,
    )


def parse_quantity(value: str | int, field: str) -> int:
    """Turns a size such as 10Gi, 500M or a number of bytes into bytes.

    Raises:
        ConfigurationError: It is none; `field` names it in the message.
    """
    try:
        return parse_size(str(value), field)
    except InvalidRequest as error:
        raise ConfigurationError(str(error)) from error


def cluster_address(environment: Mapping[str, str] = os.environ) -> str:
    """Returns where the API server of the cluster is that this process runs in as a pod.

    Raises:
        ConfigurationError: It does not run in a pod.
    """
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise ConfigurationError(
            "KUBERNETES_SERVICE_HOST and _PORT are not set: this is to run in a pod of the cluster"
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def topology_value(node_id: str) -> str:
    """Returns a node's id as a label value; one that is too long for that is shortened."""
    if _LABEL_VALUE.fullmatch(node_id):
        return node_id
    import hashlib  # it is seldom needed, and loads OpenSSL where that is not left out

    digest = hashlib.sha256(node_id.encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9.-]", "-", node_id)[:40].strip("-.")
    return f"{readable}-{digest}" if readable else digest


def _pools(sections: tuple[PoolSection, ...], path: str) -> tuple[PoolConfiguration, ...]:
    if path and len(sections) > 1:
        raise ConfigurationError("--pool names one pool, and the configuration has several")
    sections = sections or (PoolSection(),)
    if path:
        sections = (msgspec.structs.replace(sections[0], path=path),)
    names = [section.name for section in sections]
    for name in names:
        if not _LABEL_VALUE.fullmatch(name):
            raise ConfigurationError(f"pools: {name!r} is no name for a pool; use letters and -")
        if names.count(name) > 1:
            raise ConfigurationError(f"pools: two pools are called {name!r}")
    return tuple(
        PoolConfiguration(
            name=section.name,
            path=section.path,
            ratio=_ratio(section),
            reserved_bytes=(
                None
                if section.reserved is None
                else parse_quantity(section.reserved, f"pools[{section.name}].reserved")
            ),
        )
        for section in sections
    )


def _ratio(section: PoolSection) -> float:
    ratio = section.over_provisioning_ratio
    if not 0 < ratio <= 1000:
        raise ConfigurationError(
            f"pools[{section.name}].overProvisioningRatio: {ratio} has to be above 0, at most 1000"
        )
    return ratio


def _inline(file: File, pools: Collection[str]) -> EphemeralSettings:
    section = file.inline_volumes
    max_size_bytes = _bytes(section.max_size, "inlineVolumes.maxSize")
    default_size_bytes = _bytes(section.default_size, "inlineVolumes.defaultSize")
    if default_size_bytes > max_size_bytes:
        raise ConfigurationError("inlineVolumes: defaultSize is larger than maxSize allows")
    return EphemeralSettings(
        enabled=section.enabled,
        max_volumes=_at_least(0, section.max_volumes, "inlineVolumes.maxVolumes"),
        max_size_bytes=max_size_bytes,
        default_size_bytes=default_size_bytes,
        classes={
            name: _inline_class(name, parameters, pools, file)
            for name, parameters in section.classes.items()
        },
    )


def _inline_class(
    name: str, section: ParametersSection, pools: Collection[str], file: File
) -> Parameters:
    where = f"inlineVolumes: class {name!r}"
    if section.pool:
        _one_of(section.pool, tuple(pools), f"{where}: pool")
    if section.fs_type:
        _one_of(section.fs_type, _FILESYSTEMS, f"{where}: fsType")
    allocation = _one_of(section.allocation, ("thin", "thick"), f"{where}: allocation")
    if section.kind is Kind.DIRECTORY and file.se_linux_mount:
        raise ConfigurationError(f"{where}: kind directory cannot be served with seLinuxMount")
    _check_mkfs_options(section, section.fs_type or file.default_fs_type, where)
    return Parameters(
        kind=section.kind,
        pool=section.pool,
        fs_type=section.fs_type,
        enforce_size=section.enforce_size,
        thick=allocation == "thick",
        mkfs_options=" ".join(section.mkfs_options.split()),
    )


def _check_mkfs_options(section: ParametersSection, fs_type: str, where: str) -> None:
    """Checks what would otherwise be told to a pod's author, who cannot mend it."""
    if section.mkfs_options and section.kind is Kind.DIRECTORY:
        raise ConfigurationError(f"{where}: mkfsOptions is for kind image")
    try:
        parse_mkfs_options(section.mkfs_options, fs_type, f"{where}: mkfsOptions")
    except UnsupportedRequest as error:
        raise ConfigurationError(str(error)) from error


def _driver_name(name: str) -> str:
    if not _DRIVER_NAME.fullmatch(name):
        raise ConfigurationError(
            f"driverName: {name!r} has to be like a domain name, at most 63 characters, beginning "
            "and ending with a letter"
        )
    return name


def _bytes(value: str | int, field: str) -> int:
    return parse_quantity(value, field)


def _at_least(least: int, value: int, field: str) -> int:
    if value < least:
        raise ConfigurationError(f"{field}: {value} has to be {least} or more")
    return value


def _one_of(value: str, allowed: tuple[str, ...], field: str) -> str:
    if value not in allowed:
        raise ConfigurationError(f"{field}: {value!r} has to be one of {', '.join(allowed)}")
    return value
