"""The certificates by which the parts of a cluster know each other, and kubeconfig files."""

import base64
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

VALID_DAYS = "30"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.own = self._named("ca")

    def create(self) -> None:
        """Makes the authority itself, and the key that signs the tokens of service accounts."""
        self._folder.mkdir(parents=True, mode=0o700)
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-days", VALID_DAYS, "-subj", "/CN=csi-local-path-tests"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", str(self.own.key), "-out", str(self.own.certificate)),
        )
        _openssl("genrsa", "-out", str(self.token_key), "2048")

    @property
    def token_key(self) -> Path:
        """The key that signs the tokens of service accounts."""
        return self._folder / "service-accounts.key"

    def issue(self, name: str, subject: str, addresses: Sequence[str] = ()) -> Certificate:
        """Issues a certificate.

        Args:
            name: What its files are called.
            subject: Whom it is for, such as `/O=system:masters/CN=admin`.
            addresses: For a server, its names and addresses such as `DNS:localhost`, `IP:10.0.0.1`;
                without any it is a client's.
        """
        issued = self._named(name)
        if addresses:
            extensions = ["extendedKeyUsage=serverAuth", f"subjectAltName={','.join(addresses)}"]
        else:
            extensions = ["extendedKeyUsage=clientAuth"]
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-days", VALID_DAYS, "-subj", subject),
            *("-CA", str(self.own.certificate), "-CAkey", str(self.own.key)),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *(word for extension in extensions for word in ("-addext", extension)),
            *("-keyout", str(issued.key), "-out", str(issued.certificate)),
        )
        return issued

    def kubeconfig(self, name: str, subject: str, server: str) -> Path:
        """Issues a client's certificate, and a kubeconfig that has all of it inside."""
        issued = self.issue(name, subject)
        user = {
            "client-certificate-data": _base64(issued.certificate),
            "client-key-data": _base64(issued.key),
        }
        cluster = {"server": server, "certificate-authority-data": _base64(self.own.certificate)}
        path = self.kubeconfig_path(name)
        path.touch(mode=0o600)
        # JSON is YAML, too.
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "csi-local-path", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [
                {"name": "csi-local-path", "context": {"cluster": "csi-local-path", "user": name}}
            ],
            "current-context": "csi-local-path",
        }
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return path

    def kubeconfig_path(self, name: str) -> Path:
        """Where the kubeconfig of that name is."""
        return self._folder / f"{name}.kubeconfig"

    def _named(self, name: str) -> Certificate:
        return Certificate(self._folder / f"{name}.crt", self._folder / f"{name}.key")


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise ClusterError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
