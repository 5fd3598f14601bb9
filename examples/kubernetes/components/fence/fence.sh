# Loads the rules of this pod. Runs once, as an init container; the rules stay as long as the pod.
set -eu
nft -f /etc/fence/fence.nft
while read -r word address _; do
    [ "$word" = nameserver ] || continue
    case $address in
        *:*) nft add element inet sidekey resolvers6 "{ ${address%%%*} }" ;;
        *) nft add element inet sidekey resolvers4 "{ $address }" ;;
    esac
done </etc/resolv.conf
[ ! -e /etc/fence/redirect.nft ] || nft -f /etc/fence/redirect.nft
