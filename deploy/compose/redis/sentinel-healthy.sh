#!/bin/sh
# Healthy: it answers, and so many others do that they could choose a new primary.
set -eu
REDISCLI_AUTH=$(cat /run/secrets/sentinel-password)
export REDISCLI_AUTH
redis-cli --no-auth-warning -p 26379 sentinel ckquorum bff | grep -q '^OK'
