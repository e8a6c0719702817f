#!/bin/sh
# Makes random secrets for docker/compose.production.yaml, each in a file of docker/secrets.
# An existing secret is never replaced: databases keep the passwords with which they were created.
set -eu
cd "$(dirname "$0")"
mkdir -m 0700 secrets || { echo "docker/secrets is there already: it is left as it is" >&2; exit 1; }
cd secrets

password() {
    od -An -N 24 -t x1 /dev/urandom | tr -d ' \n'
}

# A file is readable to all, the folder is not: in a container another user reads the file.
umask 0222
postgres=$(password)
garnet=$(password)
printf '%s\n' "$postgres" > postgres_password
printf 'postgresql://postgres:%s@postgres:5432/postgres\n' "$postgres" > admin_database_url
for service in $(sed -n 's/^  \([a-z]*\)_database_url: .*/\1/p' ../compose.production.yaml | grep -vx admin); do
    printf 'postgresql://%s_app:%s@postgres:5432/%s\n' "$service" "$(password)" "$service" > "${service}_database_url"
done
printf 'redis://:%s@garnet:6379/0\n' "$garnet" > redis_url
printf '{"AuthenticationMode": "Password", "Password": "%s"}\n' "$garnet" > garnet.conf
password > service_token
echo "the secrets are in docker/secrets: keep them, and keep them to yourself"
