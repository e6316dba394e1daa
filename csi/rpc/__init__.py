"""The wire: protobuf in, values of `csi.model` out, and back; nothing is decided here."""
