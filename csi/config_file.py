"""The configuration file as it is written: its sections, their defaults, and how it is read.

A key that is not known is refused by name. What the values mean, `csi.config` says.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import yaml

from csi.errors import InvalidRequest
from csi.model import Kind

API_VERSION = "local-path.csi.dev/v1"
KIND = "DriverConfiguration"
DEFAULT_DRIVER_NAME = "local-path.csi.dev"
DEFAULT_POOL_PATH = "/var/lib/csi-local-path"


class ConfigurationError(InvalidRequest):
    """The file or a flag is wrong; the message says which key and what is allowed."""


class _Section(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"
):
    pass


class PoolSection(_Section, frozen=True, kw_only=True):
    """A pool and how freely its room is promised."""

    name: str = "default"
    path: str = DEFAULT_POOL_PATH
    over_provisioning_ratio: float = 1.0
    reserved: str | int | None = None


class ParametersSection(_Section, frozen=True, kw_only=True):
    """What a class for inline volumes stands for; keys and values as in a StorageClass."""

    kind: Kind = Kind.IMAGE
    pool: str = ""
    fs_type: str = ""
    enforce_size: bool = True
    allocation: str = "thin"
    mkfs_options: str = ""


class InlineSection(_Section, frozen=True, kw_only=True):
    """What pods may have as inline volumes."""

    enabled: bool = True
    max_volumes: int = 64
    max_size: str | int = "10Gi"
    default_size: str | int = "1Gi"
    classes: dict[str, ParametersSection] = {}


class LogSection(_Section, frozen=True, kw_only=True):
    """How much is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class File(_Section, frozen=True, kw_only=True):
    """The whole file."""

    api_version: str
    kind: str
    driver_name: str = DEFAULT_DRIVER_NAME
    pools: tuple[PoolSection, ...] = ()
    default_fs_type: str = "ext4"
    default_size: str | int = "1Gi"
    se_linux_mount: bool = False
    max_volumes_per_node: int = 0
    inline_volumes: InlineSection = InlineSection()
    log: LogSection = LogSection()


EMPTY = File(api_version=API_VERSION, kind=KIND)
"""What an absent file stands for: the defaults."""


def read(path: str) -> File:
    """Reads the file at a path.

    Raises:
        ConfigurationError: It cannot be read, or holds something else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} does not hold a mapping with apiVersion and kind")
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(key) != expected:
            raise ConfigurationError(
                f"{path}: {key} is {document.get(key)!r} and has to be {expected!r}"
            )
    try:
        return msgspec.convert(document, File)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
