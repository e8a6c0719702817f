# Succeed if the process on this port answers 200: bash docker/ready.sh PORT [PATH]
# In bash alone, because the check runs every few seconds in every container: 5 ms instead of 100 ms for a Python.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "${2:-/health/ready}" >&3
read -r -t 4 _ status _ <&3
[ "$status" = 200 ]
