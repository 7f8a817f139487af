#!/bin/sh
# Makes the secrets of the compose files, and .env. What is there already is kept. No Python needed.
set -eu
umask 077

root=$(cd "$(dirname "$0")/../.." && pwd)
secrets=$root/deploy/compose/secrets
made=0

random() { # 32 bytes, base64url without padding: no character of it needs quoting, in a URL or elsewhere
  head -c 32 /dev/urandom | base64 | tr -d '=\n' | tr '+/' '-_'
}

put() { # NAME VALUE
  printf '%s\n' "$2" > "$secrets/$1.new"
  # Readable, since the programs in the containers are not you; the folder lets nobody else of this machine in.
  chmod 0644 "$secrets/$1.new"
  mv -f "$secrets/$1.new" "$secrets/$1"
  echo "made deploy/compose/secrets/$1"
  made=1
}

keep() { # NAME VALUE: what is there already stays
  [ -e "$secrets/$1" ] || put "$1" "$2"
}

follow() { # NAME URL QUERY: ours has a password in it and changes with it; the address of a Redis of yours stays
  old=$(cat "$secrets/$1" 2>/dev/null || true)
  [ "$old" != "$2$3" ] || return 0
  hosts=${old#*@}
  [ -n "$old" ] && [ "${hosts%%\?*}" != "${2#*@}" ] || put "$1" "$2$3"
}

mkdir -p "$secrets"
chmod 0700 "$secrets"

keep bff-secret-keys "$(random)"
keep oidc-client-secret "$(random)"
keep redis-password "$(random)"
keep sentinel-password "$(random)"
password=$(cat "$secrets/redis-password")
follow redis-url "redis://:$password@redis:6379/0" ""
follow redis-sentinel-url \
  "redis+sentinel://:$password@sentinel-1:26379,sentinel-2:26379,sentinel-3:26379/bff/0" \
  "?sentinel_password=$(cat "$secrets/sentinel-password")"

if [ ! -e "$root/.env" ]; then
  printf '%s\n' '# Read by docker compose. `local` starts the local identity provider; empty it for a real one.' \
    'COMPOSE_PROFILES=local' > "$root/.env"
  echo "made .env"
  made=1
elif ! grep -q '^COMPOSE_PROFILES=' "$root/.env"; then
  echo ".env is yours and stays as it is; for the local identity provider, add the line: COMPOSE_PROFILES=local"
fi

[ $made = 1 ] || echo "nothing to make: all secrets are there (remove one to have it made anew)"
echo "next: docker compose up --build"
