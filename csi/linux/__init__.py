"""The kernel, one small function a call.

Every module here has one subject and knows nothing of volumes, pools or requests: it takes
descriptors, paths and numbers, makes the system call and gives back what the kernel said. A call
that fails is an `OSError` with its errno, a program that fails is `csi.errors.ProgramFailed`.
Nothing is retried, guessed or cleaned up for the caller beyond what a docstring says, so that each
policy stands in one place above. Linux 5.12 or later on a 64-bit machine whose ioctl numbers are
the generic ones (x86-64, arm64, riscv64, s390x).
"""
