#!/usr/bin/env bash
# Who may do what, with the variables of ../site.env. Again is the same as once.
#   grant.sh site   at the site's cluster: the platform reads, MirrorMaker2 copies
#   grant.sh usdf   for the administrators of the USDF's cluster: MirrorMaker2 reads what is meant for the site
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

allow() { # principal, then what kafka-acls.sh calls operations and resources; all names are prefixes
    local principal=$1
    shift
    "${KAFKA_ACLS:-kafka-acls.sh}" --bootstrap-server "$bootstrap" --command-config "$here/admin.properties" \
        --add --force --resource-pattern-type prefixed --allow-principal "User:$principal" "$@"
}

operations() { printf -- '--operation %s ' "$@"; }

case ${1:-} in
site)
    bootstrap=$SITE_BOOTSTRAP
    topics=(--topic "$SITE_TOPICS" --topic "usdf.$SITE_TOPICS")
    allow "$READER" $(operations Read Describe) "${topics[@]}" --group drp-
    allow "$MIRROR" $(operations Create Write Describe Alter) "${topics[@]}"
    allow "$MIRROR" $(operations All) --topic mm2-
    allow "$MIRROR" $(operations Read Describe) --group usdf-mm2
    ;;
usdf)
    bootstrap=$USDF_BOOTSTRAP
    allow "$MIRROR" $(operations Read Describe DescribeConfigs) --topic "$SITE_TOPICS"
    ;;
*)
    echo "usage: $0 site|usdf" >&2
    exit 2
    ;;
esac
