#!/bin/sh
# Healthy: it answers, has loaded its data and, as a replica, follows its primary.
set -eu
REDISCLI_AUTH=$(cat /run/secrets/redis-password)
export REDISCLI_AUTH
redis-cli --no-auth-warning info replication | grep -q -e '^role:master' -e '^master_link_status:up'
