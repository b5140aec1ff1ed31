#!/bin/sh
# Has the system redirect what applications of this machine (or pod) send out to the sidecar beside them.
#
# The sidecar itself must not be redirected: it runs as a user of its own, whose connections are left alone. So are those
# to this machine and to metadata. For an init container, which needs NET_ADMIN; the sidecar needs nothing.
set -eu

usage() {
    cat <<'END'
Usage: redirect.sh [--remove]

Redirects outgoing TCP connections to the sidecar's intercept.redirect, or with --remove no longer.

  TIDEGATE_UID       the sidecar's user, by number, whose connections are left alone (default: 65532)
  TIDEGATE_REDIRECT  the port of intercept.redirect (default: 4105)
  TIDEGATE_PORTS     the ports that are redirected, with commas (default: 443)
END
}

uid="${TIDEGATE_UID:-65532}"
port="${TIDEGATE_REDIRECT:-4105}"
ports="${TIDEGATE_PORTS:-443}"
chain=TIDEGATE

# off TABLES: takes our rules away, if they are there.
off() {
    "$1" -t nat -D OUTPUT -p tcp -j "$chain" 2>/dev/null || true
    "$1" -t nat -F "$chain" 2>/dev/null || true
    "$1" -t nat -X "$chain" 2>/dev/null || true
}

# on TABLES LOCAL...: redirects all but what goes to these.
on() {
    tables=$1
    shift
    off "$tables"
    "$tables" -t nat -N "$chain"
    "$tables" -t nat -A "$chain" -m owner --uid-owner "$uid" -j RETURN
    for local in "$@"; do
        "$tables" -t nat -A "$chain" -d "$local" -j RETURN
    done
    "$tables" -t nat -A "$chain" -p tcp -m multiport --dports "$ports" -j REDIRECT --to-ports "$port"
    "$tables" -t nat -A OUTPUT -p tcp -j "$chain"
}

case "${1:-}" in
'')
    on iptables 127.0.0.0/8 169.254.0.0/16
    # Where the system has no IPv6 there is nothing to redirect.
    if ip6tables -n -t nat -L >/dev/null 2>&1; then
        on ip6tables ::1/128 fe80::/10 fd00:ec2::254/128
    fi
    ;;
--remove)
    off iptables
    if ip6tables -n -t nat -L >/dev/null 2>&1; then off ip6tables; fi
    ;;
--help | -h) usage ;;
*) usage >&2 && exit 2 ;;
esac
