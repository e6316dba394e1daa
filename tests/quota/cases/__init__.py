"""What is proved about project quotas; to be run in the guest, where the kernel has them."""
