#!/bin/sh
# Starts a Sentinel. It writes down what it learns, in its own file, which has to outlive the container.
set -eu
umask 077

conf=/data/sentinel.conf
password=$(cat /run/secrets/redis-password)
own=$(cat /run/secrets/sentinel-password)

if [ ! -e "$conf" ]; then
  {
    cat /etc/bff/redis/sentinel.conf
    echo "sentinel announce-ip $(hostname)"
    echo "sentinel monitor bff $REPLICATION 6379 2"
    echo "sentinel down-after-milliseconds bff 3000"
    echo "sentinel failover-timeout bff 15000"
    echo "sentinel parallel-syncs bff 1"
  } > "$conf.new"
  mv "$conf.new" "$conf"
fi

# Sentinel takes its settings from a file alone, so the passwords have to be in it; always those in force.
sed '/^sentinel auth-pass /d; /^requirepass /d; /^user default /d; /^sentinel sentinel-pass /d' "$conf" > "$conf.new"
{
  echo "sentinel auth-pass bff $password"
  echo "requirepass $own"
  echo "sentinel sentinel-pass $own" # among themselves
} >> "$conf.new"
mv "$conf.new" "$conf"

exec redis-server "$conf" --sentinel
