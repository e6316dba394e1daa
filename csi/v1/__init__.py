"""The wire contract as Python modules, generated from proto/csi/v1/csi.proto.

Everything beside this file is written by `python proto/generate.py`; edit the proto file instead.
"""
