#!/bin/sh
# In the place of ssh: HOST COMMAND, where a host is a network namespace. FPDT_TEST_HOSTS: lines of `address namespace`.
host="$1"
shift
namespace=$(echo "$FPDT_TEST_HOSTS" | sed -n "s/^$host //p")
[ -n "$namespace" ] || { echo "ssh: could not resolve hostname $host" >&2; exit 255; }
exec ip netns exec "$namespace" /bin/sh -c "$*"
