#!/bin/sh
# Starts Redis. The password goes in through standard input: no argument and no variable shows it.
# With REPLICATION set, the name of the first primary, Redis is one of a group that Sentinel watches.
set -eu
umask 077

here=/etc/bff/redis
conf=$here/redis.conf
password=$(cat /run/secrets/redis-password)

if [ -n "${REPLICATION:-}" ]; then
  # Sentinel tells Redis whom to follow, and Redis writes that down: its file has to outlive the container.
  conf=/data/redis.conf
  if [ ! -e "$conf" ]; then
    {
      cat "$here/redis.conf" "$here/replication.conf"
      echo "replica-announce-ip $(hostname)"
      [ "$REPLICATION" = "$(hostname)" ] || echo "replicaof $REPLICATION 6379"
    } > "$conf.new"
    mv "$conf.new" "$conf"
  fi
  # It writes down all it knows. The password in force is the secret's, not the one of last time.
  sed '/^requirepass /d; /^masterauth /d; /^user default /d' "$conf" > "$conf.new"
  mv "$conf.new" "$conf"
fi

exec redis-server "$conf" - <<SECRET
requirepass $password
masterauth $password
SECRET
