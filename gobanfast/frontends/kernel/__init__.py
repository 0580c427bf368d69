"""Drops in the Linux kernel: the bans of an engine as an XDP drop set or nftables sets; `gobanfast kernel` runs it."""
