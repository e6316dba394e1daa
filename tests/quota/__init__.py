"""Tests of project quotas, in a kernel of their own: few kernels of test machines have them.

`python -m tests.quota` boots Debian's User-Mode Linux, a kernel that runs as an ordinary process,
over the files of this machine, and runs the tests below `cases/` in it.
"""
