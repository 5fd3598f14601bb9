# Asks once with curl, which knows of Sidekey from its environment alone. The status is in the last line.
exec curl --silent --show-error --max-time 20 --write-out '\n%{http_code}' --header "authorization: Bearer $TOKEN" "$@"
