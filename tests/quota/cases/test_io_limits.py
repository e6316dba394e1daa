"""I/O limits by version 2 of control groups, which the guest has: the contract's own tests again.

The machines that the other tests run on may have version 1.
"""

from pathlib import Path

from tests.contract import test_throttling as contract
from tests.pod_cgroups import io_hierarchy

pod = contract.pod
systemd_pod = contract.systemd_pod


def test_the_guest_has_version_2() -> None:
    assert io_hierarchy() == (Path("/sys/fs/cgroup"), 2)


test_writes_obey = contract.test_writes_obey_and_follow_a_change_while_they_run
test_reads_obey = contract.test_reads_obey
test_operations_obey = contract.test_operations_obey_on_a_raw_block_device
test_groups_of_systemd = contract.test_groups_that_systemd_makes_are_found_too
test_two_pods_are_limited_each = contract.test_two_pods_are_limited_each
test_a_restart = contract.test_limits_are_in_force_again_after_a_restart
test_a_pod_that_lets_go_keeps_no_rule = contract.test_a_pod_that_lets_go_keeps_no_rule
