#!/bin/sh
# In the place of ssh: HOST COMMAND, where every host is this one.
host="$1"
shift
[ "$host" != unreachable ] || { echo "ssh: connect to host $host port 22: No route to host" >&2; exit 255; }
exec /bin/sh -c "$*"
