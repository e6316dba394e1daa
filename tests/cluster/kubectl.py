"""kubectl, run for a cluster by its kubeconfig."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError

_TIMED_OUT = 124  # as timeout(1) has it


@dataclass(frozen=True)
class Kubectl:
    """A kubectl and the cluster that it talks to."""

    program: Path
    kubeconfig: Path

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [str(self.program), "--kubeconfig", str(self.kubeconfig), *arguments]

    def try_run(
        self, *arguments: str, text_in: str | None = None, timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, whatever that is; where it takes too long, it has failed."""
        command = self.command(*arguments)
        try:
            return subprocess.run(
                command,
                input=text_in,
                stdin=subprocess.DEVNULL if text_in is None else None,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            # As a cluster answers that is only starting: who waits for it asks again.
            said = f"no answer within {timeout_s:g} s"
            return subprocess.CompletedProcess(command, _TIMED_OUT, "", said)

    def run(self, *arguments: str, text_in: str | None = None, timeout_s: float = 120.0) -> str:
        """Runs it and returns what it printed.

        Raises:
            ClusterError: It failed; the message has what it said.
        """
        done = self.try_run(*arguments, text_in=text_in, timeout_s=timeout_s)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:  # noqa: ANN401 - it is whatever the API server says
        """What `kubectl get` finds, as objects.

        Raises:
            ClusterError: It failed.
        """
        return json.loads(self.run("get", *arguments, "--output", "json"))

    def apply(self, *manifests: dict[str, Any], namespace: str = "default") -> None:
        """Applies manifests by the server's own merge, refusing fields that it does not know."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.run(
            *("apply", "--server-side", "--validate=strict"),
            *("--namespace", namespace, "--filename", "-"),
            text_in=json.dumps(listed),
        )
