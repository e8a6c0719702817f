# Succeed where the process on this port says that it is ready: bash docker/ready.sh PORT
# In bash alone, because it runs every few seconds in every container: 5 ms in place of a Python's 100.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
read -r -t 4 _ status _ <&3
[ "$status" = 200 ]
