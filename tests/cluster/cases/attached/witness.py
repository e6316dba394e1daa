"""What shows that volumes outlive the driver's installation."""

from dataclasses import dataclass

from tests.cluster.cases.namespaces import Namespace


@dataclass(frozen=True)
class Witness:
    """A pod with a volume and a snapshot, which are there since before the driver was taken out.

    Attributes:
        namespace: Where the pod, the claim and the snapshot are, all called `witness`.
        written_meanwhile: What the pod has added to its file while there was no driver.
    """

    namespace: Namespace
    written_meanwhile: str
