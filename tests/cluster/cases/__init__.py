"""What users do with volumes, in a real Kubernetes with the driver installed.

conftest.py              the cluster, and a namespace for each test
objects.py               manifests, made in Python
namespaces.py driver.py  what tests ask of Kubernetes, and of the driver in its pods
"""
