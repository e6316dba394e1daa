"""A real Kubernetes of any number of nodes on one Linux machine, for the tests.

`python -m tests.cluster up` starts it and `down` takes all of it away; tests use `Cluster`.

    versions.py build.py         what is pinned, and the programs compiled from it
    archives.py images.py        container images of those programs, without a registry
    base.py driver_image.py      the driver's own image, built from the repository's Dockerfile
    machine.py processes.py      a machine: namespaces, and the programs that run in them
    network.py cgroups.py        what joins the machines, and what their pods are counted in
    pools.py loops.py            the filesystems that a node's volumes lie on, their loop devices
    plane.py certificates.py     the control plane, and how its parts know each other
    node.py configuration.py     a node with its kubelet
    cluster.py leftovers.py      all of it together, and none of it afterwards
    kubectl.py installation.py   what tests do with it
    parts                        go.mod files that pin; stand-ins for what they cannot

Nothing about a running cluster is written down that the kernel can be asked for, so that a cluster
whose starter crashed is taken away as well as any other.
"""
